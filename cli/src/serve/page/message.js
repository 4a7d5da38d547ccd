// One message as an element.

import { copy, element, fit, iconButton, isComposing, unseenHeading } from "./dom.js";
import { show } from "./markdown.js";
import { number, text } from "./messages.js";

/** A question. `edited` gets its new text; without it, the question cannot be edited. */
export function question(message, edited) {
  const root = element("article", { class: "message question" });
  const draw = () => {
    const edit = edited && iconButton("edit", "edit", () => editor(root, message.content, edited, redraw));
    const below = element("div", { class: "below" }, ...(edit ? [edit] : []), iconButton("copy", "copy", () => copy(message.content)));
    root.classList.remove("editing");
    root.replaceChildren(unseenHeading(text("you")), element("div", { class: "bubble" }, message.content), below);
  };
  const redraw = () => (draw(), root.querySelector("button")?.focus());
  draw();
  return root;
}

function editor(root, content, edited, cancel) {
  const field = element("textarea", { "aria-label": text("editing"), rows: 1 });
  field.value = content;
  const send = () => field.value.trim() && edited(field.value);
  field.oninput = () => fit(field);
  field.onkeydown = (event) => {
    if (isComposing(event)) return;
    if (event.key === "Escape") event.stopPropagation(), cancel();
    if (event.key === "Enter" && !event.shiftKey) event.preventDefault(), send();
  };
  const buttons = [
    element("button", { class: "plain", type: "button", onclick: cancel }, text("cancel")),
    element("button", { class: "primary", type: "button", onclick: send }, text("send")),
  ];
  root.classList.add("editing");
  root.replaceChildren(element("div", { class: "edit" }, field, element("div", { class: "end" }, ...buttons)));
  fit(field);
  field.focus();
  field.setSelectionRange(content.length, content.length);
}

/** A system prompt or the result of a tool. */
export function aside(message) {
  const label = text(message.role === "system" ? "system" : "toolResult");
  return element("article", { class: "message system" }, element("h2", { class: "unseen" }, label), message.content);
}

/**
 * An answer. `update` shows what it has become; with `again`, it can be answered again. `wait` is the number of seconds that the server
 * asks to wait.
 */
export function answer(message, context) {
  const root = element("article", { class: "message answer" }, unseenHeading(text("model")));
  const thought = element("div");
  const summary = element("summary");
  const thoughts = element("details", { class: "thought", hidden: true }, summary, thought);
  const prose = element("div", { class: "prose" });
  const tools = element("div");
  const waiting = element("div", { class: "note" });
  const below = element("div");
  root.append(thoughts, prose, tools, waiting, below);
  const update = ({ isRunning = false, wait = null, again = null } = {}) => {
    const { content, reasoning_content: thinking, tool_calls: calls } = message;
    root.setAttribute("aria-busy", isRunning);
    thoughts.hidden = !thinking;
    summary.textContent = text(isRunning && !content ? "thinking" : "thoughts");
    if (thought.textContent !== (thinking ?? "")) thought.textContent = thinking ?? "";
    show(prose, content.trim());
    if (calls) tools.replaceChildren(...calls.map(toolCall));
    const isBlank = isRunning && !content && !calls;
    waiting.replaceChildren(...(wait ? [text("busy", { seconds: wait })] : isBlank ? [dots()] : []));
    below.replaceChildren(...(isRunning ? [] : end(message, context, again)));
  };
  return { root, update };
}

const dots = () => element("span", { class: "waiting", "aria-hidden": "true" }, element("i"), element("i"), element("i"));

function toolCall({ function: { name, arguments: given } }) {
  let written = given;
  try {
    written = JSON.stringify(JSON.parse(given), null, 2);
  } catch {
    // Not JSON, or not all of it yet.
  }
  return element("details", { class: "tool", open: true }, element("summary", {}, text("toolCall", { name })), element("pre", {}, written));
}

/** What stands below an answer that has ended. */
function end(message, context, again) {
  const buttons = [iconButton("copy", "copy", () => copy(message.content))];
  if (again) buttons.push(iconButton("again", "again", again));
  const below = element("div", { class: "below" }, ...buttons, element("span", { class: "facts" }, facts(message.page ?? {})));
  const usage = message.page?.usage;
  const isFull = context && usage?.total_tokens >= context;
  if (message.page?.finish !== "length") return [below];
  return [element("p", { class: "note" }, isFull ? text("cutByContext", { context: number(context) }) : text("cut")), below];
}

/** Tokens, time and speed. The speed leaves out the time before the first token. */
function facts({ usage, seconds, first, finish }) {
  const said = finish === "stopped" ? [text("stopped")] : [];
  const count = usage?.completion_tokens;
  if (count) said.push(text("tokens", { count: number(count) }));
  if (seconds) said.push(text("seconds", { seconds: number(seconds, 1) }));
  if (count > 1 && seconds - first > 0) said.push(text("speed", { speed: number((count - 1) / (seconds - first), 1) }));
  return said.join(" · ");
}
