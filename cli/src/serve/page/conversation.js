// A conversation as data: { id, title, isNamed, changed, messages }. Messages are those of OpenAI's API; an answer also has a field
// `page`: { seconds, first, usage, finish }.

import { text } from "./messages.js";

const ROLES = ["system", "developer", "user", "assistant", "observation", "tool"];
const FIELDS = ["role", "content", "metadata", "tools", "tool_calls", "tool_call_id", "name"];

export function create(messages = []) {
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2, 10);
  const one = { id, title: "", isNamed: false, changed: Date.now(), messages };
  entitle(one);
  return one;
}

export function entitle(conversation) {
  if (conversation.isNamed) return;
  const first = conversation.messages.find((message) => message.role === "user")?.content ?? "";
  const line = [...first.trim().replace(/\s+/g, " ")];
  conversation.title = line.length > 60 ? `${line.slice(0, 60).join("")}…` : line.join("");
}

export const titleOf = (conversation) => conversation.title || text("newConversation");

export const systemPrompt = ({ messages }) => (messages[0]?.role === "system" ? messages[0].content : "");

/** Sets the system prompt; an empty one is removed. */
export function setSystemPrompt({ messages }, prompt) {
  const has = messages[0]?.role === "system";
  if (!prompt.trim()) messages.splice(0, has && !messages[0].tools ? 1 : 0);
  else if (has) messages[0].content = prompt;
  else messages.unshift({ role: "system", content: prompt });
}

export const isEmpty = (message) => !message.content && !message.reasoning_content && !message.tool_calls;

/** What JSON says, null if it is not whole. */
export function parsed(json) {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}

/** Messages as the server takes them: without thoughts, which are no part of later prompts. */
export const forServer = (messages) => messages.map((message) => pick(message, FIELDS));

/** JSON that `glm chat --messages` reads. */
export const exported = ({ messages }) => `${JSON.stringify(messages.map((one) => pick(one, [...FIELDS, "reasoning_content"])), null, 2)}\n`;

const pick = (message, fields) => Object.fromEntries(fields.filter((field) => message[field] != null).map((field) => [field, message[field]]));

/** The conversation in a file: what was exported, or a request to OpenAI's API. Throws an error in words. */
export async function imported(file) {
  const wrong = (name, values) => new Error(text(name, { file: file.name, ...values }));
  const json = await new Response(file).json().catch(({ message }) => {
    throw wrong("notJson", { problem: message });
  });
  const list = Array.isArray(json) ? json : json?.messages;
  if (!Array.isArray(list)) throw wrong("notMessages");
  return create(list.map((message, i) => {
    const content = contentOf(message);
    if (content === null) throw wrong("badMessage", { number: i + 1 });
    const role = message.role === "developer" ? "system" : message.role;
    return { ...pick(message, [...FIELDS, "reasoning_content"]), role, content };
  }));
}

/** The text of a message, null if it has none or its role is unknown. */
function contentOf(message) {
  if (!ROLES.includes(message?.role)) return null;
  const { content, role } = message;
  if (content === null || (content === undefined && role === "assistant")) return "";
  const parts = Array.isArray(content) ? content.map((part) => part?.text) : [content];
  return parts.every((part) => typeof part === "string") ? parts.join("") : null;
}
