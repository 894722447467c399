/** A model's text is hostile input: what it may become in the page, and what it may not. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { lexBlocks } from "../../web/js/chat/blocks.js";
import { decodeReferences, renderBlock, safeHref } from "../../web/js/markdown.js";
import { elements, fakeDocument, outline } from "./fake_dom.js";

globalThis.document = /** @type {any} */ (fakeDocument);

function render(text) {
  const page = fakeDocument.createElement("div");
  for (const block of lexBlocks(text).blocks) page.append(renderBlock(block));
  return page;
}

const html = (text, shown) => outline(render(text), shown).slice("<div>".length, -"</div>".length);

/** Everything that an element of a reply may be, and every attribute that it may carry. */
const TAGS = new Set(
  "div p span br hr strong em del code pre h3 h4 h5 h6 ul ol li blockquote table thead tbody tr th td a button".split(
    " ",
  ),
);
const ATTRIBUTES = new Set(
  "class dir type data-copy data-language data-tex tabindex role aria-label start href target rel title".split(
    " ",
  ),
);

function assertHarmless(page) {
  for (const { tag, attributes } of elements(page)) {
    assert.ok(TAGS.has(tag), `<${tag}> was made`);
    for (const name of attributes.keys()) assert.ok(ATTRIBUTES.has(name), `${name} was set on <${tag}>`);
    if (attributes.has("href")) assert.match(attributes.get("href"), /^(https?:|mailto:)/);
    if (attributes.has("type")) assert.equal(tag, "button");
  }
}

const HOSTILE = {
  "a script": "<script>alert(1)</script>",
  "a script inside a paragraph": "hello <script>alert(1)</script> you",
  "an event attribute": '<img src=x onerror="alert(1)">',
  "an event attribute inline": "text <b onmouseover=alert(1)>bold</b>",
  "an iframe": '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
  "an SVG script": "<svg><script>alert(1)</script></svg>",
  "a style": "<style>body{display:none}</style>",
  "a form": '<form action="https://evil.example"><input name=token></form>',
  "a meta refresh": '<meta http-equiv=refresh content="0;url=https://evil.example">',
  "a javascript: link": "[click](javascript:alert(1))",
  "a javascript: link with tabs": "[click](java\tscript:alert(1))",
  "a javascript: link with references": "[click](&#106;avascript:alert(1))",
  "a javascript: link in capitals": "[click](JaVaScRiPt:alert(1))",
  "a javascript: autolink": "<javascript:alert(1)>",
  "a reference to a javascript: link": "[click][x]\n\n[x]: javascript:alert(1)",
  "a data: link": "[click](data:text/html,<script>alert(1)</script>)",
  "a vbscript: link": "[click](vbscript:msgbox(1))",
  "a file: link": "[click](file:///etc/passwd)",
  "a relative link": "[click](/api/session)",
  "a protocol-relative link": "[click](//evil.example)",
  "an image": "![cat](https://evil.example/pixel.png)",
  "a javascript: image": "![cat](javascript:alert(1))",
  "a data: image": "![cat](data:image/svg+xml,<svg onload=alert(1)>)",
  "a quote in a link's title": '[a](https://a.example "x\\" onclick=alert(1) y=\\"")',
  "a quote in a code language": '```js" onclick="alert(1)\nx\n```',
  "a script in a table": "| a |\n|---|\n| <script>alert(1)</script> |",
  "a script in a heading in a list in a quote":
    "> - # <script>alert(1)</script>\n> - **<img src=x onerror=alert(1)>**",
  "a script in link text": "[<img src=x onerror=alert(1)>](https://a.example)",
  "escaped references": "&lt;script&gt;alert(1)&lt;/script&gt;",
  "a comment": "<!-- --><script>alert(1)</script>",
  "an inherited property as a token type": "constructor __proto__ toString",
};

for (const [what, text] of Object.entries(HOSTILE)) {
  test(`${what} becomes no markup`, () => assertHarmless(render(text)));
}

test("HTML is shown as the text it is", () => {
  assert.equal(html("<script>alert(1)</script>"), "<p>&lt;script>alert(1)&lt;/script></p>");
  assert.equal(html("a <b onclick=x>b</b>"), "<p>a &lt;b onclick=x>b&lt;/b></p>");
});

test("no text is lost with the markup", () => {
  for (const text of ["<script>alert(1)</script>", "a <b onclick=x>b</b> c", "<iframe src=x></iframe>"]) {
    assert.equal(render(text).textContent, text);
  }
});

describe("links", () => {
  for (const good of ["https://a.example/x?y=1#z", "http://a.example/", "mailto:a@b.example"]) {
    test(`${good} is followed`, () => assert.equal(safeHref(good), good));
  }
  for (const bad of [
    "javascript:alert(1)",
    " javascript:alert(1)",
    "java\nscript:x",
    "data:,x",
    "blob:x",
    "x",
    "/x",
    "",
  ]) {
    test(`${JSON.stringify(bad)} is not`, () => assert.equal(safeHref(bad), null));
  }

  test("open elsewhere and tell the other site nothing", () => {
    assert.equal(
      html("[a](https://a.example/)", ["href", "target", "rel"]),
      '<p><a href="https://a.example/" target="_blank" rel="noopener noreferrer nofollow">a</a></p>',
    );
  });

  test("an unsafe one keeps its text", () => {
    assert.equal(html("[click](javascript:alert(1))"), "<p><span>click</span></p>");
  });

  test("bare addresses become links", () => {
    assert.equal(
      html("see https://a.example/?a=1&b=2", ["href"]),
      '<p>see <a href="https://a.example/?a=1&b=2">https://a.example/?a=1&amp;b=2</a></p>',
    );
  });
});

test("an image is not loaded but linked", () => {
  assert.equal(
    html("![a cat](https://a.example/cat.png)", ["href"]),
    '<p><a href="https://a.example/cat.png">Image: a cat</a></p>',
  );
  assert.equal(html("![a cat](cat.png)"), "<p><span>Image: a cat</span></p>");
});

describe("what a reply may hold", () => {
  const cases = {
    "headings, below those of the page": ["# One\n\n### Three", "<h3>One</h3><h4>Three</h4>"],
    emphasis: ["**a** *b* ~~c~~ `d`", "<p><strong>a</strong> <em>b</em> <del>c</del> <code>d</code></p>"],
    "lists inside lists": ["- a\n  - b", "<ul><li><span>a</span><ul><li><span>b</span></li></ul></li></ul>"],
    tasks: ["- [x] a\n- [ ] b", "<ul><li>☑ <span>a</span></li><li>☐ <span>b</span></li></ul>"],
    quotes: ["> a", "<blockquote><p>a</p></blockquote>"],
    "line breaks": ["a\nb<br>c", "<p>a<br></br>b<br></br>c</p>"],
    rules: ["a\n\n---", "<p>a</p><hr></hr>"],
    "character references": ["1 &lt; 2 &amp; 3 &#x1F33C;", "<p>1 &lt; 2 &amp; 3 🌼</p>"],
    "escaped marks": ["\\*a\\*", "<p>*a*</p>"],
  };
  for (const [what, [text, expected]] of Object.entries(cases)) {
    test(what, () => assert.equal(html(text), expected));
  }

  test("a numbered list keeps its start", () => {
    assert.equal(html("3. a", ["start"]), '<ol start="3"><li><span>a</span></li></ol>');
  });

  test("code as it is, with its language", () => {
    assert.equal(
      html("```python\nif a < b: # &lt;\n```"),
      "<div><div><span>python</span><button>Copy</button></div><pre><code>if a &lt; b: # &amp;lt;</code></pre></div>",
    );
  });

  test("code that has not ended yet", () => {
    assert.match(html("```\nlet a"), /<pre><code>let a<\/code><\/pre>/);
  });

  test("tables with alignment", () => {
    assert.equal(
      html("| a | b |\n|---|--:|\n| 1 | 2 |", ["class"]),
      '<div class="table"><table><thead><tr><th>a</th><th class="align-right">b</th></tr></thead>' +
        '<tbody><tr><td>1</td><td class="align-right">2</td></tr></tbody></table></div>',
    );
  });
});

describe("text made to hold up the page", () => {
  test("nesting without end is shown as it is", () => {
    const text = `${">".repeat(20_000)} deep`;
    assert.equal(render(text).textContent, text);
  });

  test("deep nesting loses no text", () => {
    const page = render(`${"> ".repeat(60)}deep`);
    assertHarmless(page);
    assert.match(page.textContent, /deep/);
  });

  test("very long text is shown as it is", () => {
    const text = "**a** ".repeat(50_000);
    const page = render(text);
    assert.ok(page.textContent === text);
    assert.ok(elements(page).every(({ tag }) => tag === "p" || tag === "div"));
  });

  test("a line without end comes in pieces, so that each is laid out once", () => {
    const text = "x".repeat(1_000_000);
    const { childNodes, textContent } = render(text);
    assert.ok(textContent === text);
    assert.ok(childNodes.every((piece) => piece.textContent.length <= 4001));
  });

  test("a paragraph without end, of marks that could mean something", () => {
    for (const mark of [
      "[",
      "*",
      "`",
      "**a ",
      "![",
      "_",
      "$a ",
      "\\(",
      "<a ",
      "&",
      "[a](",
      "~~",
      "> ",
      "- ",
      "1. ",
      "\\[\n",
      "a\n\n",
    ]) {
      const text = mark.repeat(150_000 / mark.length);
      assert.doesNotThrow(() => render(text), mark);
    }
  });
});

describe("what hides or turns around", () => {
  test("control characters are shown as their pictures", () => {
    assert.equal(html("a \u001b[31mred\u0007"), "<p>a ␛[31mred␇</p>");
    assert.match(html("```\n\u001b[2J\n```"), /␛\[2J/);
  });

  test("marks that turn text around are named", () => {
    assert.equal(html("user\u202Etxt.exe"), "<p>user⟨U+202E⟩txt.exe</p>");
    assert.equal(html("`a\u2066b`"), "<p><code>a⟨U+2066⟩b</code></p>");
    assert.match(html("```js\nif (a\u2067) // \u2066\n```"), /⟨U\+2067⟩\) \/\/ ⟨U\+2066⟩/);
  });

  test("marks that right-to-left text needs stay, outside of code", () => {
    assert.equal(html("\u2067שלום\u2069"), "<p>\u2067שלום\u2069</p>");
  });
});

describe("formulas", () => {
  const texs = (text) =>
    elements(render(text))
      .filter(({ attributes }) => attributes.has("data-tex"))
      .map(({ attributes }) => [attributes.get("class"), attributes.get("data-tex")]);

  test("in a line and by themselves, with either kind of mark", () => {
    assert.deepEqual(texs("so $a^2$ and \\(b_1\\)"), [
      ["formula", "a^2"],
      ["formula", "b_1"],
    ]);
    assert.deepEqual(texs("so:\n$$\na\n= b\n$$\nand\n\n\\[ c \\]"), [
      ["formula block", "a\n= b"],
      ["formula block", "c"],
    ]);
  });

  test("are shown as they were written until they are drawn", () => {
    assert.equal(html("x $a < b$"), "<p>x <span><code>$a &lt; b$</code></span></p>");
  });

  test("money is none", () => {
    for (const text of ["It costs $5 or $10.", "$ 5 $", "a $5", "`$a$`", "\\$a$", "from $5, to 6$7"])
      assert.deepEqual(texs(text), [], text);
  });

  test("keep underscores and stars from being emphasis", () => {
    assert.deepEqual(texs("$a_1 * b_2 * c_3$"), [["formula", "a_1 * b_2 * c_3"]]);
  });
});

test("references outside Unicode stay as they are", () => {
  for (const text of ["&#0;", "&#xD800;", "&#x110000;", "&#9999999;", "&bogus;"])
    assert.equal(decodeReferences(text), text);
});
