/** The files of the pages: nothing missing, nothing from elsewhere, nothing that could turn text into markup. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path/posix";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const WEB = new URL("../../web/", import.meta.url);
const read = (path) => readFileSync(new URL(path, WEB), "utf8");
const pages = readdirSync(WEB).filter((name) => name.endsWith(".html"));
const scripts = readdirSync(new URL("js/", WEB), { recursive: true })
  .filter((name) => name.endsWith(".js"))
  .map((name) => `js/${name}`);
const styles = readdirSync(new URL("css/", WEB)).map((name) => `css/${name}`);
/** Of pages that the relay makes itself. */
const ELSEWHERE = new Set(["css/docs.css"]);

/** Compressed, of each page with all that it names and what that imports. */
const FIRST_LOAD_BYTES = 150_000;

/** The files of `web/` that a page loads. */
function filesOf(page) {
  const found = new Set([page]);
  for (const [, path] of read(page).matchAll(/(?:src|href)="\/static\/([^"]+)"/g)) found.add(path);
  for (const path of found)
    if (path.endsWith(".js"))
      for (const [, to] of read(path).matchAll(/(?:from |import |import\()"(\.[^"]+|\/static\/[^"]+)"/g))
        found.add(to.startsWith(".") ? join(dirname(path), to) : to.slice("/static/".length));
  return [...found];
}

test("every file that a page names is there", () => {
  for (const page of pages)
    for (const path of filesOf(page)) assert.ok(existsSync(new URL(path, WEB)), `${page}: ${path}`);
});

test("every style and every script is on some page", () => {
  const used = new Set(pages.flatMap(filesOf));
  for (const path of [...styles, ...scripts]) assert.ok(used.has(path) || ELSEWHERE.has(path), path);
});

test("the pages ask no other host for anything", () => {
  for (const path of [...pages, ...styles])
    assert.doesNotMatch(read(path), /(?:src|href)="https?:|url\(\s*["']?(?:https?:)?\/\//, path);
});

test("the pages hold no inline script, style or handler, which their policy forbids", () => {
  for (const page of pages)
    assert.doesNotMatch(read(page), /<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=/, page);
});

test("no script parses markup or evaluates text", () => {
  const forbidden =
    /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML|\beval\(|new Function|\.srcdoc|\.setAttribute\("(?:style|on)/;
  for (const path of scripts) assert.doesNotMatch(read(path), forbidden, path);
});

test("the vendored libraries are the pinned versions, with their licences", () => {
  const { devDependencies } = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  );
  for (const [name, path] of Object.entries({
    marked: "vendor/marked/marked.esm.js",
    temml: "vendor/temml/temml.esm.js",
    "axe-core": "../tests/web/vendor/axe-core/axe.min.js",
  })) {
    const begin = read(path).slice(0, 200);
    assert.ok(begin.includes(devDependencies[name]), `${name} is not ${devDependencies[name]}`);
    const licence = read(new URL("LICENSE", new URL(path, WEB)));
    assert.match(
      licence,
      /Permission is hereby granted, free of charge|Mozilla Public License, version 2\.0/,
    );
  }
});

/** The modules that one loads before it runs, itself among them. @returns {Set<string>} */
function loadedWith(path, found = new Set()) {
  if (found.has(path)) return found;
  found.add(path);
  for (const [, to] of read(path).matchAll(/^(?:import|export)[^;]*?from "(\.[^"]+)";/gm))
    loadedWith(new URL(to, new URL(path, WEB)).href.slice(WEB.href.length), found);
  return found;
}

const first = loadedWith("js/main.js");

test("the page names all modules that it needs at first, so that none is found by reading another", () => {
  const named = [...read("index.html").matchAll(/<link rel="modulepreload" href="\/static\/([^"]+)">/g)].map(
    ([, path]) => path,
  );
  assert.deepEqual([...named, "js/main.js"].sort(), [...first].sort());
});

test("what few conversations need is not loaded at first", () => {
  for (const late of ["vendor/temml/temml.esm.js", "js/chat/formulas.js", "js/chat/highlight.js"])
    assert.ok(!first.has(late), late);
});

test("the first load of each page stays within its budget", () => {
  for (const page of pages) {
    const linked = [...read(page).matchAll(/(?:src|href)="\/static\/([^"]+)"/g)].map(([, path]) => path);
    const modules = linked.filter((path) => path.endsWith(".js")).flatMap((path) => [...loadedWith(path)]);
    const files = new Set([page, ...linked, ...modules]);
    const bytes = [...files].reduce((sum, path) => sum + gzipSync(read(path), { level: 9 }).length, 0);
    assert.ok(bytes <= FIRST_LOAD_BYTES, `${page}: ${bytes} bytes compressed`);
  }
});
