//! Entering text in `glm chat` in a pseudo-terminal: input methods, pastes, several lines, keys, history and colours.
#![cfg(all(target_os = "linux", feature = "demo"))]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::terminal::{SHELL, Start, Terminal};
use serde_json::Value;

/// A chat with the bundled model whose answers are always the same.
fn begun(start: Start) -> Terminal {
    let chat = start.open();
    chat.wait_for("\n> ");
    chat
}

fn chat() -> Terminal {
    begun(Start::new(&["chat", "--greedy"]))
}

/// Saves the conversation and returns the contents of its messages.
fn said(chat: &Terminal) -> Vec<String> {
    let path = chat.home().join("said.json");
    let _ = fs::remove_file(&path);
    chat.send("/save said.json\r");
    chat.wait_for("written to said.json");
    let saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let contents = saved.as_array().unwrap().iter().map(|message| &message["content"]);
    contents.map(|content| content.as_str().unwrap().to_owned()).collect()
}

fn history(home: &Path) -> String {
    fs::read_to_string(home.join(".local/state/glm/history")).unwrap()
}

#[test]
fn text_that_an_input_method_commits_is_shown_at_once() {
    let mut chat = chat();
    chat.send("你好");
    chat.wait_for("> 你好");
    chat.send("\r");
    chat.wait_for("你好！有什么可以帮你的吗？\n");
    chat.send("谢谢\r");
    chat.wait_for("> 谢谢\n不客气");
    chat.send("\x04");
    assert_eq!(chat.exit_code(), Some(0));
    assert!(chat.is_sane());
}

#[test]
fn all_lines_of_one_write_are_asked() {
    let chat = chat();
    chat.send("My name is Clara.\rWhat is my name?\rHello!\r");
    chat.wait_for("How can I help you?");
    let said = said(&chat);
    assert_eq!(said.len(), 6, "{said:?}");
    assert_eq!(said[2..5], ["What is my name?", "Your name is Clara.", "Hello!"]);
}

#[test]
fn a_paste_of_several_lines_is_one_question() {
    let chat = chat();
    chat.send("\x1b[200~Hello!\r  and\tmore\r\x1b[201~");
    chat.wait_for("and");
    chat.send("\r");
    chat.wait_until("an answer", |screen| screen.trim_end().ends_with("\n>"));
    assert_eq!(said(&chat)[0], "Hello!\n  and\tmore");
}

/// Ten thousand characters are too much for the context of the bundled model, but all of them arrive.
fn pastes_ten_thousand_characters(begin: &str, end: &str) {
    let chat = chat();
    let text: String = (0..)
        .flat_map(|n: u32| format!("{n} 模型，").chars().collect::<Vec<_>>())
        .take(10_000)
        .collect();
    chat.send(format!("{begin}{text}{end}\r"));
    chat.wait_for("--context-overflow drop-oldest)");
    assert_eq!(history(chat.home()).lines().next_back(), Some(&*text));
    chat.send("谢谢\r");
    chat.wait_for("不客气");
}

#[test]
fn a_long_bracketed_paste_is_complete() {
    pastes_ten_thousand_characters("\x1b[200~", "\x1b[201~");
}

#[test]
fn a_long_plain_paste_is_complete() {
    pastes_ten_thousand_characters("", "");
}

#[test]
fn a_question_may_have_several_lines() {
    let chat = chat();
    chat.send("\"\"\"\rHello!\r\rThanks\r\"\"\"\r");
    chat.wait_until("an answer", |screen| screen.trim_end().ends_with("\n>"));
    chat.send("first\\\rsecond\x1b\rthird\r");
    chat.wait_until("an answer", |screen| {
        screen.contains("third") && screen.trim_end().ends_with("\n>")
    });
    let said = said(&chat);
    assert_eq!((&*said[0], &*said[2]), ("Hello!\n\nThanks", "first\nsecond\nthird"));
}

#[test]
fn a_space_hides_a_slash() {
    let chat = chat();
    chat.send("/bin\r");
    chat.wait_for("/bin: no such command. /help lists the commands; type a space");
    chat.send(" /bin\r");
    chat.wait_until("an answer", |screen| screen.trim_end().ends_with("\n>"));
    assert_eq!(said(&chat)[0], " /bin");
}

#[test]
fn commands_settings_and_paths_are_completed() {
    let chat = chat();
    fs::write(chat.home().join("a talk.json"), "[]").unwrap();
    chat.send("/he\t");
    chat.wait_for("> /help ");
    chat.send("\x15/set temp\t");
    chat.wait_for("> /set temperature ");
    chat.send("\x15/load a\t");
    chat.wait_for("> /load a talk.json");
    chat.send("\x15a\tb");
    chat.wait_until("a tab", |screen| screen.contains("> a     b"));
}

#[test]
fn bytes_that_are_not_utf8_do_not_end_the_chat() {
    let chat = chat();
    chat.send(b"a\xff");
    chat.wait_until("the line again", |screen| screen.matches("\n> a").count() == 2);
    chat.send(b"b\xff");
    // The screen of the tests leaves U+FFFD out.
    chat.wait_until("the line again", |screen| screen.contains("\n> ab"));
    chat.send("c\r");
    chat.wait_until("an answer", |screen| screen.contains("c\n") && screen.ends_with("\n> "));
    assert_eq!(chat.screen().matches("what was entered is not UTF-8").count(), 1);
    assert_eq!(said(&chat)[0], "a\u{fffd}b\u{fffd}c");
    chat.send("谢谢\r");
    chat.wait_for("不客气");
}

#[test]
fn ctrl_c_at_the_prompt_asks_before_it_leaves() {
    let mut chat = chat();
    chat.send("draft\x03");
    chat.wait_for("press Ctrl-C again");
    chat.send("谢谢\r");
    chat.wait_for("不客气！\n> ");
    chat.send("\x03");
    chat.wait_until("a second note", |screen| {
        screen.matches("press Ctrl-C again").count() == 2 && screen.ends_with("\n> ")
    });
    chat.send("\x03");
    assert_eq!(chat.exit_code(), Some(0));
    assert!(chat.is_sane());
}

#[test]
fn ctrl_z_at_the_prompt_gives_the_shell_its_terminal() {
    let chat = begun(Start::new(&["chat", "--greedy"]).in_shell());
    let modes = chat.modes().local_modes;
    chat.send("Hel");
    chat.wait_for("> Hel");
    chat.send("\x1a");
    chat.wait_for(SHELL);
    assert!(chat.is_sane() && chat.modes().local_modes != modes);
    let screen = chat.screen();
    assert!(screen.contains("\n> Hel\n"), "the shell has lines of its own: {screen}");
    chat.send("fg\n");
    chat.wait_until("the prompt again", |screen| screen.ends_with("\n> Hel"));
    chat.send("lo!\r");
    chat.wait_for("How can I help you?");
    assert!(chat.screen().contains("> Hello!\n"), "{}", chat.screen());
    chat.send("/bye\r");
    chat.wait_until("the shell", |screen| screen.trim_end().ends_with(SHELL));
}

/// Nobody could let it go on.
#[test]
fn ctrl_z_without_a_shell_does_nothing() {
    let chat = chat();
    chat.send("Hel");
    chat.wait_for("> Hel");
    chat.send("\x1alo!\r");
    chat.wait_for("How can I help you?");
    assert!(chat.screen().contains("> Hello!\n"), "{}", chat.screen());
}

#[test]
fn questions_are_remembered_for_their_user_alone() {
    let home = tempfile::tempdir().unwrap();
    let start = || Start::new(&["chat", "--greedy"]).home(home.path());
    let mut first = begun(start());
    first.send("My name is Clara.\r");
    first.wait_for("Clara!");
    first.send("/bye\r");
    assert_eq!(first.exit_code(), Some(0));
    let mode =
        |path: &str| fs::metadata(home.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(".local/state/glm/history"), 0o600);
    assert_eq!(mode(".local/state/glm"), 0o700);

    let mut second = begun(start());
    second.send("\x1b[A\x1b[A");
    second.wait_for("> My name is Clara.");
    second.send("\x15/set history off\r");
    second.wait_for("\nhistory off");
    second.send("not written down\r");
    second.wait_until("an answer", |screen| screen.trim_end().ends_with("\n>"));
    // This run remembers it, also when the history is on again.
    second.send("\x1b[A");
    second.wait_until("the question", |screen| screen.ends_with("> not written down"));
    second.send("\x15/set history on\r谢谢\r");
    second.wait_for("不客气");
    second.send("\x04");
    assert_eq!(second.exit_code(), Some(0));
    assert!(!history(home.path()).contains("not written"), "{}", history(home.path()));
    assert!(history(home.path()).contains("谢谢"));

    let mut third = begun(Start::new(&["chat", "--greedy", "--no-history"]).home(home.path()));
    third.send("Hello!\r");
    third.wait_for("How can I help you?");
    third.send("\x04");
    assert_eq!(third.exit_code(), Some(0));
    assert!(!history(home.path()).contains("Hello!"));
}

#[test]
fn a_history_that_cannot_be_written_is_a_note() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".local"), "a file where a folder should be").unwrap();
    let chat = begun(Start::new(&["chat", "--greedy"]).home(home.path()));
    chat.send("谢谢\r");
    chat.wait_for("questions are not remembered for the next run");
    chat.wait_for("不客气");
    chat.send("Hello!\r");
    chat.wait_for("How can I help you?");
    assert_eq!(chat.screen().matches("not remembered").count(), 1);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let written = |start: Start| {
        let mut chat = begun(start);
        chat.send("谢谢\r");
        chat.wait_for("不客气");
        chat.send("\x04");
        assert_eq!(chat.exit_code(), Some(0));
        chat.written()
    };
    let start = || Start::new(&["chat", "--greedy"]);
    let is_coloured = |text: &str| text.contains("\x1b[1;36m") && text.contains("\x1b[2m");
    assert!(is_coloured(&written(start())));
    let plain = written(start().variable("NO_COLOR", "1"));
    assert!(!plain.contains("\x1b[1;") && !plain.contains("\x1b[2m"), "{plain:?}");
}

#[test]
fn a_dumb_terminal_sees_no_escape_sequences() {
    let mut chat = begun(Start::new(&["chat", "--greedy"]).variable("TERM", "dumb"));
    assert!(chat.is_sane());
    chat.send("谢谢\n");
    chat.wait_for("> 谢谢\n不客气");
    chat.send("\"\"\"\n");
    chat.wait_for("... ");
    chat.send("Hello!\n\"\"\"\n");
    chat.wait_until("an answer", |screen| screen.trim_end().ends_with("\n>"));
    assert_eq!(said(&chat)[2], "Hello!");
    chat.send("\x04");
    assert_eq!(chat.exit_code(), Some(0));
    assert!(!chat.written().contains('\x1b'), "{:?}", chat.written());
}

#[test]
fn a_second_ctrl_c_leaves_a_dumb_terminal() {
    let mut chat = begun(Start::new(&["chat", "--greedy"]).variable("TERM", "dumb"));
    chat.send("draft\x03");
    chat.wait_for("press Ctrl-C again");
    chat.send("谢谢\n");
    chat.wait_for("不客气");
    chat.wait_until("the prompt", |screen| screen.trim_end().ends_with("\n>"));
    chat.send("\x03");
    chat.wait_until("a second note", |screen| {
        screen.matches("press Ctrl-C again").count() == 2 && screen.trim_end().ends_with("\n>")
    });
    chat.send("\x03");
    assert_eq!(chat.exit_code(), Some(130));
    assert!(chat.is_sane());
}
