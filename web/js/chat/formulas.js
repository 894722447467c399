/**
 * Formulas in a model's text as MathML. The text is hostile: Temml only turns TeX into a tree of its own, and
 * what is made of that are elements of the kinds below with the attributes below, and text nodes. Loaded, with
 * Temml, when the first formula occurs. Knows nothing of Markdown.
 *
 * @typedef {{ type?: string, text?: string, children?: TreeNode[], attributes?: Record<string, unknown>,
 *   classes?: string[], style?: Record<string, unknown> }} TreeNode
 */
import engine from "../../vendor/temml/temml.esm.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
const MAX_TEX = 4000;
const MAX_NODES = 4000;
const MAX_DEPTH = 150;
/** @type {import("../../vendor/temml/temml.esm.js").Options} */
const OPTIONS = { throwOnError: true, trust: false, strict: false, maxExpand: 300, maxSize: [20, 100] };

const ELEMENTS = new Set(
  (
    "math merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle " +
    "msub msubsup msup mtable mtd mtext mtr munder munderover none"
  ).split(" "),
);
const ATTRIBUTES = new Set(
  (
    "accent accentunder columnalign depth display displaystyle fence form height largeop linethickness lspace " +
    "mathbackground mathcolor mathsize mathvariant maxsize minsize movablelimits rowspacing rspace scriptlevel " +
    "separator stretchy symmetric voffset width"
  ).split(" "),
);
const STYLES = new Set(
  (
    "backgroundColor border borderBottom borderLeft borderRight borderTop color fontWeight mathDepth padding " +
    "paddingBottom paddingLeft paddingRight paddingTop textAlign"
  ).split(" "),
);
/** Lengths in `em` and the like; colours; keywords. Nothing that could name an address. */
const VALUE = /^[\w .,%#+-]{0,60}$/;

/**
 * Draws a formula where its source stands; the source stays when it is no TeX that Temml knows, or is made to be
 * too much.
 * @param {HTMLElement} holder
 * @param {string} tex
 * @param {boolean} isBlock
 */
export function drawFormula(holder, tex, isBlock) {
  if (tex.length > MAX_TEX) return;
  let node;
  try {
    node = toMathML(engine.__renderToMathMLTree(tex, { ...OPTIONS, displayMode: isBlock }));
  } catch {
    return;
  }
  holder.replaceChildren(node);
  if (!isBlock) return;
  holder.tabIndex = 0;
  holder.setAttribute("role", "group");
  holder.setAttribute("aria-label", "Formula");
}

/**
 * Temml's tree as nodes.
 * @param {TreeNode} tree
 * @returns {Node}
 * @throws {RangeError} when there is too much of it
 */
export function toMathML(tree) {
  let count = 0;
  const convert = (/** @type {TreeNode} */ node, /** @type {number} */ depth) => {
    count += 1;
    if (count > MAX_NODES || depth > MAX_DEPTH) throw new RangeError("too large a formula");
    if (typeof node.text === "string") return document.createTextNode(node.text);
    // Kinds that are not known keep what is inside: text stays readable.
    const made = ELEMENTS.has(node.type ?? "") ? mathElement(node) : document.createDocumentFragment();
    for (const child of node.children ?? []) made.append(convert(child, depth + 1));
    return made;
  };
  return convert(tree, 0);
}

/** @param {TreeNode} node */
function mathElement({ type, attributes, style }) {
  const made = /** @type {MathMLElement} */ (document.createElementNS(MATHML, type ?? "mrow"));
  for (const [name, value] of Object.entries(attributes ?? {}))
    if (ATTRIBUTES.has(name) && VALUE.test(String(value))) made.setAttribute(name, String(value));
  for (const [name, value] of Object.entries(style ?? {}))
    if (STYLES.has(name) && VALUE.test(String(value))) Reflect.set(made.style, name, String(value));
  return made;
}
