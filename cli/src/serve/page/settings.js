// The dialog of settings.

import { setSystemPrompt, systemPrompt } from "./conversation.js";
import { ask, find } from "./dom.js";
import { text } from "./messages.js";
import { settings, saveSettings } from "./storage.js";

const NUMBERS = ["temperature", "top_p", "top_k", "seed", "max_tokens"];

/** Shows the settings; says whether they were saved. */
export async function edit(conversation) {
  const { sampling = {}, language = "", theme = "" } = settings();
  const fields = find("settings-form").elements;
  fields.system.value = systemPrompt(conversation);
  fields.language.value = language;
  fields.theme.value = theme;
  for (const name of NUMBERS) Object.assign(fields[name], { value: sampling[name] ?? "", placeholder: text("standard") });
  const given = await ask("settings");
  if (!given) return false;
  setSystemPrompt(conversation, given.system);
  const numbers = NUMBERS.filter((name) => given[name] !== "").map((name) => [name, Number(given[name])]);
  saveSettings({ sampling: Object.fromEntries(numbers), language: given.language, theme: given.theme });
  return true;
}

export function setTheme() {
  document.documentElement.dataset.theme = settings().theme ?? "";
}
