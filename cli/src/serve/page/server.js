// Requests to the server. Addresses are relative, so that the page also works below a path of a proxy.

import { ask, find } from "./dom.js";
import { text } from "./messages.js";
import { key, saveKey } from "./storage.js";
import { events } from "./stream.js";

export class Failure extends Error {}

export async function model() {
  const { data } = await (await request("v1/models")).json();
  const { id = "", context_length: context = null, blanks = [] } = data?.[0] ?? {};
  return { id, context, blanks };
}

/** Chunks of an answer. `waits` is told how many seconds a busy server asks to wait, and null when that is over. */
export async function* answer(messages, sampling, signal, waits) {
  const body = { ...sampling, stream: true, stream_options: { include_usage: true }, messages };
  const response = await request("v1/chat/completions", body, signal, waits);
  try {
    for await (const chunk of events(response.body)) {
      if (chunk.error) throw failure(500, chunk);
      yield chunk;
    }
  } catch (error) {
    throw error instanceof Failure || error.name === "AbortError" ? error : new Failure(text("broken"));
  }
}

export async function fill(blanks, sampling, signal, waits) {
  return (await request("v1/fill", { ...sampling, text: blanks }, signal, waits)).json();
}

async function request(address, body, signal, waits = () => {}) {
  for (;;) {
    const sentKey = key();
    const headers = { "Content-Type": "application/json", ...(sentKey && { Authorization: `Bearer ${sentKey}` }) };
    const options = { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body), cache: "no-store" };
    const response = await fetch(address, options).catch((error) => {
      throw error.name === "AbortError" ? error : new Failure(text("gone"));
    });
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    const isBusy = response.status === 429 || problem.error?.code === "loading";
    if (isBusy) await pause(response.headers.get("Retry-After"), signal, waits);
    else if (response.status === 401) await askForKey(sentKey);
    else throw failure(response.status, problem);
  }
}

function failure(status, problem) {
  const { message: detail = status, code } = problem.error ?? {};
  if (code === "context_length_exceeded") return new Failure(text("contextFull", { detail }));
  return new Failure(text(status < 500 ? "refused" : "failed", { status, detail }));
}

/** Waits as many seconds as a Retry-After says, up to a minute. */
async function pause(retryAfter, signal, waits) {
  for (let left = Math.min(Number(retryAfter) || 2, 60); left > 0; left--) {
    signal?.throwIfAborted();
    waits(left);
    await new Promise((resolve, reject) => {
      const timer = setTimeout(resolve, 1000);
      signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
    });
  }
  waits(null);
}

let asking = null;

/** Asks for another key than the one that was refused. Requests that fail together share one question. */
async function askForKey(refused) {
  if (key() !== refused) return;
  find("key-form").reset();
  find("key-why").textContent = text(refused ? "keyWrong" : "keyWhy");
  asking ??= ask("key").finally(() => (asking = null));
  const given = await asking;
  if (!given) throw new Failure(text("unauthorized"));
  saveKey(given.key.trim());
}
