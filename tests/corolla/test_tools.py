"""Tools are shown to a model by its own template, and what it calls is told as calls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from transformers import PreTrainedTokenizerFast

from corolla.exchange import Exchange
from corolla.generation import Completed, Head, generate
from corolla.reply import TextDelta
from corolla.templates import template_message, template_tool
from corolla.text import TextCodec
from schema.errors import InvalidRequest
from schema.generation import (
    GenerationRequest,
    JsonFormat,
    Message,
    Sampling,
    Stopping,
    Tool,
    ToolCall,
    Tools,
)
from schema.messages import CallMade
from tests.corolla.fakes import Hops
from tests.corolla.test_text import fast_tokenizer
from tests.corolla.tiny_text import scripted_head

HERMES = """
{%- if tools %}{% for tool in tools %}<tools>{{ tool | tojson }}</tools>{% endfor %}
Answer with <tool_call></tool_call>.{% endif -%}
{%- for message in messages %}{{ message.role }}:{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>{{ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}</tool_call>
{%- endfor %}
{% endfor -%}
"""
SAID = "{% if message.role != 'tool' %}{{ message.role }}:{{ message.content }}{% endif %}"
PLAIN = "{% for message in messages %}{{ message.role }}:{{ message.content }}\n{% endfor %}"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTIONS = [Tool("weather", "Tomorrow's", CITY), Tool("now")]
TOOLS = Tools(functions=FUNCTIONS)
CALL = '{"name": "weather", "arguments": {"city": "Köln"}}'
NOW = '{"name": "now", "arguments": {}}'
TOLD, NOW_TOLD = (
    CallMade(index=0, name="weather", arguments='{"city": "Köln"}'),
    CallMade(index=1, name="now", arguments="{}"),
)
ASKED_AND_CALLED = [
    Message("user", "How will it be?"),
    Message("assistant", "", tool_calls=[ToolCall("c1", "weather", '{"city":"Köln"}')]),
    Message("tool", "12 °C", tool_call_id="c1", name="weather"),
]


def nested(levels: int) -> dict[str, Any]:
    """A schema of so many objects in each other."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def codec_with(template: str) -> TextCodec:
    tokenizer = fast_tokenizer()
    tokenizer.chat_template = template
    return TextCodec(tokenizer, len(tokenizer), frozenset({1}))


def head_saying(text: str, template: str = HERMES) -> Head:
    head = scripted_head(text)
    tokenizer = cast(PreTrainedTokenizerFast, head.codec._tokenizer)
    tokenizer.chat_template = template
    return head


@pytest.fixture
def exchange() -> Exchange:
    made = Exchange()
    Hops(made)
    return made


async def reply(
    head: Head,
    exchange: Exchange,
    tools: Tools = TOOLS,
    stop: Sequence[str] = (),
    max_tokens: int = 300,
    form: JsonFormat | None = None,
) -> tuple[str, list[CallMade], Completed]:
    request = GenerationRequest(
        model="tiny",
        messages=[Message("user", "Hi")],
        sampling=Sampling(temperature=0),
        stopping=Stopping(max_tokens=max_tokens, stop=list(stop)),
        tools=tools,
        format=form,
    )
    *deltas, end = [event async for event in generate(head, exchange, request)]
    assert isinstance(end, Completed)
    told = [delta for delta in deltas if isinstance(delta, TextDelta)]
    text = "".join(delta.text for delta in told)
    return text, [call for delta in told for call in delta.calls], end


class TestATemplate:
    def test_is_given_tools_in_the_usual_form(self) -> None:
        codec = codec_with(HERMES)
        written = codec.decode(codec.encode_chat([Message("user", "Hi")], TOOLS))
        assert '"name": "weather"' in written.replace('":"', '": "')
        assert "Tomorrow" in written
        assert written.count("<tools>") == 2

    def test_is_given_calls_and_their_results(self) -> None:
        codec = codec_with(HERMES)
        written = codec.decode(codec.encode_chat(ASKED_AND_CALLED, TOOLS))
        assert '<tool_call>{"name": "weather", "arguments": {"city": "K' in written
        assert "tool:12" in written

    def test_without_tools_is_refused_by_name(self) -> None:
        with pytest.raises(InvalidRequest, match="does not know tools") as caught:
            codec_with(PLAIN).encode_chat([Message("user", "Hi")], TOOLS)
        assert caught.value.param == "tools"

    def test_without_calls_is_refused_by_name(self) -> None:
        with pytest.raises(InvalidRequest, match="does not know tool calls") as caught:
            codec_with(PLAIN).encode_chat(ASKED_AND_CALLED)
        assert caught.value.param == "messages"

    def test_without_calls_is_refused_beside_tools_too(self) -> None:
        """Which are listed with the names that are called."""
        listing = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}" + PLAIN
        with pytest.raises(InvalidRequest, match="does not know tool calls") as caught:
            codec_with(listing).encode_chat(ASKED_AND_CALLED, TOOLS)
        assert caught.value.param == "messages"

    @pytest.mark.parametrize("tools", [TOOLS, None])
    def test_without_results_is_refused_by_name(self, tools: Tools | None) -> None:
        silent = HERMES.replace("{{ message.role }}:{{ message.content }}", SAID)
        with pytest.raises(InvalidRequest, match="does not know results of tools") as caught:
            codec_with(silent).encode_chat(ASKED_AND_CALLED, tools)
        assert caught.value.param == "messages"

    def test_that_wants_results_behind_calls_knows_both(self) -> None:
        strict = (
            "{% for message in messages %}"
            "{% if message.role == 'tool' and not messages[loop.index0 - 1].tool_calls %}"
            "{{ raise_exception('a result of nothing') }}{% endif %}{% endfor %}" + HERMES
        )
        codec = codec_with(strict)
        assert codec.encode_chat(ASKED_AND_CALLED) == codec_with(HERMES).encode_chat(ASKED_AND_CALLED)

    def test_that_would_write_what_is_nested_too_deep_is_refused_by_name(self) -> None:
        with pytest.raises(InvalidRequest, match=r"nested too deep.* flatter") as caught:
            codec_with(HERMES).encode_chat(
                [Message("user", "Hi")], Tools(functions=[Tool("a", None, nested(900))])
            )
        assert caught.value.param == "tools"
        deep = ToolCall("c1", "now", '{"a":' * 100_000 + "1" + "}" * 100_000)
        with pytest.raises(InvalidRequest, match=r"nested too deep.* flatter") as caught:
            codec_with(HERMES).encode_chat([Message("assistant", "", tool_calls=[deep])])
        assert caught.value.param == "messages"

    def test_that_cannot_be_rendered_with_tools_is_refused_in_its_words(self) -> None:
        with pytest.raises(InvalidRequest, match="no tools here"):
            codec_with("{% if tools %}{{ raise_exception('no tools here') }}{% endif %}x").encode_chat(
                [Message("user", "Hi")], TOOLS
            )


def test_a_message_is_written_without_what_it_does_not_have() -> None:
    assert template_message(Message("user", "Hi")) == {"role": "user", "content": "Hi"}


def test_arguments_are_written_as_values_where_they_are_json() -> None:
    calls = [ToolCall("1", "a", '{"x":1}'), ToolCall("2", "b", "not JSON")]
    written = template_message(Message("assistant", "", tool_calls=calls))["tool_calls"]
    assert [one["function"]["arguments"] for one in written] == [{"x": 1}, "not JSON"]


def test_a_function_without_arguments_takes_an_empty_object() -> None:
    parameters = template_tool(Tool("now"))["function"]["parameters"]
    assert parameters == {"type": "object", "properties": {}}


class TestAReply:
    async def test_that_calls_is_told_as_calls(self, exchange: Exchange) -> None:
        says = f"Wait.<tool_call>{CALL}</tool_call>\n<tool_call>{NOW}</tool_call>"
        text, calls, end = await reply(head_saying(says), exchange)
        assert (text, calls, end.reason) == ("Wait.", [TOLD, NOW_TOLD], "tool_calls")

    async def test_that_does_not_is_text(self, exchange: Exchange) -> None:
        text, calls, end = await reply(head_saying("It is 5 <6."), exchange)
        assert (text, calls, end.reason) == ("It is 5 <6.", [], "stop")

    async def test_that_may_call_once_ends_with_its_first_call(self, exchange: Exchange) -> None:
        says = f"<tool_call>{CALL}</tool_call>\n<tool_call>{NOW}</tool_call>"
        one = Tools(functions=FUNCTIONS, is_parallel=False)
        text, calls, end = await reply(head_saying(says), exchange, one)
        assert (text, calls, end.reason) == ("", [TOLD], "tool_calls")
        assert end.usage.completion_tokens == len(f"<tool_call>{CALL}</tool_call>".encode())

    async def test_that_is_cut_off_in_a_call_is_text(self, exchange: Exchange) -> None:
        text, calls, end = await reply(head_saying(f"<tool_call>{CALL}</tool_call>"), exchange, max_tokens=14)
        assert (text, calls, end.reason) == ('<tool_call>{"n', [], "length")

    async def test_is_not_stopped_by_what_a_call_holds(self, exchange: Exchange) -> None:
        text, calls, end = await reply(
            head_saying(f"So<tool_call>{CALL}</tool_call>"), exchange, stop=["city"]
        )
        assert (text, calls, end.reason) == ("So", [TOLD], "tool_calls")

    async def test_that_begins_like_a_call_is_text_as_it_comes(self, exchange: Exchange) -> None:
        bare = HERMES.replace("<tool_call>", "").replace("</tool_call>", "")
        text, calls, end = await reply(head_saying("{x} is a set. And", bare), exchange, stop=["."])
        assert (text, calls, end.reason) == ("{x} is a set", [], "stop")
        assert end.usage.completion_tokens == len("{x} is a set.")

    async def test_that_is_held_to_a_format_is_no_call(self, exchange: Exchange) -> None:
        bare = HERMES.replace("<tool_call>", "").replace("</tool_call>", "")
        text, calls, end = await reply(head_saying(NOW, bare), exchange, form=JsonFormat())
        assert (text, calls, end.reason) == (NOW, [], "stop")

    async def test_that_was_held_back_as_a_call_is_stopped_all_the_same(self, exchange: Exchange) -> None:
        says = '<tool_call>{"name": 1} one. two'
        text, calls, end = await reply(head_saying(says), exchange, stop=["."], max_tokens=len(says))
        assert (text, calls, end.reason) == ('<tool_call>{"name": 1} one', [], "stop")

    async def test_whose_marks_are_tokens_without_text_is_read_all_the_same(self, exchange: Exchange) -> None:
        template = HERMES.replace("<tool_call>", "[TOOL_CALLS]").replace("</tool_call>", "")
        head = head_saying("", template)
        tokenizer = cast(PreTrainedTokenizerFast, head.codec._tokenizer)
        tokenizer.add_special_tokens({"additional_special_tokens": ["[TOOL_CALLS]"]})
        said = head_saying(f"[{CALL}]")
        mark = tokenizer.convert_tokens_to_ids("[TOOL_CALLS]")
        codec = TextCodec(tokenizer, 300, frozenset({256}))
        script = [mark, *head.codec.encode_prompt(f"[{CALL}]"), 256]
        said.model._script[:] = script  # type: ignore[attr-defined]
        said.model._vocabulary = 300  # type: ignore[attr-defined]
        text, calls, end = await reply(replace(said, codec=codec), exchange)
        assert (text, calls, end.reason) == ("", [TOLD], "tool_calls")

    async def test_that_must_call_does_and_ends_there(self, exchange: Exchange) -> None:
        must = Tools(functions=FUNCTIONS, must_call=True)
        says = f"[{CALL},{NOW}] That's all."
        text, calls, end = await reply(head_saying(says), exchange, must)
        assert (text, calls, end.reason) == ("", [TOLD, NOW_TOLD], "tool_calls")

    async def test_that_must_call_does_whatever_it_would_like_to_say(self, exchange: Exchange) -> None:
        must = Tools(functions=[Tool("now")], must_call=True, is_parallel=False)
        text, calls, end = await reply(head_saying("I would rather not. " * 4), exchange, must)
        assert (text, [call.name for call in calls], end.reason) == ("", ["now"], "tool_calls")

    async def test_of_a_completion_has_no_tools(self, exchange: Exchange) -> None:
        request = GenerationRequest(model="tiny", prompt="Hi", tools=TOOLS)
        with pytest.raises(InvalidRequest, match="chats") as caught:
            [event async for event in generate(scripted_head("x"), exchange, request)]
        assert caught.value.param == "tools"
