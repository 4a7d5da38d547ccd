// Elements and what several parts of the page do with them. Text only ever becomes text nodes.

import { text } from "./messages.js";

export const find = (id) => document.getElementById(id);

/** An element. Properties that begin with "on" are listeners, the others attributes; false leaves one out. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function icon(name) {
  const [svg, use] = ["svg", "use"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button with an icon that is named like its message. */
export function iconButton(name, onclick) {
  const said = text(name);
  return element("button", { class: `icon ${name}`, title: said, "aria-label": said, onclick }, icon(name));
}

export function announce(said) {
  find("announcer").textContent = said;
}

/** Shows a notice for some seconds, with a way to undo what it says if there is one. */
export function notify(said, undo) {
  const notice = element("div", { class: "notice" }, element("p", {}, said));
  const end = () => notice.remove();
  setTimeout(end, undo ? 12000 : 8000);
  if (undo) notice.append(element("button", { onclick: () => (end(), undo()) }, text("undo")));
  find("notices").replaceChildren(notice);
}

/** Copies text. Where the page came from another machine without TLS, only the old way works. */
export async function copy(said) {
  try {
    await navigator.clipboard.writeText(said);
  } catch {
    const field = element("textarea", { class: "unseen" });
    field.value = said;
    const before = document.activeElement;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    before.focus();
    if (!done) return notify(text("notCopied"));
  }
  notify(text("copied"));
}

export function fit(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
}

/** Whether a key was pressed to choose characters of an input method, as for Chinese. */
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

/** Shows a dialog until it is closed. The answer is its fields if it was confirmed, else null. */
export function ask(id) {
  const dialog = find(id);
  const form = dialog.querySelector("form");
  return new Promise((resolve) => {
    let answer = null;
    form.onsubmit = (event) => {
      event.preventDefault();
      answer = Object.fromEntries(new FormData(form));
      dialog.close();
    };
    form.querySelector("[data-close]").onclick = () => dialog.close();
    dialog.onclose = () => resolve(answer);
    dialog.showModal();
  });
}
