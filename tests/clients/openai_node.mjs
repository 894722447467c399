// What the `openai` package for Node does with a relay; prints what came of it as JSON.
// Environment: OPENAI_BASE_URL, OPENAI_API_KEY, MODEL.
import OpenAI, { NotFoundError } from "openai";

const client = new OpenAI({ maxRetries: 0 });
const model = process.env.MODEL;
const messages = [{ role: "user", content: "Tell me a short story about a fox." }];
const asked = { model, messages, max_tokens: 24, temperature: 0 };

const whole = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 2 });

const stream = await client.chat.completions.create({
    ...asked,
    stream: true,
    stream_options: { include_usage: true },
});
let streamed = "";
let usage = null;
for await (const chunk of stream) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
}

const json = await client.chat.completions.create({
    ...asked,
    max_tokens: 100,
    response_format: {
        type: "json_schema",
        json_schema: {
            name: "fox",
            strict: true,
            schema: {
                type: "object",
                properties: { legs: { type: "integer", minimum: 1, maximum: 9 } },
                required: ["legs"],
                additionalProperties: false,
            },
        },
    },
});

const embedding = await client.embeddings.create({ model, input: ["a fox", "a dog"] });
const listed = [];
for await (const one of client.models.list()) listed.push(one.id);
let refusal = null;
try {
    await client.chat.completions.create({ ...asked, model: "nothing" });
} catch (error) {
    refusal = { isNotFound: error instanceof NotFoundError, code: error.code };
}

console.log(
    JSON.stringify({
        whole: whole.choices[0].message.content,
        tokens: whole.choices[0].logprobs.content.length,
        streamed,
        usage,
        json: JSON.parse(json.choices[0].message.content),
        vectors: embedding.data.map((one) => one.embedding.length),
        listed,
        refusal,
    }),
);
