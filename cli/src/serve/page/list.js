// The conversations in the sidebar, and what can be done with one as a whole.

import { inProgress } from "./answering.js";
import * as chat from "./chat.js";
import { exported, imported, titleOf } from "./conversation.js";
import { element, find, isComposing, notify } from "./dom.js";
import { text } from "./messages.js";
import { conversations, removeConversation, saveConversation } from "./storage.js";

export function start() {
  find("search").oninput = draw;
  find("rename").onclick = rename;
  find("delete").onclick = remove;
  find("export").onclick = save;
  find("import").onclick = () => find("import-file").click();
  find("import-file").onchange = load;
}

export function draw() {
  const all = conversations();
  const wanted = find("search").value.trim().toLowerCase();
  const found = wanted ? all.filter((one) => contains(one, wanted)) : all;
  const current = location.hash === "#fill" ? null : chat.shown().id;
  const rows = found.map((one) => element("li", {}, link(one, one.id === current)));
  if (found.length === 0) rows.push(element("li", { class: "none" }, text("noConversations")));
  find("conversations").replaceChildren(...rows);
  find("search").hidden = all.length === 0;
  find("conversation-actions").hidden = !current || !all.some((one) => one.id === current);
}

function link(one, isCurrent) {
  const title = titleOf(one);
  const row = element("a", { class: "row", href: `#${one.id}`, title, "aria-current": isCurrent && "page" }, element("span", {}, title));
  if (inProgress(one)) row.append(element("i", { class: "busy", role: "img", "aria-label": text("answering") }));
  return row;
}

const contains = ({ title, messages }, wanted) => [title, ...messages.map((one) => one.content)].some((part) => part.toLowerCase().includes(wanted));

function rename() {
  const conversation = chat.shown();
  const [field, title] = [find("rename-field"), find("title")];
  const end = (isKept) => {
    if (field.hidden) return;
    field.hidden = true;
    title.hidden = false;
    if (!isKept || !field.value.trim() || field.value === conversation.title) return;
    Object.assign(conversation, { title: field.value.trim(), isNamed: true });
    saveConversation(conversation);
    title.textContent = conversation.title;
    draw();
  };
  field.value = titleOf(conversation);
  field.hidden = false;
  title.hidden = true;
  field.onblur = () => end(true);
  field.onkeydown = (event) => {
    if (isComposing(event) || !["Enter", "Escape"].includes(event.key)) return;
    event.stopPropagation();
    end(event.key === "Enter");
    find("rename").focus();
  };
  field.select();
}

function remove() {
  const conversation = chat.shown();
  inProgress(conversation)?.stop();
  conversation.isDeleted = true;
  removeConversation(conversation.id);
  location.hash = "#new";
  notify(text("deleted", { title: titleOf(conversation) }), () => {
    delete conversation.isDeleted;
    saveConversation(conversation);
    location.hash = `#${conversation.id}`;
  });
}

function save() {
  const conversation = chat.shown();
  const name = titleOf(conversation).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "conversation";
  const address = URL.createObjectURL(new Blob([exported(conversation)], { type: "application/json" }));
  element("a", { href: address, download: `${name}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}

async function load() {
  const field = find("import-file");
  try {
    const conversation = await imported(field.files[0]);
    saveConversation(conversation);
    location.hash = `#${conversation.id}`;
  } catch (problem) {
    notify(problem.message);
  } finally {
    // The same file can be chosen again.
    field.value = "";
  }
}
