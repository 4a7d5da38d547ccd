// Conversations and settings in the browser's storage. Each conversation has a key of its own, so that two tabs do not overwrite each
// other. What the storage does not take is kept in memory.

import { parsed } from "./conversation.js";

const PREFIX = "glm.conversation.";
const memory = new Map();
let trouble = null;
let tell = () => {};

/** Calls back with "storageFull", "storageOff", or null once saving works again. */
export function onTrouble(callback) {
  tell = callback;
  tell(trouble);
}

function report(kind) {
  if (kind === trouble) return;
  trouble = kind;
  tell(kind);
}

function storage(name) {
  try {
    return window[name];
  } catch {
    report("storageOff");
    return null;
  }
}

function read(key) {
  if (memory.has(key)) return memory.get(key);
  return parsed(storage("localStorage")?.getItem(key));
}

function write(key, value) {
  try {
    const local = storage("localStorage");
    if (!local) throw null;
    local.setItem(key, JSON.stringify(value));
    memory.delete(key);
    if (memory.size === 0) report(null);
  } catch (error) {
    memory.set(key, value);
    report(error?.name === "QuotaExceededError" ? "storageFull" : "storageOff");
  }
}

function remove(key) {
  memory.delete(key);
  storage("localStorage")?.removeItem(key);
  // Now there may be room for what did not fit.
  for (const [other, value] of [...memory]) write(other, value);
  if (memory.size === 0) report(null);
}

export function conversations() {
  const keys = new Set([...Object.keys(storage("localStorage") ?? {}), ...memory.keys()].filter((key) => key.startsWith(PREFIX)));
  return [...keys].map(read).filter((one) => Array.isArray(one?.messages)).sort((a, b) => b.changed - a.changed);
}

export const conversation = (id) => conversations().find((one) => one.id === id);
export const saveConversation = (one) => write(PREFIX + one.id, one);
export const removeConversation = (id) => remove(PREFIX + id);

export const settings = () => read("glm.settings") ?? {};
export const saveSettings = (all) => write("glm.settings", all);
export const blankText = () => read("glm.fill") ?? { text: "", filled: [] };
export const saveBlankText = (state) => write("glm.fill", state);

// The key of the server lasts as long as the tab.
let keyInMemory = null;
export const key = () => keyInMemory ?? storage("sessionStorage")?.getItem("glm.key") ?? "";
export function saveKey(value) {
  keyInMemory = value;
  try {
    storage("sessionStorage")?.setItem("glm.key", value);
  } catch {
    // A full storage: the key lasts as long as the page.
  }
}

/** Calls back when another tab changed the conversations; `id` is null if all may have changed. */
export function onChange(callback) {
  addEventListener("storage", (event) => {
    if (event.key === null) callback(null);
    else if (event.key.startsWith(PREFIX)) callback(event.key.slice(PREFIX.length));
  });
}
