// Markdown as elements. What a model writes is text: HTML, images and links to anything but http and https stay as they were written.

import { copy, element, icon } from "./dom.js";
import { inline } from "./inline.js";
import { text } from "./messages.js";

/** How deep lists and quotes are nested; deeper ones are shown as paragraphs. */
const DEPTH = 8;

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;

/**
 * Shows Markdown in an element. Blocks at the beginning that are already there stay the same elements, so a growing answer costs only
 * its last block, and what the reader selected stays selected.
 */
export function show(container, source) {
  const blocks = split(source.split(/\r\n|\n|\r/), 0);
  const shown = container.blocks ?? [];
  const sources = blocks.map((block) => block.source);
  let same = 0;
  while (same < sources.length && sources[same] === shown[same]) same++;
  while (container.childNodes.length > same) container.lastChild.remove();
  container.append(...blocks.slice(same).map((block) => block.draw()));
  container.blocks = sources;
}

/** The blocks of lines: the source of each, and a function that makes its element. */
function split(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const start = at;
    const kind = KINDS.find((kind) => kind.begins(lines, at) && (!kind.nests || depth < DEPTH)) ?? PARAGRAPH;
    at = kind.end(lines, at, depth);
    const own = lines.slice(start, at);
    blocks.push({ source: own.join("\n"), draw: () => kind.draw(own, depth) });
  }
  return blocks;
}

const nested = (lines, depth) => split(lines, depth + 1).map((block) => block.draw());

const CODE = {
  begins: (lines, at) => FENCE.test(lines[at]),
  end(lines, at) {
    const close = closing(lines[at]);
    while (++at < lines.length) if (close(lines[at])) return at + 1;
    return at;
  },
  draw(lines) {
    const language = FENCE.exec(lines[0])[2].trim().split(/\s/)[0];
    const isClosed = lines.length > 1 && closing(lines[0])(lines.at(-1));
    const code = lines.slice(1, isClosed ? -1 : undefined).join("\n");
    const label = text("copyCode");
    const button = element("button", { class: "icon", type: "button", title: label, "aria-label": label, onclick: () => copy(code) }, icon("copy"));
    const name = element("span", {}, language || text("code"));
    const pre = element("pre", { tabindex: 0, role: "region", "aria-label": `${text("code")} ${language}`.trim() }, element("code", {}, code));
    return element("div", { class: "code" }, element("div", {}, name, button), pre);
  },
};

/** Whether a line closes the fence that this line opens. */
function closing(line) {
  const fence = FENCE.exec(line)[1];
  return (other) => {
    const bare = other.trim();
    return bare.length >= fence.length && bare === fence[0].repeat(bare.length);
  };
}

const HEAD = {
  begins: (lines, at) => HEADING.test(lines[at]),
  end: (lines, at) => at + 1,
  draw([line]) {
    const marks = HEADING.exec(line)[0];
    // The page has a heading of its own, and each message has one.
    const level = Math.min(marks.trim().length + 2, 6);
    return element(`h${level}`, {}, ...inline(line.slice(marks.length).trim()));
  },
};

const LINE = {
  begins: (lines, at) => RULE.test(lines[at]),
  end: (lines, at) => at + 1,
  draw: () => element("hr"),
};

const BLOCKQUOTE = {
  nests: true,
  begins: (lines, at) => QUOTE.test(lines[at]),
  end(lines, at) {
    while (at < lines.length && QUOTE.test(lines[at])) at++;
    return at;
  },
  draw: (lines, depth) => element("blockquote", {}, ...nested(lines.map((line) => line.replace(QUOTE, "")), depth)),
};

const TABLE = {
  begins: (lines, at) => lines[at].includes("|") && at + 1 < lines.length && alignments(lines[at + 1])?.length === cells(lines[at]).length,
  end(lines, at) {
    while (at < lines.length && lines[at].includes("|")) at++;
    return at;
  },
  draw(lines) {
    const align = alignments(lines[1]);
    const row = (line, name) => {
      const texts = cells(line);
      return element("tr", {}, ...align.map((side, i) => element(name, { class: side }, ...inline(texts[i] ?? ""))));
    };
    const head = element("thead", {}, row(lines[0], "th"));
    const body = element("tbody", {}, ...lines.slice(2).map((line) => row(line, "td")));
    return element("div", { class: "table", tabindex: 0 }, element("table", {}, head, body));
  },
};

/** The cells of a row. A bar behind a backslash or within code is part of a cell. */
function cells(line) {
  const bare = line.trim().replace(/^\|/, "");
  const found = bare.match(/(?:\\.|`[^`]*`|[^|\\]|\\$)+|\|/g) ?? [];
  const row = [""];
  for (const part of found) {
    if (part === "|") row.push("");
    else row[row.length - 1] += part;
  }
  if (row.length > 1 && !row.at(-1).trim()) row.pop();
  return row.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** The side of each column, if this is the row below the head of a table. */
function alignments(line) {
  if (!/^[\s|:-]+$/.test(line) || !line.includes("-")) return null;
  const row = cells(line);
  if (!row.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return row.map((cell) => (!cell.endsWith(":") ? undefined : cell.startsWith(":") ? "center" : "right"));
}

const LIST = {
  nests: true,
  begins: (lines, at) => ITEM.test(lines[at]),
  end: (lines, at) => items(lines, at).end,
  draw(lines, depth) {
    const [, , mark] = ITEM.exec(lines[0]);
    const list = items(lines, 0).items.map((item) => element("li", {}, ...itemContent(item, depth)));
    return /\d/.test(mark) ? element("ol", { start: parseInt(mark) }, ...list) : element("ul", {}, ...list);
  },
};

/** An item of one paragraph has its text without a paragraph's distance. */
function itemContent(lines, depth) {
  const blocks = nested(lines, depth);
  if (blocks[0]?.tagName === "P") blocks.splice(0, 1, ...blocks[0].childNodes);
  return blocks;
}

/** The lines of each item of the list that begins here, without their indents, and where the list ends. */
function items(lines, at) {
  const [, first, firstMark] = ITEM.exec(lines[at]);
  const isOrdered = /\d/.test(firstMark);
  const found = [];
  let indent = 0;
  let blank = 0;
  for (; at < lines.length; at++) {
    const line = lines[at];
    const own = /^ */.exec(line)[0].length;
    const item = ITEM.exec(line);
    if (!line.trim()) {
      blank++;
      continue;
    }
    if (item && own < (found.length ? indent : Infinity) && own <= first.length + 1) {
      if (/\d/.test(item[2]) !== isOrdered || RULE.test(line)) break;
      indent = Math.min(item[0].length, own + item[2].length + 1);
      found.push([line.slice(item[0].length)]);
    } else if (own >= indent || own >= first.length + 2) {
      found.at(-1).push(...Array(blank).fill(""), line.slice(Math.min(own, indent)));
    } else if (blank === 0 && !KINDS.some((kind) => kind.begins(lines, at))) {
      found.at(-1).push(line);
    } else {
      break;
    }
    blank = 0;
  }
  return { items: found, end: at };
}

const PARAGRAPH = {
  end(lines, at) {
    // A number other than 1 within a paragraph is text, such as a year at the beginning of a line.
    const isItem = (line) => /^ *(?:[-*+]|1[.)]) /.test(line);
    const ends = (at) => !lines[at].trim() || KINDS.some((kind) => kind.begins(lines, at) && (kind !== LIST || isItem(lines[at])));
    do at++;
    while (at < lines.length && !ends(at));
    return at;
  },
  draw: (lines) => element("p", {}, ...inline(lines.map((line) => line.trim()).join("\n"))),
};

const KINDS = [CODE, HEAD, LINE, BLOCKQUOTE, TABLE, LIST];
