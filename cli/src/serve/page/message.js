// One message as an element.

import { parsed } from "./conversation.js";
import { copy, element, fit, iconButton, isComposing } from "./dom.js";
import { show } from "./markdown.js";
import { number, text } from "./messages.js";

/** A message with a heading for screen readers, who move from one to the next by it. */
const article = (kind, heading, ...content) =>
  element("article", { class: `message ${kind}` }, element("h2", { class: "unseen" }, text(heading)), ...content);

export function question(message, edited) {
  const root = article("question", "you");
  const [heading] = root.children;
  const draw = () => {
    const edit = iconButton("edit", () => editor(root, message.content, edited, redraw));
    const below = element("div", { class: "below" }, edit, iconButton("copy", () => copy(message.content)));
    root.classList.remove("editing");
    root.replaceChildren(heading, element("div", { class: "bubble" }, message.content), below);
  };
  const redraw = () => (draw(), root.querySelector("button").focus());
  draw();
  return root;
}

function editor(root, content, edited, cancel) {
  const field = element("textarea", { "aria-label": text("edit"), rows: 1 });
  field.value = content;
  const send = () => field.value.trim() && edited(field.value);
  field.oninput = () => fit(field);
  field.onkeydown = (event) => {
    if (isComposing(event)) return;
    if (event.key === "Escape") event.stopPropagation(), cancel();
    if (event.key === "Enter" && !event.shiftKey) event.preventDefault(), send();
  };
  const no = element("button", { class: "plain", onclick: cancel }, text("cancel"));
  const yes = element("button", { class: "primary", onclick: send }, text("send"));
  root.classList.add("editing");
  root.replaceChildren(field, element("div", { class: "end" }, no, yes));
  fit(field);
  field.focus();
}

export const aside = ({ role, content }) => article("system", role === "system" ? "system" : "toolResult", content);

/** An answer. `update` shows what it has become, and what is in progress if it is; `again` makes another one. */
export function answer(message, context, again) {
  const thought = element("div");
  const summary = element("summary");
  const thoughts = element("details", { class: "thought" }, summary, thought);
  const prose = element("div", { class: "prose" });
  const [tools, state] = [element("div"), element("div")];
  const root = article("answer", "model", thoughts, prose, tools, state);
  const update = (running) => {
    const { content, reasoning_content: thinking = "", tool_calls: calls = [] } = message;
    root.setAttribute("aria-busy", Boolean(running));
    thoughts.hidden = !thinking;
    summary.textContent = text(running && !content ? "thinking" : "thoughts");
    thought.textContent = thinking;
    show(prose, content.trim());
    tools.replaceChildren(...calls.map(toolCall));
    state.replaceChildren(...(running ? waiting(running.wait, content) : end(message, context, again)));
  };
  return { root, update };
}

/** What stands in place of an answer; `wait` is how many seconds a busy server asks for. */
function waiting(wait, content) {
  if (wait) return [element("p", { class: "note" }, text("busy", { seconds: wait }))];
  return content ? [] : [element("p", { class: "waiting" }, element("i"), element("i"), element("i"))];
}

function toolCall({ function: { name, arguments: given } }) {
  const json = parsed(given);
  const written = json ? JSON.stringify(json, null, 2) : given;
  return element("details", { class: "tool", open: true }, element("summary", {}, text("toolCall", { name })), element("pre", {}, written));
}

function end(message, context, again) {
  const { usage, finish } = message.page ?? {};
  const buttons = [iconButton("copy", () => copy(message.content)), iconButton("again", again)];
  const below = element("div", { class: "below" }, ...buttons, element("span", { class: "facts" }, facts(message.page ?? {})));
  if (finish !== "length") return [below];
  const isFull = context && usage?.total_tokens >= context;
  return [element("p", { class: "note" }, isFull ? text("cutByContext", { context: number(context) }) : text("cut")), below];
}

/** Tokens, time and speed. The speed leaves out the time before the first token. */
function facts({ usage, seconds, first, finish }) {
  const said = finish === "stopped" ? [text("stopped")] : [];
  const count = usage?.completion_tokens;
  if (count) said.push(text("tokens", { count: number(count) }));
  if (seconds) said.push(text("seconds", { seconds: number(seconds, 1) }));
  if (count > 1 && seconds > first) said.push(text("speed", { speed: number((count - 1) / (seconds - first), 1) }));
  return said.join(" · ");
}
