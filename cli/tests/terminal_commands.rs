//! The commands of `glm chat` in a pseudo-terminal.
#![cfg(all(unix, feature = "demo"))]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::terminal::{Start, Terminal};

fn begun(start: Start) -> Terminal {
    let chat = start.size(40, 100).open();
    chat.wait_for("\n> ");
    chat
}

fn chat() -> Terminal {
    begun(Start::new(&["chat", "--greedy"]))
}

/// Enters a line and waits for what follows it.
fn enter(chat: &Terminal, line: &str, expected: &str) {
    chat.send(format!("{line}\r"));
    chat.wait_until(expected, |screen| {
        let after = screen.rfind(&format!("> {line}\n")).map(|at| &screen[at + line.len() + 2..]);
        after.is_some_and(|after| after.contains(expected) && after.trim_end().ends_with("\n>"))
    });
}

#[test]
fn help_lists_every_command() {
    for command in ["/help", "/?"] {
        let chat = chat();
        enter(&chat, command, "Type a space before");
        let screen = chat.screen();
        let commands = "/set /show /system /regen /edit /undo /clear /save /load /adapter /think /thoughts /stats /help /bye";
        for command in commands.split(' ') {
            assert!(screen.contains(&format!("\n{command} ")), "{command}: {screen}");
        }
    }
}

#[test]
fn notes_are_broken_between_words() {
    let chat = Start::new(&["chat", "--greedy"]).size(40, 50).open();
    chat.wait_for("\n> ");
    enter(&chat, "/help", "begins with /.");
    let screen = chat.screen();
    let left = format!("\n{:17}", "");
    let edit =
        ["/edit            change the last question in", "$VISUAL or $EDITOR and ask it", "again"];
    assert!(screen.contains(&edit.join(&left)), "{screen}");
    enter(&chat, "/nosuch", "space before a");
    let screen = chat.screen();
    assert!(
        screen.contains("/nosuch: no such command. /help lists the\ncommands; type"),
        "{screen}"
    );
}

#[test]
fn a_command_is_one_line() {
    let chat = chat();
    enter(&chat, "/load nosuch\\", "error: nosuch\\: ");
}

#[test]
fn each_way_to_leave_leaves() {
    for command in ["/bye", "/exit", "/quit"] {
        let mut chat = chat();
        chat.send(format!("{command}\r"));
        assert_eq!(chat.exit_code(), Some(0), "{command}");
        assert!(chat.is_sane());
    }
}

#[test]
fn settings_are_changed_shown_and_checked() {
    let chat = chat();
    for (line, expected) in [
        ("/set temperature 0.5", "\ntemperature 0.5"),
        ("/set temperature", "\ntemperature 0.5"),
        ("/set temperature hot", "error: temperature must be a number from 0 to 100; found hot"),
        ("/set temperature 101", "error: temperature must be a number from 0 to 100; found 101"),
        ("/set temperature default", "\ntemperature 0\n"),
        ("/set top-p 1.1", "error: top-p must be a number from 0 to 1; found 1.1"),
        ("/set top-p 0.5", "\ntop-p 0.5"),
        ("/set top_p 0.6", "\ntop-p 0.6"),
        ("/set top-k -1", "error: top-k must be a whole number"),
        ("/set top-k 7", "\ntop-k 7"),
        ("/set min-p 2", "error: min-p must be a number from 0 to 1"),
        ("/set min-p 0.1", "\nmin-p 0.1"),
        (
            "/set repetition-penalty 0",
            "error: repetition-penalty must be a number from 0.01 to 100",
        ),
        ("/set repetition-penalty 1.1", "\nrepetition-penalty 1.1"),
        ("/set seed -1", "error: seed must be"),
        ("/set seed 7", "\nseed 7"),
        ("/set max-new-tokens 0", "error: max-new-tokens must be"),
        ("/set max-new-tokens 3", "\nmax-new-tokens 3"),
        ("/set stop you", "\nstop \"you\""),
        ("/set stop \\n", "\nstop \"you\" \"\\n\""),
        ("/set draft 99", "error: draft must be auto, off or a number from 1 to"),
        ("/set draft off", "\ndraft off"),
        ("/set history maybe", "error: history must be one of on, off"),
        ("/set nosuch 1", "error: there is no setting nosuch; the settings are temperature, top-p"),
    ] {
        enter(&chat, line, expected);
    }
    enter(&chat, "/show", "messages: 0; context used: 0 of 512 tokens");
    let screen = chat.screen();
    let shown: Vec<_> =
        screen.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    for line in [
        "top-k 7",
        "seed 7",
        "max-new-tokens 3",
        "draft off",
        "system none",
        "history on",
        "context-overflow error",
    ] {
        assert!(shown.contains(&line.split(' ').collect()), "{line}: {screen}");
    }
}

#[test]
fn settings_change_the_next_answer() {
    let chat = chat();
    enter(&chat, "/set max-new-tokens 2", "max-new-tokens 2");
    enter(&chat, "Hello!", "[the answer ends here: 2 new tokens are the maximum]");
    enter(&chat, "/set max-new-tokens none", "max-new-tokens none");
    enter(&chat, "/set stop How", "stop \"How\"");
    enter(&chat, "/regen", "\nHello!");
    assert!(!chat.screen().contains("How can I"), "{}", chat.screen());
    enter(&chat, "/set stop none", "stop none");
    enter(&chat, "/regen", "How can I help you?");
}

#[test]
fn instructions_need_a_model_that_takes_them() {
    let refused = chat();
    enter(&refused, "/system Be brief.", "error: ");
    enter(&refused, "谢谢", "不客气");

    let chat = begun(Start::new(&["chat", "--greedy", "--template", "glm4"]));
    enter(&chat, "/system", "system none");
    enter(&chat, "/system Be brief.", "system Be brief.");
    enter(&chat, "/save talk.json", "written to talk.json");
    let saved = fs::read_to_string(chat.home().join("talk.json")).unwrap();
    assert!(saved.contains("Be brief.") && saved.contains("\"system\""), "{saved}");
    enter(&chat, "/clear", "the instructions stay");
    enter(&chat, "/show", "messages: 1;");
    enter(&chat, "/set system none", "system none");
    enter(&chat, "/load talk.json", "messages loaded from talk.json: 1");
    enter(&chat, "/system", "system Be brief.");
}

#[test]
fn a_question_is_removed_answered_again_or_changed() {
    let home = tempfile::tempdir().unwrap();
    let editor = home.path().join("editor");
    fs::write(&editor, "#!/bin/sh\ncp \"$2\" seen.txt\nprintf '%s\\n' \"$1\" >\"$2\"\n").unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
    let name = format!("{} 谢谢", editor.display());
    let start = Start::new(&["chat", "--greedy"]).home(home.path()).variable("EDITOR", &name);
    let chat = begun(start);
    enter(&chat, "/undo", "there is no question to remove");
    enter(&chat, "/regen", "there is no question yet");
    enter(&chat, "My name is Clara.", "Clara!");
    enter(&chat, "What is my name?", "Your name is Clara.");
    enter(&chat, "/regen", "Your name is Clara.");
    enter(&chat, "/edit", "> 谢谢\n不客气");
    assert_eq!(fs::read_to_string(home.path().join("seen.txt")).unwrap(), "What is my name?");
    enter(&chat, "/edit", "nothing was changed");
    enter(&chat, "/undo", "removed; the last question is now: My name is Clara.");
    enter(&chat, "/undo", "removed; this is the beginning");
    enter(&chat, "Hello!", "How can I help you?");
    enter(&chat, "/clear", "a new conversation");
    enter(&chat, "/show", "messages: 0;");
}

#[test]
fn an_editor_that_fails_changes_nothing() {
    let chat = begun(Start::new(&["chat", "--greedy"]).variable("VISUAL", "false"));
    enter(&chat, "谢谢", "不客气");
    enter(&chat, "/edit", "error: false: exit status: 1; nothing was changed");
    enter(&chat, "/show", "messages: 2;");
}

#[test]
fn ctrl_c_belongs_to_the_editor_while_it_runs() {
    let home = tempfile::tempdir().unwrap();
    let editor = home.path().join("editor");
    let script =
        "#!/bin/sh\nkill -INT $PPID\nsleep 0.1\nkill -INT $PPID\nsleep 0.1\necho 谢谢 >\"$1\"\n";
    fs::write(&editor, script).unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
    let name = editor.to_str().unwrap();
    let chat = begun(Start::new(&["chat", "--greedy"]).home(home.path()).variable("EDITOR", name));
    enter(&chat, "/edit", "> 谢谢\n不客气");
}

#[test]
fn statistics_follow_each_answer() {
    let chat = chat();
    enter(&chat, "/stats on", "stats on");
    enter(&chat, "谢谢", "0 kept, 0.0 s; answer: ");
    assert!(chat.screen().contains(" of 512"), "{}", chat.screen());
    enter(&chat, "/stats off", "stats off");
    enter(&chat, "Hello!", "How can I help you?");
    assert_eq!(chat.screen().matches("tokens/s").count(), 1);
}

#[test]
fn a_saved_conversation_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let start =
        |words: &[&str]| Start::new(&[&["chat", "--greedy"], words].concat()).home(home.path());
    let mut first = begun(start(&[]));
    enter(&first, "/save", "error: name a file: /save FILE");
    enter(&first, "My name is Clara.", "Clara!");
    enter(&first, "/save my talk.json", "written to my talk.json");
    enter(&first, "谢谢", "不客气");
    // The file of this conversation is replaced, others are not.
    enter(&first, "/save", "written to my talk.json");
    fs::write(home.path().join("other.json"), "[]").unwrap();
    enter(&first, "/save other.json", "error: other.json exists already: choose another name");
    first.send("/bye\r");
    assert_eq!(first.exit_code(), Some(0));

    for words in [&["--continue", "my talk.json"], &["--messages", "my talk.json"]] {
        let chat = begun(start(words));
        chat.wait_for("messages loaded from my talk.json: 4");
        enter(&chat, "What is my name?", "Your name is Clara.");
    }
    let chat = begun(start(&[]));
    enter(&chat, "/load nosuch.json", "error: nosuch.json: ");
    enter(&chat, "/load my talk.json", "messages loaded from my talk.json: 4");
    enter(&chat, "What is my name?", "Your name is Clara.");

    // A question without an answer is answered first.
    fs::write(home.path().join("asked.json"), r#"[{"role": "user", "content": "Hello!"}]"#)
        .unwrap();
    enter(&chat, "/load asked.json", "How can I help you?");
}

#[test]
fn chinese_users_read_chinese() {
    let chat = Start::new(&["chat", "--greedy"]).variable("LANG", "zh_CN.UTF-8").open();
    chat.wait_for("/help 列出命令");
    chat.send("/nosuch\r");
    chat.wait_for("/nosuch：没有这个命令");
    chat.send("/set top-p 3\r");
    chat.wait_for("错误：top-p 必须是 0 到 1 的数；实际是 3");
}
