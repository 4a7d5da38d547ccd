// What is shown for which address: the part behind # is "new", "fill", or the id of a conversation.

import { inProgress } from "./answering.js";
import * as chat from "./chat.js";
import { create, titleOf } from "./conversation.js";
import { find, icon, notify } from "./dom.js";
import * as fill from "./fill.js";
import * as list from "./list.js";
import { setLanguage, text } from "./messages.js";
import { model as askForModel } from "./server.js";
import { edit, setTheme } from "./settings.js";
import * as storage from "./storage.js";

let model = { id: "", context: null, blanks: [] };

function route() {
  const id = location.hash.slice(1);
  const isFill = id === "fill";
  if (!chat.shown() || (!isFill && chat.shown().id !== id)) {
    chat.open(inProgress({ id })?.conversation ?? storage.conversation(id) ?? create());
  }
  find("chat").hidden = isFill;
  find("fill").hidden = !isFill;
  find("skip").hidden = isFill;
  mark(find("new"), !isFill && chat.shown().messages.length === 0);
  mark(find("to-fill"), isFill);
  find("rename-field").hidden = true;
  find("title").hidden = false;
  showSidebar(false);
  draw();
  if (isFill) find("fill-text").focus();
  else chat.focus();
}

const mark = (link, isCurrent) => (link.ariaCurrent = isCurrent ? "page" : null);

function draw() {
  const isFill = location.hash === "#fill";
  find("title").textContent = isFill ? text("fillBlanks") : titleOf(chat.shown());
  document.title = `${find("title").textContent} · GLM`;
  if (isFill) fill.draw();
  list.draw();
}

/** A conversation changed: a new one gets its address. */
function conversationChanged() {
  const { id } = chat.shown();
  if (location.hash !== "#fill" && location.hash !== `#${id}` && storage.conversation(id)) {
    history.replaceState(null, "", `#${id}`);
    mark(find("new"), false);
  }
  draw();
}

function speak() {
  setLanguage(storage.settings().language);
  fill.setBlanks(model.blanks);
  chat.draw();
  draw();
  showTrouble(trouble);
}

let trouble = null;
function showTrouble(kind) {
  trouble = kind;
  find("storage-notice").hidden = !kind;
  if (kind) find("storage-notice").textContent = text(kind);
}

/** In a narrow window, the sidebar lies above the rest. */
function showSidebar(isOpen) {
  if (document.body.classList.contains("sidebar-open") === isOpen) return;
  document.body.classList.toggle("sidebar-open", isOpen);
  find("open-sidebar").ariaExpanded = isOpen;
  find(isOpen ? "close-sidebar" : "open-sidebar").focus();
}

async function openSettings() {
  const conversation = chat.shown();
  showSidebar(false);
  if (!(await edit(conversation))) return;
  if (conversation.messages.length > 0) storage.saveConversation(conversation);
  setTheme();
  speak();
  conversationChanged();
}

async function learnModel() {
  try {
    model = await askForModel();
  } catch (failure) {
    return notify(failure.message);
  }
  find("model").textContent = model.id;
  find("to-fill").hidden = model.blanks.length === 0;
  fill.setBlanks(model.blanks);
  chat.setContext(model.context);
  chat.draw();
  if (location.hash === "#fill" && model.blanks.length === 0) location.hash = "#new";
}

for (const one of document.querySelectorAll("[data-icon]")) one.prepend(icon(one.dataset.icon || one.dataset.label));
setTheme();
setLanguage(storage.settings().language);
chat.start(conversationChanged);
list.start();
fill.start();
storage.onTrouble(showTrouble);
storage.onChange((id) => {
  if (id === null || id === chat.shown().id) chat.reload();
  draw();
});
find("skip").onclick = () => find("question").focus();
find("open-sidebar").onclick = () => showSidebar(true);
find("close-sidebar").onclick = find("scrim").onclick = () => showSidebar(false);
find("open-settings").onclick = openSettings;
find("sidebar").onkeydown = (event) => {
  if (event.key === "Escape") showSidebar(false);
};
addEventListener("hashchange", route);
route();
learnModel();
