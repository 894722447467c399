/**
 * A document just large enough for `web/js/markdown.js` and `streamed.js`: elements, text nodes, fragments,
 * attributes. It parses nothing, so whatever shows up as an element was made as one by the code under test.
 */

class FakeNode {
  childNodes = [];
  parentNode = null;

  get lastChild() {
    return this.childNodes.at(-1) ?? null;
  }

  get firstChild() {
    return this.childNodes[0] ?? null;
  }

  get textContent() {
    return this.childNodes.map((child) => child.textContent).join("");
  }

  append(...nodes) {
    for (const node of nodes) {
      const added = typeof node === "string" ? new FakeText(node) : node;
      const all = added instanceof FakeFragment ? added.childNodes.splice(0) : [added];
      for (const child of all) {
        child.parentNode?.removeChild(child);
        child.parentNode = this;
        this.childNodes.push(child);
      }
    }
  }

  replaceChildren(...nodes) {
    for (const child of [...this.childNodes]) this.removeChild(child);
    this.append(...nodes);
  }

  removeChild(child) {
    this.childNodes.splice(this.childNodes.indexOf(child), 1);
    child.parentNode = null;
  }
}

class FakeText extends FakeNode {
  nodeType = 3;

  constructor(data) {
    super();
    this.data = data;
  }

  get textContent() {
    return this.data;
  }

  get nodeValue() {
    return this.data;
  }

  appendData(more) {
    this.data += more;
  }
}

class FakeFragment extends FakeNode {}

class FakeElement extends FakeNode {
  nodeType = 1;
  style = {};
  attributes = new Map();
  classList = { add: (name) => this.attributes.set("class", name) };

  constructor(tag) {
    super();
    this.tag = tag;
  }

  setAttribute(name, value) {
    this.attributes.set(name, value);
  }
}

export const fakeDocument = {
  createElementNS: (_, tag) => new FakeElement(tag),
  createElement: (tag) => new FakeElement(tag),
  createTextNode: (data) => new FakeText(data),
  createDocumentFragment: () => new FakeFragment(),
};

/** All elements at and below a node. */
export function elements(node) {
  const below = node.childNodes.flatMap(elements);
  return node instanceof FakeElement ? [node, ...below] : below;
}

/** A node as text for assertions: `<p>1 &lt; 2 <em>really</em></p>`. Only the attributes named are shown. */
export function outline(node, shown = []) {
  if (node instanceof FakeText) return node.data.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const inside = node.childNodes.map((child) => outline(child, shown)).join("");
  if (!(node instanceof FakeElement)) return inside;
  const attributes = shown.filter((name) => node.attributes.has(name));
  const words = attributes.map((name) => ` ${name}="${node.attributes.get(name)}"`).join("");
  return `<${node.tag}${words}>${inside}</${node.tag}>`;
}
