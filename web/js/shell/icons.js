/** The pages' icons, as strokes on 24 by 24. Knows shapes only. */
import { svgElement } from "../dom.js";

/** @type {Record<string, string>} */
const STROKES = {
  leave: "M14 4H6a1 1 0 0 0-1 1v14a1 1 0 0 0 1 1h8M10 12h10M17 8.5l3.5 3.5-3.5 3.5",
  theme: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16Z",
  menu: "M4 7h16M4 12h16M4 17h16",
  back: "M19 12H5M11 6l-6 6 6 6",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  check: "m5 12.5 4.5 4.5L19 7.5",
  cross: "m6 6 12 12M18 6 6 18",
  warning: "M12 4 2.8 20h18.4L12 4ZM12 10v4.5M12 17.4v.1",
  copy: "M9 9h10v11H9zM5 15V4h10",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
};

/** @param {keyof typeof STROKES} name */
export function icon(name) {
  const drawn = svgElement("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "icon" });
  drawn.append(svgElement("path", { d: STROKES[name] ?? "" }));
  if (name === "theme") drawn.append(svgElement("path", { class: "filled", d: "M12 4a8 8 0 0 1 0 16Z" }));
  return drawn;
}
