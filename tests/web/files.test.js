/** The files of the page: nothing missing, nothing from elsewhere, nothing that could turn text into markup. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

const WEB = new URL("../../web/", import.meta.url);
const read = (path) => readFileSync(new URL(path, WEB), "utf8");
const page = read("index.html");
const scripts = readdirSync(new URL("js/", WEB)).map((name) => `js/${name}`);
const styles = readdirSync(new URL("css/", WEB)).map((name) => `css/${name}`);

const FIRST_LOAD_BYTES = 150_000;

test("every file that the page names is there", () => {
  for (const [, path] of page.matchAll(/(?:src|href)="\/static\/([^"]+)"/g))
    assert.ok(existsSync(new URL(path, WEB)), path);
});

test("every style is on the page", () => {
  for (const path of styles) assert.ok(page.includes(`/static/${path}`), path);
});

test("the page asks no other host for anything", () => {
  for (const path of ["index.html", ...styles])
    assert.doesNotMatch(read(path), /(?:src|href)="https?:|url\(\s*["']?(?:https?:)?\/\//, path);
});

test("the page holds no inline script, style or handler, which its policy forbids", () => {
  assert.doesNotMatch(page, /<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=/);
});

test("no script parses markup or evaluates text", () => {
  const forbidden =
    /innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML|\beval\(|new Function|\.srcdoc|\.setAttribute\("(?:style|on)/;
  for (const path of scripts) assert.doesNotMatch(read(path), forbidden, path);
});

test("the vendored library is the pinned version, with its licence", () => {
  const { devDependencies } = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  );
  assert.ok(read("vendor/marked/marked.esm.js").includes(`marked v${devDependencies.marked} `));
  assert.match(read("vendor/marked/LICENSE"), /Permission is hereby granted, free of charge/);
});

test("the first load stays within its budget", () => {
  const files = ["index.html", "favicon.svg", "vendor/marked/marked.esm.js", ...scripts, ...styles];
  const bytes = files.reduce((sum, path) => sum + gzipSync(read(path)).length, 0);
  assert.ok(bytes <= FIRST_LOAD_BYTES, `${bytes} bytes compressed`);
});
