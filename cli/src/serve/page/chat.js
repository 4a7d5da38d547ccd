// The conversation that is shown: its messages, and asking.

import { begin, inProgress, running } from "./answering.js";
import { entitle, isEmpty } from "./conversation.js";
import { announce, element, find, fit, isComposing, notify } from "./dom.js";
import * as view from "./message.js";
import { number, text } from "./messages.js";
import { conversation as stored, saveConversation } from "./storage.js";

let current = null;
let context = null;
/** The view of the answer that grows, and what went wrong in each conversation. */
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
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !isComposing(event) && !document.querySelector("dialog[open]")) stop();
  });
  // Answers that are cut by closing the page stay as far as they came.
  addEventListener("pagehide", () => running.forEach(({ conversation }) => save(conversation)));
}

export const setContext = (tokens) => (context = tokens);
export const shown = () => current;

export function open(conversation) {
  current = conversation;
  draw();
  toEnd();
}

/** Moves the focus to the question. On a touch screen that would open the keyboard. */
export const focus = () => matchMedia("(pointer: coarse)").matches || find("question").focus();

function stop() {
  if (!inProgress(current)) return;
  inProgress(current).stop();
  focus();
}

function send() {
  const field = find("question");
  if (!field.value.trim() || inProgress(current)) return;
  const message = { role: "user", content: field.value };
  field.value = "";
  fit(field);
  const { messages } = current;
  // Not all models take two questions in a row.
  if (messages.at(-1)?.role === "user") return branch(messages.length - 1, [message], "questionReplaced");
  messages.push(message);
  // Undoing would now lose the question.
  find("notices").replaceChildren();
  add(viewOf(message));
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
    // For each frame, not for each token.
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      if (isShown() && inProgress(conversation)) following(() => growing?.update(inProgress(conversation)));
    });
  };
  const answered = begin(conversation, grow);
  const { message } = inProgress(conversation);
  save(conversation);
  add(viewOf(message));
  drawState();
  toEnd();
  announce(text("answering"));
  try {
    await answered;
    if (message.page.finish !== "stopped" && isEmpty(message)) failures.set(conversation.id, text("emptyAnswer"));
  } catch (error) {
    failures.set(conversation.id, error.message);
  }
  save(conversation);
  if (isShown()) {
    following(() => {
      if (isEmpty(message)) growing?.root.remove();
      else growing?.update();
      drawState();
    });
    if (message.content) announce(text("answered", { answer: growing?.root.querySelector(".prose").textContent }));
  }
  return !isEmpty(message);
}

/** Goes back to the messages before `count`, appends others and answers; a notice offers to undo it. */
async function branch(count, appended, said) {
  const conversation = current;
  if (inProgress(conversation)) return;
  const before = conversation.messages;
  const undo = () => {
    inProgress(conversation)?.stop();
    conversation.messages = before;
    failures.delete(conversation.id);
    save(conversation);
    if (current === conversation) draw();
  };
  conversation.messages = [...before.slice(0, count), ...appended];
  draw();
  focus();
  notify(text(said), undo);
  const hasAnswer = await answer(conversation);
  // In place of an answer there is never nothing.
  if (hasAnswer || appended.length > 0 || conversation.messages === before) return;
  const failure = failures.get(conversation.id);
  undo();
  if (failure) notify(failure);
}

export function draw() {
  growing = null;
  find("messages").replaceChildren(...current.messages.map(viewOf));
  drawState();
}

function viewOf(message) {
  const at = () => current.messages.indexOf(message);
  if (message.role === "user") return view.question(message, (content) => branch(at(), [{ ...message, content }], "laterRemoved"));
  if (message.role !== "assistant") return view.aside(message);
  const answer = view.answer(message, context, () => branch(at(), [], "answerReplaced"));
  const state = inProgress(current);
  const isRunning = state?.message === message;
  if (isRunning) growing = answer;
  answer.update(isRunning ? state : undefined);
  return answer.root;
}

function add(article) {
  find("messages").querySelectorAll(".welcome, .trouble").forEach((one) => one.remove());
  find("messages").append(article);
}

function drawState() {
  const isRunning = Boolean(inProgress(current));
  const last = current.messages.at(-1);
  const trouble = failures.get(current.id) ?? (last?.role === "user" && text("noAnswer"));
  if (!last) add(element("div", { class: "welcome" }, element("h2", {}, text("welcome")), element("p", {}, text("welcomeNote"))));
  if (trouble && !isRunning) add(troubled(trouble));
  if (!isRunning && document.activeElement === find("stop")) focus();
  find("messages").setAttribute("aria-busy", isRunning);
  find("stop").hidden = !isRunning;
  find("send").hidden = isRunning;
  drawContext();
}

function troubled(said) {
  // What came before it went wrong is replaced.
  const end = current.messages.length - 1;
  const again = () => (current.messages[end].role === "assistant" ? branch(end, [], "answerReplaced") : answer(current));
  const button = element("button", { class: "plain", onclick: again }, text("tryAgain"));
  return element("div", { class: "trouble", role: "alert" }, element("p", {}, said), button);
}

function drawContext() {
  const usage = current.messages.findLast((message) => message.page?.usage)?.page.usage;
  find("context").hidden = !usage || !context;
  if (!usage || !context) return;
  const { total_tokens: used, prompt_tokens_details: { cached_tokens: cached = 0 } = {} } = usage;
  Object.assign(find("context-meter"), { max: context, high: context * 0.85, value: used });
  const values = { used: number(used), context: number(context), cached: number(cached) };
  find("context-text").textContent = text(cached ? "contextCached" : "contextUse", values);
}

/** Reads the shown conversation again after another tab changed it. */
export function reload() {
  const newer = stored(current.id);
  if (newer && !inProgress(current)) open(newer);
}

const toEnd = () => (find("scroller").scrollTop = find("scroller").scrollHeight);

/** Changes what is shown; whoever reads the end still sees it. */
function following(change) {
  const { scrollHeight, scrollTop, clientHeight } = find("scroller");
  change();
  if (scrollHeight - scrollTop - clientHeight < 60) toEnd();
}
