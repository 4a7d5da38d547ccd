//! What the program says to people, in English and in Chinese. One table; each message has both languages.

use std::fmt::Display;
use std::sync::OnceLock;

/// The language of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    Chinese,
}

/// The language that the environment asks for: that of `LC_ALL`, else `LC_MESSAGES`, else `LANG`.
pub fn language() -> Language {
    static LANGUAGE: OnceLock<Language> = OnceLock::new();
    *LANGUAGE.get_or_init(|| of(|name| std::env::var(name).ok()))
}

fn of(variable: impl Fn(&str) -> Option<String>) -> Language {
    let names = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter();
    let locale = names.filter_map(variable).find(|value| !value.is_empty());
    match locale.is_some_and(|locale| locale.to_lowercase().starts_with("zh")) {
        true => Language::Chinese,
        false => Language::English,
    }
}

/// For each message a function of its arguments. Arguments are named in the text as in `format!`.
macro_rules! messages {
    ($($name:ident($($argument:ident),*): $english:literal, $chinese:literal;)*) => {
        $(
            pub fn $name($($argument: impl Display),*) -> String {
                match language() {
                    Language::English => format!($english),
                    Language::Chinese => format!($chinese),
                }
            }
        )*

        /// Name, arguments, English and Chinese.
        #[cfg(test)]
        const TABLE: &[(&str, &[&str], &str, &str)] =
            &[$((stringify!($name), &[$(stringify!($argument)),*], $english, $chinese)),*];
    };
}

messages! {
    // Errors and interruptions.
    error(message): "error: {message}", "错误：{message}";
    stopped(): "stopped", "已停止";

    // Answers.
    reading_prompt(tokens): "reading the prompt, {tokens} tokens", "正在读取提示词，共 {tokens} 个词元";
    context_ended_answer(): "[the context is full, and the answer ends here]", "[上下文已满，回答到此为止]";
    length_ended_answer(most): "[the answer ends here: {most} new tokens are the maximum]", "[回答到此为止：最多生成 {most} 个词元]";
    answer_stats(read, kept, reading, written, writing, rate):
        "prompt: {read} tokens read, {kept} kept, {reading}; answer: {written} tokens, {writing}, {rate} tokens/s",
        "提示词：读取 {read} 个词元，复用 {kept} 个，{reading}；回答：{written} 个词元，{writing}，每秒 {rate} 个";
    context_stats(used, context): "; context: {used} of {context}", "；上下文：{used}/{context}";
    draft_stats(accepted, drafted, rate):
        "; drafts: {accepted} of {drafted} accepted, {rate} tokens a pass",
        "；草稿：{drafted} 个中接受 {accepted} 个，每轮 {rate} 个词元";

    // Chat.
    demo_model():
        "It knows only the few things it was taught (ask what it can do). A real model: glm chat -m FOLDER, with the files of ChatGLM-6B in the folder",
        "它只会学过的几件事（可以问它会做什么）。使用真正的模型：glm chat -m 文件夹，文件夹里放 ChatGLM-6B 的文件";
    how_to_begin(): "/help lists the commands; Ctrl-D leaves", "/help 列出命令；按 Ctrl-D 退出";
    how_to_leave(): "press Ctrl-C again, or Ctrl-D, to leave", "再按一次 Ctrl-C 或按 Ctrl-D 退出";
    answer_stopped(): "[stopped; Ctrl-C again leaves]", "[已停止；再按一次 Ctrl-C 退出]";
    conversation_in(path): "the conversation in {path}", "{path} 中的对话";
    nothing_to_answer(path):
        "{path} ends with an answer, so there is nothing to answer. To go on talking: glm chat --continue FILE",
        "{path} 以回答结尾，没有要回答的问题。要继续对话：glm chat --continue 文件";
    loaded(count, path): "messages loaded from {path}: {count}", "已从 {path} 载入 {count} 条消息";
    unanswered(question): "its last question has no answer yet: {question}", "最后一个问题还没有回答：{question}";
    rounds_dropped(count):
        "the conversation has become too long; rounds dropped at its beginning: {count}",
        "对话太长，已丢弃最早的 {count} 轮";
    context_advice():
        "/undo removes the last question, /clear starts a new conversation, /set context-overflow drop-oldest drops the oldest rounds (so does the flag --context-overflow drop-oldest)",
        "/undo 撤销上一个问题，/clear 开始新的对话，/set context-overflow drop-oldest 自动丢弃最早的几轮（启动时可用 --context-overflow drop-oldest）";
    overflow_advice():
        "--context-overflow drop-oldest drops the oldest rounds of a conversation that has become too long",
        "使用 --context-overflow drop-oldest 会自动丢弃太长的对话最早的几轮";
    not_utf8(number):
        "line {number} is not UTF-8; wrong bytes are read as U+FFFD, here and in further lines",
        "第 {number} 行不是 UTF-8；错误的字节按 U+FFFD 读取，后面的行也一样";
    input_not_utf8(): "what was entered is not UTF-8; enter it again", "输入的内容不是 UTF-8，请重新输入";
    no_question(): "there is no question yet", "还没有问题";
    nothing_to_undo(): "there is no question to remove", "没有可撤销的问题";
    back_to(question): "removed; the last question is now: {question}", "已撤销；现在最后一个问题是：{question}";
    back_to_beginning(): "removed; this is the beginning of the conversation", "已撤销；对话回到开头";
    cleared(): "a new conversation; the instructions stay", "新的对话；系统指令保留不变";
    nothing_changed(): "nothing was changed", "没有改动";
    editor_failed(editor, status): "{editor}: {status}; nothing was changed", "{editor}：{status}；没有改动";
    where_we_are(count, used, context):
        "messages: {count}; context used: {used} of {context} tokens",
        "消息：{count} 条；上下文：已用 {used} 个词元，共 {context} 个";
    file_of_conversation(path): "/save writes to {path}", "/save 会写入 {path}";
    save_needs_a_name(): "name a file: /save FILE", "请写出文件名：/save 文件";
    exists_already(path): "{path} exists already: choose another name, or remove it first", "{path} 已经存在：请换一个名字，或者先删除它";
    written_to(path): "written to {path}", "已写入 {path}";
    no_such_command(line):
        "{line}: no such command. /help lists the commands; type a space before a question that begins with /",
        "{line}：没有这个命令。/help 列出命令；以 / 开头的问题请在前面加一个空格";
    no_such_setting(name, names): "{name}: no such setting; there are {names}", "{name}：没有这个设置；可用的设置有 {names}";
    setting_out_of_range(name, range, value): "{name} must be {range}; found {value}", "{name} 必须是{range}；实际是 {value}";
    range_numbers(from, to): "a number from {from} to {to}", " {from} 到 {to} 之间的数";
    range_top_p(): "a number above 0 and at most 1", "大于 0 且不超过 1 的数";
    range_top_k(): "a whole number; 0 means all tokens", "整数；0 表示不限";
    range_seed(): "a whole number from 0, or random", "不小于 0 的整数，或 random（随机）";
    range_max_tokens(): "a whole number from 1, or none", "不小于 1 的整数，或 none（不限）";
    range_stop(): "a text that ends answers, or none", "结束回答的文字，或 none（没有）";
    range_draft(most): "auto, off or a number from 1 to {most}", " auto、off 或 1 到 {most} 之间的整数";
    range_words(words): "one of {words}", "下列之一：{words}";
    no_history(reason): "questions are not remembered for the next run: {reason}", "问题不会保存到下次使用：{reason}";
    not_a_history(path): "{path} is not a history of questions", "{path} 不是问题的历史文件";
    help_set(): "change a setting for the next answers; without a value, show it", "更改之后回答的设置；不写值时显示它";
    help_show(): "show all settings and how much of the context is used", "显示所有设置和上下文的用量";
    help_system(): "give the model instructions; /system none removes them", "给模型系统指令；/system none 删除指令";
    help_regen(): "answer the last question again, with another seed", "换一个随机种子重新回答上一个问题";
    help_edit(): "change the last question in $VISUAL or $EDITOR and ask it again", "用 $VISUAL 或 $EDITOR 修改上一个问题，再问一次";
    help_undo(): "remove the last question and its answer", "撤销上一个问题和它的回答";
    help_clear(): "start a new conversation", "开始新的对话";
    help_save(): "write the conversation as JSON; glm chat --continue FILE goes on with it", "把对话写成 JSON；用 glm chat --continue 文件 可以继续";
    help_load(): "go on with a conversation that was saved", "继续保存过的对话";
    help_stats(): "print speed and context after each answer", "每次回答后显示速度和上下文用量";
    help_help(): "print this list; so does /?", "显示这个列表；/? 也可以";
    help_bye(): "leave; so do /exit, /quit and Ctrl-D", "退出；/exit、/quit 和 Ctrl-D 也可以";
    help_keys():
        "Several lines: put \"\"\" before and after them, or end a line with \\, or press Alt-Enter.\nCtrl-C stops an answer and keeps the text so far; Ctrl-C again leaves. Tab completes commands.\nType a space before a question that begins with /.",
        "多行输入：在前后各加 \"\"\"，或者在行尾加 \\，或者按 Alt-Enter。\nCtrl-C 停止回答并保留已有的文字，再按一次退出。Tab 补全命令。\n以 / 开头的问题请在前面加一个空格。";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_the_language() {
        let chosen = |variables: &[(&str, &str)]| {
            of(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
        };
        assert_eq!(chosen(&[]), Language::English);
        assert_eq!(chosen(&[("LANG", "zh_CN.UTF-8")]), Language::Chinese);
        assert_eq!(chosen(&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8")]), Language::English);
        assert_eq!(chosen(&[("LC_ALL", ""), ("LANG", "zh_TW")]), Language::Chinese);
        assert_eq!(chosen(&[("LC_MESSAGES", "zh_HK"), ("LANG", "en_US")]), Language::Chinese);
    }

    #[test]
    fn both_languages_use_all_arguments() {
        for (name, arguments, english, chinese) in TABLE {
            for argument in *arguments {
                let used = |text: &str| {
                    text.contains(&format!("{{{argument}}}"))
                        || text.contains(&format!("{{{argument}:"))
                };
                assert!(used(english) && used(chinese), "{name}: {argument}");
            }
            let is_chinese = chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
            assert!(is_chinese && english.is_ascii(), "{name}");
        }
    }
}
