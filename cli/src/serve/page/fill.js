// A text with blanks, filled in place. The marks are in an element behind the text field that has the same text.

import { sampling } from "./answering.js";
import { copy, element, find, fit } from "./dom.js";
import { text } from "./messages.js";
import * as server from "./server.js";
import { blankText, saveBlankText } from "./storage.js";

const BLANK = /\[[gs]?MASK\]/;
const LABELS = { "[MASK]": "blankWords", "[sMASK]": "blankSentence", "[gMASK]": "blankText" };
const MOST_UNDO = 100;

/** The text, and the ranges of it that the model has filled: [start, end]. */
let state = { text: "", filled: [] };
const past = [];
let controller = null;

export function start() {
  state = blankText();
  const field = find("fill-text");
  field.value = state.text;
  field.oninput = () => {
    remember();
    state = { text: field.value, filled: moved(state, field.value) };
    say("");
    draw();
  };
  find("fill-form").onsubmit = (event) => (event.preventDefault(), fill());
  find("fill-stop").onclick = () => controller?.abort();
  find("fill-undo").onclick = undo;
  find("fill-copy").onclick = () => copy(state.text);
  find("fill").onkeydown = (event) => {
    if (event.key === "Escape") controller?.abort();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.preventDefault(), fill();
  };
  new ResizeObserver(() => fit(field)).observe(find("fill-form"));
}

export function setBlanks(blanks) {
  find("blanks").replaceChildren(...blanks.map((blank) => {
    const label = text(LABELS[blank], { blank });
    return element("button", { class: "plain", type: "button", title: label, "aria-label": label, onclick: () => insert(blank) }, blank);
  }));
}

export function draw() {
  const field = find("fill-text");
  if (field.value !== state.text) field.value = state.text;
  const blanks = [...state.text.matchAll(new RegExp(BLANK, "g"))].map(({ index, 0: blank }) => [index, index + blank.length, "blank"]);
  const parts = [];
  let at = 0;
  for (const [start, end, kind = "filled"] of [...blanks, ...state.filled].sort((a, b) => a[0] - b[0])) {
    if (start < at) continue;
    parts.push(state.text.slice(at, start), element("mark", { class: kind }, state.text.slice(start, end)));
    at = end;
  }
  find("fill-marks").replaceChildren(...parts, state.text.slice(at));
  const isBusy = controller !== null;
  find("fill-undo").disabled = past.length === 0 || isBusy;
  find("fill-go").hidden = field.readOnly = isBusy;
  find("fill-stop").hidden = !isBusy;
  fit(field);
  saveBlankText(state);
}

function insert(blank) {
  if (controller) return;
  const field = find("fill-text");
  field.setRangeText(blank, field.selectionStart, field.selectionEnd, "end");
  field.dispatchEvent(new Event("input"));
  field.focus();
}

function remember() {
  past.push(state);
  if (past.length > MOST_UNDO) past.shift();
}

function undo() {
  state = past.pop() ?? state;
  say("");
  draw();
  find("fill-text").focus();
}

/** The filled ranges after an edit: those behind it move, and one that it touches is the writer's now. */
function moved({ text: before, filled }, after) {
  const shift = after.length - before.length;
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && before[start] === after[start]) start++;
  let end = before.length;
  while (end > before.length - shorter + start && before[end - 1] === after[end - 1 + shift]) end--;
  return filled.flatMap(([from, to]) => (to <= start ? [[from, to]] : from >= end ? [[from + shift, to + shift]] : []));
}

async function fill() {
  if (controller) return;
  if (!state.text.match(BLANK)) return say(text("noBlanks"), true);
  controller = new AbortController();
  draw();
  say(text("filling"));
  find("fill-stop").focus();
  try {
    const waits = (seconds) => say(text(seconds ? "busy" : "filling", { seconds }));
    const filled = await server.fill(state.text, sampling(), controller.signal, waits);
    remember();
    state = placed(state, filled);
    say(text("filled", { spans: filled.spans.map((span) => span.trim()).join(" · ") }));
  } catch (error) {
    const isStopped = error.name === "AbortError";
    say(isStopped ? text("stopped") : error.message, !isStopped);
  } finally {
    controller = null;
    draw();
    find("fill-text").focus();
  }
}

/** A text with its first blanks replaced by what fills them. */
function placed(state, { text: whole, spans }) {
  let at = 0;
  for (const span of spans) {
    const start = at + state.text.slice(at).search(BLANK);
    at = start + span.length;
    const after = state.text.slice(0, start) + state.text.slice(start).replace(BLANK, () => span);
    state = { text: after, filled: [...moved(state, after), [start, at]] };
  }
  // What the server says holds, should it see other blanks in the text.
  return state.text === whole ? state : { text: whole, filled: [] };
}

function say(said, isWrong = false) {
  find("fill-state").textContent = said;
  find("fill-state").classList.toggle("wrong", isWrong);
}
