// The conversation that is shown: its messages, and asking.

import { begin, inProgress } from "./answering.js";
import { entitle, isEmpty } from "./conversation.js";
import { announce, element, find, fit, isComposing, notify } from "./dom.js";
import * as view from "./message.js";
import { number, text } from "./messages.js";
import { conversation as stored, saveConversation } from "./storage.js";

let current = null;
let model = { context: null };
/** The answer that grows, and what went wrong in each conversation. */
let growing = null;
const failures = new Map();
let changed = () => {};

/** `told` is called when a conversation was saved, or its answer began or ended. */
export function start(told) {
  changed = told;
  const field = find("question");
  field.oninput = () => fit(field);
  field.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !isComposing(event)) event.preventDefault(), send();
  };
  find("composer").onsubmit = (event) => (event.preventDefault(), send());
  find("stop").onclick = stop;
  find("to-end").onclick = () => scroller().scrollTo({ top: scroller().scrollHeight });
  scroller().onscroll = () => (find("to-end").hidden = isAtEnd());
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !isComposing(event) && !document.querySelector("dialog[open]")) stop();
  });
  // An answer that is cut by closing the page stays as far as it came.
  addEventListener("pagehide", () => current && inProgress(current) && save(current));
}

export const setModel = (known) => (model = known);
export const shown = () => current;

/** Shows a conversation. */
export function open(conversation) {
  current = conversation;
  draw();
  toEnd();
}

function stop() {
  if (!current || !inProgress(current)) return;
  inProgress(current).stop();
  find("question").focus();
}

function send() {
  const field = find("question");
  if (!field.value.trim() || inProgress(current)) return;
  current.messages.push({ role: "user", content: field.value });
  field.value = "";
  fit(field);
  // What could be undone has a question behind it now.
  find("notices").replaceChildren();
  answer(current);
}

/** Saves a conversation, without an answer that has only begun. One that was deleted meanwhile stays deleted. */
function save(conversation) {
  if (conversation.isDeleted) return;
  const begun = inProgress(conversation)?.message;
  conversation.changed = Date.now();
  entitle(conversation);
  saveConversation({ ...conversation, messages: conversation.messages.filter((one) => one !== begun || !isEmpty(one)) });
  changed();
}

/** Answers the last question of a conversation; says whether anything came. */
async function answer(conversation) {
  failures.delete(conversation.id);
  let frame = 0;
  const isShown = () => current === conversation;
  const grow = () => {
    if (!isShown() || frame) return;
    // As often as the screen shows it, not for each token.
    frame = requestAnimationFrame(() => {
      frame = 0;
      const running = inProgress(conversation);
      if (!isShown() || !running) return;
      const isFollowed = isAtEnd();
      growing?.update({ isRunning: true, wait: running.wait });
      if (isFollowed) toEnd();
    });
  };
  const answered = begin(conversation, grow);
  const { message } = inProgress(conversation);
  save(conversation);
  if (isShown()) draw(), toEnd();
  announce(text("answering"));
  try {
    await answered;
    if (message.page.finish !== "stopped" && isEmpty(message)) failures.set(conversation.id, text("emptyAnswer"));
  } catch (error) {
    failures.set(conversation.id, error.message);
  }
  save(conversation);
  if (isShown()) {
    const isFollowed = isAtEnd();
    draw();
    if (isFollowed) toEnd();
    const said = find("messages").querySelector(".answer:last-of-type .prose")?.textContent;
    if (!isEmpty(message)) announce(text("answered", { answer: said }));
  }
  return !isEmpty(message);
}

/** Goes back to the messages before `count`, appends others and answers; a notice offers to undo it. */
async function branch(count, appended, said) {
  const conversation = current;
  const before = conversation.messages;
  const undo = () => {
    inProgress(conversation)?.stop();
    conversation.messages = before;
    failures.delete(conversation.id);
    save(conversation);
    if (current === conversation) draw();
  };
  conversation.messages = [...before.slice(0, count), ...appended];
  notify(text(said), undo);
  const hasAnswer = await answer(conversation);
  // In place of an answer there is never nothing.
  if (hasAnswer || appended.length > 0 || conversation.messages === before) return;
  const failure = failures.get(conversation.id);
  undo();
  if (failure) notify(failure);
}

/** Draws everything anew. */
export function draw() {
  const running = inProgress(current);
  const { messages } = current;
  growing = null;
  const articles = messages.map((message, i) => {
    const isLast = i === messages.length - 1;
    if (message.role === "user") return view.question(message, running ? null : (content) => edit(i, content));
    if (message.role !== "assistant") return view.aside(message);
    const shown = view.answer(message, model.context);
    const isRunning = running?.message === message;
    if (isRunning) growing = shown;
    shown.update({ isRunning, wait: running?.wait, again: isLast && !running && (() => branch(i, [], "answerReplaced")) });
    return shown.root;
  });
  const trouble = running ? null : (failures.get(current.id) ?? (messages.at(-1)?.role === "user" ? text("noAnswer") : null));
  if (trouble) articles.push(troubled(trouble));
  if (messages.length === 0) articles.push(welcome());
  find("messages").replaceChildren(...articles);
  find("stop").hidden = !running;
  find("send").hidden = Boolean(running);
  drawContext();
}

const edit = (i, content) => branch(i, [{ ...current.messages[i], content }], "laterRemoved");

function troubled(said) {
  const again = element("button", { class: "plain", type: "button", onclick: () => answer(current) }, text("tryAgain"));
  return element("div", { class: "trouble", role: "alert" }, element("p", {}, said), again);
}

const welcome = () => element("div", { class: "welcome" }, element("h2", {}, text("welcome")), element("p", {}, text("welcomeNote")));

/** How much of the context the last answer used. */
function drawContext() {
  const usage = current.messages.findLast((message) => message.page?.usage)?.page.usage;
  find("context").hidden = !usage;
  if (!usage) return;
  const meter = find("context-meter");
  meter.hidden = !model.context;
  if (model.context) Object.assign(meter, { max: model.context, high: model.context * 0.85, value: usage.total_tokens });
  const values = { used: number(usage.total_tokens), context: number(model.context ?? 0) };
  const cached = usage.prompt_tokens_details?.cached_tokens;
  const said = [text(model.context ? "contextUse" : "contextUnknown", values)];
  if (cached) said.push(text("cached", { count: number(cached) }));
  find("context-text").textContent = said.join(" · ");
}

/** Reads the shown conversation again after another tab changed it. */
export function reload() {
  const newer = stored(current.id);
  if (newer && !inProgress(current)) open(newer);
}

const scroller = () => find("scroller");
const isAtEnd = () => scroller().scrollHeight - scroller().scrollTop - scroller().clientHeight < 60;
const toEnd = () => (scroller().scrollTop = scroller().scrollHeight);
