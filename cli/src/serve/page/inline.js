// Markdown within a line: code, emphasis and links. Every search is bounded: no text takes long.

import { element } from "./dom.js";

/** How many pieces back an emphasis may begin. */
const REACH = 200;

const LINK = /\[([^[\]\n]{1,500})\]\((https?:\/\/[^\s<>()]{1,1000}(?:\([^\s<>()]{0,200}\))?[^\s<>()]{0,1000})(?:[ \t]+"[^"\n]{0,200}")?\)/iy;
const ADDRESS = /https?:\/\/[^\s<>"'`*[\]（）【】《》，。；：！？、“”]{1,2000}/iy;
const PLAIN = /[^\\`*_~[<h]+/y;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;

export function inline(source, isLink = false) {
  const pieces = [];
  const unclosed = new Set();
  const add = (piece) => {
    if (typeof piece === "string" && typeof pieces.at(-1) === "string") pieces[pieces.length - 1] += piece;
    else pieces.push(piece);
  };
  let at = 0;
  while (at < source.length) {
    const one = source[at];
    const plain = match(PLAIN, source, at);
    if (plain) {
      add(plain[0]);
      at += plain[0].length;
    } else if (one === "\\" && PUNCTUATION.test(source[at + 1] ?? "")) {
      add(source[at + 1]);
      at += 2;
    } else if (one === "`") {
      const begin = endOfRun(source, at);
      const count = begin - at;
      const end = unclosed.has(count) ? -1 : closingTicks(source, begin, count);
      if (end < 0) unclosed.add(count);
      add(end < 0 ? source.slice(at, begin) : element("code", {}, trimmed(source.slice(begin, end))));
      at = end < 0 ? begin : end + count;
    } else if ("*_~".includes(one)) {
      const end = endOfRun(source, at);
      add(mark(source, at, end));
      at = end;
    } else {
      const found = isLink ? null : linkAt(source, at);
      add(found ? found.node : one);
      at += found ? found.length : 1;
    }
  }
  return emphasised(pieces);
}

function match(pattern, source, at) {
  pattern.lastIndex = at;
  return pattern.exec(source);
}

function endOfRun(source, at) {
  let end = at;
  while (source[end] === source[at]) end++;
  return end;
}

function closingTicks(source, at, count) {
  for (let end; (at = source.indexOf("`", at)) >= 0; at = end) {
    end = endOfRun(source, at);
    if (end - at === count) return at;
  }
  return -1;
}

/** Code may begin or end with a backtick behind one blank. */
const trimmed = (code) => (code.startsWith(" ") && code.endsWith(" ") && code.trim() ? code.slice(1, -1) : code);

function linkAt(source, at) {
  if (source[at] === "[" && source[at - 1] !== "!") {
    const found = match(LINK, source, at);
    return found && { node: link(found[2], inline(found[1], true)), length: found[0].length };
  }
  // An address within a word is text.
  if (source[at] !== "h" || WORD.test(source[at - 1] ?? "")) return null;
  let found = match(ADDRESS, source, at)?.[0].replace(/[.,;:!?]+$/, "");
  while (found?.endsWith(")") && found.split(")").length > found.split("(").length) found = found.slice(0, -1);
  return found ? { node: link(found, [found]), length: found.length } : null;
}

/** Both patterns of an address allow http and https only. */
const link = (address, content) => element("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, ...content);

/** Marks of an emphasis. Unlike in CommonMark, punctuation beside them does not matter: Chinese has no blanks. */
function mark(source, start, end) {
  const before = source[start - 1] ?? " ";
  const after = source[end] ?? " ";
  const isWithinWord = source[start] === "_" && WORD.test(before) && WORD.test(after);
  const isPair = source[start] !== "~" || end - start === 2;
  const can = isPair && !isWithinWord;
  return { sign: source[start], count: end - start, opens: can && !/\s/.test(after), closes: can && !/\s/.test(before) };
}

/** Pairs marks from left to right; those without a partner are text. */
function emphasised(pieces) {
  const done = [];
  for (const piece of pieces) {
    if (!piece.sign || !piece.closes) {
      done.push(piece);
      continue;
    }
    for (;;) {
      const open = piece.count ? opener(done, piece) : -1;
      if (open < 0) break;
      const begin = done[open];
      const used = piece.sign === "~" ? 2 : Math.min(2, begin.count, piece.count);
      const name = piece.sign === "~" ? "del" : used === 2 ? "strong" : "em";
      const content = done.splice(open + 1).map(node);
      begin.count -= used;
      piece.count -= used;
      if (begin.count === 0) done.pop();
      done.push(element(name, {}, ...content));
    }
    if (piece.count) done.push(piece);
  }
  return done.map(node);
}

function opener(done, close) {
  for (let at = done.length - 1; at >= Math.max(0, done.length - REACH); at--) {
    const piece = done[at];
    // Marks with nothing between them are no emphasis.
    if (piece.sign === close.sign && piece.opens && at < done.length - 1) return at;
  }
  return -1;
}

const node = (piece) => (piece.sign ? piece.sign.repeat(piece.count) : piece);
