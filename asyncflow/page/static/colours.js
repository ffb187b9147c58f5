// The colours that a program gives its output for a terminal: parts of a line, each with how it is
// shown. Only what is known here has an effect; whatever else stands in an escape is left out. Pure.

import { printable } from "./format.js";

const SELECT = /\u001b\[([0-9;:]*)m/g;
const STYLES = { 1: "bold", 2: "dim", 3: "italic", 4: "underline" };

/** At most `most` parts of a line of output, as [text, classes, colour]; the last has all the rest. */
export function coloured(line, most) {
  const text = String(line ?? "").replace(/\r+$/, "");
  const shown = text.slice(text.lastIndexOf("\r") + 1); // a progress bar writes over itself
  if (!shown.includes("\u001b[")) return [[printable(shown), "", ""]];
  const parts = [];
  let look = {};
  let from = 0;
  for (const found of shown.matchAll(SELECT)) {
    if (parts.length >= most) break;
    add(parts, shown.slice(from, found.index), look);
    look = selected(look, found[1]);
    from = found.index + found[0].length;
  }
  add(parts, shown.slice(from), look);
  return parts;
}

function add(parts, text, look) {
  const plain = printable(text);
  if (!plain) return;
  const names = [look.front, look.back && `on-${look.back}`, ...Object.values(STYLES).filter((name) => look[name])];
  parts.push([plain, names.filter(Boolean).map((name) => `ansi-${name}`).join(" "), look.colour ?? ""]);
}

/** How text looks after such a sequence. A colon joins a code with what belongs to it. */
function selected(look, text) {
  const codes = text.split(";");
  let next = { ...look };
  for (let at = 0; at < codes.length; at += 1) {
    const [code, ...joined] = numbers(codes[at].split(":", 7));
    if (code === 0) next = {};
    else if (code === 4 && joined.length) next.underline = joined[0] !== 0; // which kind of line
    else if (STYLES[code]) next[STYLES[code]] = true;
    else if (code === 22) Object.assign(next, { bold: false, dim: false });
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code === 39) Object.assign(next, { front: "", colour: "" });
    else if (code === 49) next.back = "";
    else if (code >= 30 && code <= 37) Object.assign(next, { front: String(code - 30), colour: "" });
    else if (code >= 90 && code <= 97) Object.assign(next, { front: String(code - 90), colour: "" });
    else if (code >= 40 && code <= 47) next.back = String(code - 40);
    else if (code >= 100 && code <= 107) next.back = String(code - 100);
    else if (code === 38 || code === 48 || code === 58) {
      // of text, of what is behind it, of the line below it
      const [length, chosen] = extended(joined.length ? withoutSpace(joined) : numbers(codes.slice(at + 1, at + 5)));
      if (code === 38) Object.assign(next, chosen);
      if (!joined.length) at += length;
    }
  }
  return next;
}

function numbers(texts) {
  return texts.map((each) => Number(each || 0));
}

/** `2:SPACE:R:G:B` without the colour space, which many programs leave out. */
function withoutSpace(joined) {
  return joined[0] === 2 && joined.length > 4 ? [2, ...joined.slice(2)] : joined;
}

/** One of 256 colours or of all: how many numbers that takes, and the colour. */
function extended([kind, ...rest]) {
  if (kind === 2) return [4, { front: "", colour: rgb(rest.slice(0, 3)) }];
  if (kind !== 5) return [1, {}];
  const number = Math.min(rest[0] ?? 0, 255);
  if (number < 16) return [2, { front: String(number % 8), colour: "" }];
  if (number > 231) return [2, { front: "", colour: rgb([0, 0, 0].fill(8 + (number - 232) * 10)) }];
  const level = (each) => (each ? 55 + each * 40 : 0);
  const cube = number - 16;
  return [2, { front: "", colour: rgb([Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level)) }];
}

function rgb(levels) {
  return `rgb(${[0, 1, 2].map((at) => Math.min(Math.trunc(levels[at]) || 0, 255)).join(" ")})`;
}
