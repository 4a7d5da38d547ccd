// Every text of the page in English and Chinese. A {name} stands for a value.

export const MESSAGES = {
  skip: ["Skip to the question", "跳到输入框"],
  openSidebar: ["Show conversations", "显示对话列表"],
  closeSidebar: ["Hide conversations", "隐藏对话列表"],
  newConversation: ["New conversation", "新对话"],
  conversations: ["Conversations", "对话列表"],
  noConversations: ["No conversations", "没有对话"],
  search: ["Search conversations", "搜索对话"],
  import: ["Import conversation", "导入对话"],
  export: ["Export conversation", "导出对话"],
  rename: ["Rename conversation", "重命名对话"],
  deleteConversation: ["Delete conversation", "删除对话"],
  deleted: ["“{title}” deleted", "已删除“{title}”"],
  undo: ["Undo", "撤销"],
  settings: ["Settings", "设置"],

  messages: ["Messages", "消息"],
  welcome: ["What would you like to ask?", "想问点什么？"],
  welcomeNote: ["Conversations are stored in this browser. Questions are sent only to this server.", "对话保存在此浏览器中，问题只发送给这台服务器。"],
  question: ["Ask a question", "输入问题"],
  send: ["Send", "发送"],
  stop: ["Stop", "停止"],
  keys: ["Enter sends, Shift+Enter starts a new line, Esc stops", "Enter 发送，Shift+Enter 换行，Esc 停止"],
  you: ["You", "你"],
  model: ["Model", "模型"],
  system: ["System prompt", "系统提示词"],
  toolResult: ["Tool result", "工具结果"],
  copy: ["Copy", "复制"],
  copied: ["Copied", "已复制"],
  notCopied: ["The browser did not allow copying.", "浏览器不允许复制。"],
  edit: ["Edit question", "编辑问题"],
  again: ["Answer again", "重新回答"],
  laterRemoved: ["The conversation continues from the edited question", "对话从修改后的问题继续"],
  questionReplaced: ["The unanswered question is replaced", "未回答的问题已被替换"],
  answerReplaced: ["The answer is replaced", "正在重新生成回答"],
  thinking: ["Thinking…", "思考中…"],
  thoughts: ["Thoughts", "思考过程"],
  toolCall: ["Calls the tool {name}", "调用工具 {name}"],
  code: ["Code", "代码"],
  answering: ["The model is answering", "模型正在回答"],
  answered: ["Answer: {answer}", "回答：{answer}"],
  stopped: ["Stopped", "已停止"],
  cut: ["The answer reached the limit “Max tokens” of the settings.", "回答达到了设置中“最大 token 数”的上限。"],
  cutByContext: ["The context of {context} tokens is full. Start a new conversation, or edit an earlier question to continue from there.", "{context} 个 token 的上下文已满。请开始新对话，或编辑之前的问题，从那里继续。"],
  tokens: ["{count} tokens", "{count} 个 token"],
  seconds: ["{seconds} s", "{seconds} 秒"],
  speed: ["{speed} tokens/s", "{speed} token/秒"],
  context: ["Context in use", "已用上下文"],
  contextUse: ["{used} of {context} tokens", "已用 {used} / {context} 个 token"],
  contextCached: ["{used} of {context} tokens, {cached} cached", "已用 {used} / {context} 个 token，{cached} 个来自缓存"],

  tryAgain: ["Try again", "重试"],
  noAnswer: ["This question has no answer yet.", "这个问题还没有回答。"],
  emptyAnswer: ["The model answered nothing.", "模型没有给出内容。"],
  busy: ["The server is busy. Trying again in {seconds} s.", "服务器繁忙，{seconds} 秒后重试。"],
  gone: ["The server does not answer. Check that glm serve is running, then try again.", "服务器没有响应。请确认 glm serve 正在运行，然后重试。"],
  broken: ["The connection ended before the answer did.", "回答还没结束，连接就断开了。"],
  unauthorized: ["The server needs a valid API key.", "服务器需要有效的 API 密钥。"],
  contextFull: ["The conversation no longer fits in the context ({detail}). Start a new conversation, or edit an earlier question to continue from there.", "对话已超出上下文（{detail}）。请开始新对话，或编辑之前的问题，从那里继续。"],
  refused: ["The server refused the request: {detail}", "服务器拒绝了请求：{detail}"],
  failed: ["The server failed (status {status}): {detail}", "服务器出错（状态码 {status}）：{detail}"],
  storageFull: ["The browser's storage is full: changes are not saved. Export the conversation, or delete others.", "浏览器存储空间已满，更改没有保存。请导出此对话，或删除其他对话。"],
  storageOff: ["The browser does not let this page store anything: conversations end with the page.", "浏览器不允许此页面保存数据，关闭页面后对话会丢失。"],

  notJson: ["{file} is not JSON: {problem}", "{file} 不是 JSON：{problem}"],
  notMessages: ["{file} has no list of messages with role and content.", "{file} 中没有带 role 和 content 的消息列表。"],
  badMessage: ["{file}: message {number} has no role that is known, or no text", "{file}：第 {number} 条消息没有文本，或角色未知"],

  fillBlanks: ["Fill in blanks", "填空"],
  fillLead: ["Write a text with blanks. The model fills them from left to right.", "写一段带空白的文字，模型会从左到右依次填写。"],
  blankWords: ["{blank} a few words", "{blank} 几个词"],
  blankSentence: ["{blank} a sentence", "{blank} 一个句子"],
  blankText: ["{blank} a longer text", "{blank} 一段文字"],
  fillText: ["Text with blanks", "带空白的文字"],
  fill: ["Fill", "填写"],
  filling: ["Filling…", "填写中…"],
  filled: ["Filled: {spans}", "已填写：{spans}"],
  noBlanks: ["The text has no blank. Insert one with a button above.", "文字中没有空白，请用上方的按钮插入。"],

  systemPrompt: ["System prompt of this conversation", "本对话的系统提示词"],
  systemHint: ["Instructions for the whole conversation", "对整个对话的要求"],
  answers: ["Answers", "回答"],
  temperature: ["Temperature", "温度"],
  seed: ["Seed", "随机种子"],
  maxTokens: ["Max tokens", "最大 token 数"],
  standard: ["default", "默认"],
  page: ["Page", "页面"],
  language: ["Language", "语言"],
  asBrowser: ["As the browser", "跟随浏览器"],
  theme: ["Colours", "配色"],
  asSystem: ["As the system", "跟随系统"],
  light: ["Light", "浅色"],
  dark: ["Dark", "深色"],
  cancel: ["Cancel", "取消"],
  save: ["Save", "保存"],

  keyTitle: ["API key", "API 密钥"],
  keyWhy: ["This server answers only with a key. The page keeps it until the tab is closed.", "访问此服务器需要密钥。页面只在标签页关闭前保留它。"],
  keyWrong: ["The server refused this key.", "服务器拒绝了此密钥。"],
  key: ["Key", "密钥"],
  use: ["Use", "使用"],
};

const LANGUAGES = ["en", "zh"];
let language = LANGUAGES[0];

export function text(name, values = {}) {
  const message = MESSAGES[name][LANGUAGES.indexOf(language)];
  return message.replace(/\{(\w+)\}/g, (whole, value) => (value in values ? values[value] : whole));
}

/** Puts the texts of a language, the browser's if `wanted` is empty, into every element that names a message. */
export function setLanguage(wanted) {
  language = wanted || (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  document.documentElement.lang = language === "zh" ? "zh-CN" : language;
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = text(one.dataset.text);
  for (const one of document.querySelectorAll("[data-placeholder]")) one.placeholder = text(one.dataset.placeholder);
  for (const one of document.querySelectorAll("[data-label]")) {
    one.setAttribute("aria-label", text(one.dataset.label));
    if (one.tagName === "BUTTON") one.title = text(one.dataset.label);
  }
}

/** A number with at most this many decimals, as the language writes it. */
export function number(value, decimals = 0) {
  return value.toLocaleString(document.documentElement.lang, { maximumFractionDigits: decimals });
}
