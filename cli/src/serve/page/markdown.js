// Markdown as elements. HTML, images and links to anything but http and https stay as they were written.

import { copy, element, iconButton } from "./dom.js";
import { inline } from "./inline.js";
import { text } from "./messages.js";

/** How deep lists and quotes are nested; deeper ones are paragraphs. */
const DEPTH = 8;

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;

/** Shows Markdown in an element. Finished blocks stay, so a growing answer costs only its last one. */
export function show(container, source) {
  const blocks = split(source.split(/\r\n|\n|\r/), 0);
  const sources = blocks.map((block) => block.source);
  let same = 0;
  while (same < sources.length && sources[same] === container.blocks?.[same]) same++;
  while (container.childNodes.length > same) container.lastChild.remove();
  container.append(...blocks.slice(same).map((block) => block.draw()));
  container.blocks = sources;
}

function split(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const kind = KINDS.find((kind) => kind.begins(lines, at) && (!kind.nests || depth < DEPTH)) ?? PARAGRAPH;
    const own = lines.slice(at, (at = kind.end(lines, at)));
    blocks.push({ source: own.join("\n"), draw: () => kind.draw(own, depth) });
  }
  return blocks;
}

const nested = (lines, depth) => split(lines, depth + 1).map((block) => block.draw());

/** The end of the lines from `at` on that are alike; at least one is. */
function endOf(lines, at, isAlike) {
  do at++;
  while (at < lines.length && isAlike(lines[at], at));
  return at;
}

const CODE = {
  begins: (lines, at) => FENCE.test(lines[at]),
  end: (lines, at) => Math.min(endOf(lines, at, (line) => !closes(lines[at], line)) + 1, lines.length),
  draw(lines) {
    const language = FENCE.exec(lines[0])[2].trim().split(/\s/)[0];
    const isClosed = lines.length > 1 && closes(lines[0], lines.at(-1));
    const code = lines.slice(1, isClosed ? -1 : undefined).join("\n");
    const head = element("div", {}, element("span", {}, language || text("code")), iconButton("copy", () => copy(code)));
    const pre = element("pre", { tabindex: 0, role: "region", "aria-label": `${text("code")} ${language}` }, element("code", {}, code));
    return element("div", { class: "code" }, head, pre);
  },
};

/** Whether a line closes the fence of another. */
function closes(first, line) {
  const fence = FENCE.exec(first)[1];
  const bare = line.trim();
  return bare.length >= fence.length && bare === fence[0].repeat(bare.length);
}

const HEAD = {
  begins: (lines, at) => HEADING.test(lines[at]),
  end: (lines, at) => at + 1,
  draw([line]) {
    const marks = HEADING.exec(line)[0];
    // The page has a heading of its own, and so has each message.
    return element(`h${Math.min(marks.trim().length + 2, 6)}`, {}, ...inline(line.slice(marks.length).trim()));
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
  end: (lines, at) => endOf(lines, at, (line) => QUOTE.test(line)),
  draw: (lines, depth) => element("blockquote", {}, ...nested(lines.map((line) => line.replace(QUOTE, "")), depth)),
};

const TABLE = {
  begins: (lines, at) => lines[at].includes("|") && alignments(lines[at + 1] ?? "")?.length === cells(lines[at]).length,
  end: (lines, at) => endOf(lines, at, (line) => line.includes("|")),
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
  const row = [""];
  for (const part of line.trim().replace(/^\|/, "").match(/(?:\\.|`[^`]*`|[^|\\]|\\$)+|\|/g) ?? []) {
    if (part === "|") row.push("");
    else row[row.length - 1] += part;
  }
  if (row.length > 1 && !row.at(-1).trim()) row.pop();
  return row.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** The side of each column, if this is the row below the head of a table. */
function alignments(line) {
  const row = cells(line);
  if (!line.includes("|") || !row.every((cell) => /^:?-+:?$/.test(cell))) return null;
  return row.map((cell) => (!cell.endsWith(":") ? undefined : cell.startsWith(":") ? "center" : "right"));
}

const LIST = {
  nests: true,
  begins: (lines, at) => ITEM.test(lines[at]),
  end: (lines, at) => items(lines, at).end,
  draw(lines, depth) {
    const mark = ITEM.exec(lines[0])[2];
    const list = items(lines, 0).items.map((item) => element("li", {}, ...itemContent(item, depth)));
    return /\d/.test(mark) ? element("ol", { start: parseInt(mark) }, ...list) : element("ul", {}, ...list);
  },
};

/** The first text of an item has no distance of a paragraph. */
function itemContent(lines, depth) {
  const blocks = nested(lines, depth);
  if (blocks[0]?.tagName === "P") blocks.splice(0, 1, ...blocks[0].childNodes);
  return blocks;
}

/** The lines of each item of a list, without their indents, and where it ends. */
function items(lines, at) {
  const [, first, firstMark] = ITEM.exec(lines[at]);
  const found = [];
  let [indent, blank] = [Infinity, 0];
  for (; at < lines.length; at++) {
    const line = lines[at];
    const own = line.search(/[^ ]|$/);
    const item = ITEM.exec(line);
    if (!line.trim()) {
      blank++;
      continue;
    }
    if (item && own < indent && own <= first.length + 1) {
      if (/\d/.test(item[2]) !== /\d/.test(firstMark) || RULE.test(line)) break;
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
  // A number other than 1 within a paragraph is text, such as a year at the beginning of a line.
  end: (lines, at) => endOf(lines, at, (line, at) =>
    line.trim() && !KINDS.some((kind) => kind.begins(lines, at) && (kind !== LIST || /^ *(?:[-*+]|1[.)]) /.test(line)))),
  draw: (lines) => element("p", {}, ...inline(lines.map((line) => line.trim()).join("\n"))),
};

const KINDS = [CODE, HEAD, LINE, BLOCKQUOTE, TABLE, LIST];
