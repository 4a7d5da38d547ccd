// Answers in progress. They go on while another conversation is shown.

import { forServer, isEmpty, parsed } from "./conversation.js";
import { answer } from "./server.js";
import { settings } from "./storage.js";

/** Each conversation's answer in progress: { conversation, message, wait, stop }. */
export const running = new Map();

/** That of the conversation with this id. */
export const inProgress = ({ id }) => running.get(id);

/** Answers a conversation. The answer becomes a message of it, as far as it comes; `changed` is told whenever it grows. */
export async function begin(conversation, changed) {
  const controller = new AbortController();
  const message = { role: "assistant", content: "", page: {} };
  const state = { conversation, message, wait: null, stop: () => controller.abort() };
  const asked = forServer(conversation.messages);
  const start = performance.now();
  const since = () => (performance.now() - start) / 1000;
  running.set(conversation.id, state);
  conversation.messages.push(message);
  changed();
  try {
    const waits = (seconds) => ((state.wait = seconds), changed());
    for await (const chunk of answer(asked, sampling(), controller.signal, waits)) {
      if (take(message, chunk)) message.page.first ??= since();
      changed();
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    message.page.finish = "stopped";
  } finally {
    message.page.seconds = since();
    // The server takes no call that was cut.
    const calls = message.tool_calls?.filter((call) => parsed(call.function.arguments));
    message.tool_calls = calls?.length ? calls : undefined;
    if (isEmpty(message)) conversation.messages = conversation.messages.filter((one) => one !== message);
    running.delete(conversation.id);
  }
}

export const sampling = () => settings().sampling ?? {};

/** Adds a chunk to an answer; says whether it had any text. */
function take(message, { choices = [], usage }) {
  if (usage) message.page.usage = usage;
  const { delta = {}, finish_reason: finish } = choices[0] ?? {};
  if (finish) message.page.finish = finish;
  if (delta.content) message.content += delta.content;
  if (delta.reasoning_content) message.reasoning_content = (message.reasoning_content ?? "") + delta.reasoning_content;
  for (const piece of delta.tool_calls ?? []) {
    message.tool_calls ??= [];
    const call = (message.tool_calls[piece.index ?? 0] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    if (piece.id) call.id = piece.id;
    call.function.name += piece.function?.name ?? "";
    call.function.arguments += piece.function?.arguments ?? "";
  }
  return Boolean(delta.content || delta.reasoning_content || delta.tool_calls);
}
