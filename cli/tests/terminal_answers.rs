//! `glm chat` in a pseudo-terminal while it answers: keys, signals, the width of the screen, a full context.
#![cfg(all(target_os = "linux", feature = "demo"))]

mod common;

use common::terminal::{SHELL, Start, Terminal};
use rustix::process::Signal;

/// A chat that is slow enough to be interrupted: plain Rust on one thread.
fn slow(flags: &[&str]) -> Start {
    let start = Start::new(&[&["chat", "--greedy", "-t", "1"], flags].concat());
    start.variable("GLM_ISA", "scalar")
}

/// A chat whose answers repeat a word until the context of 512 tokens is full, for some seconds.
fn endless() -> Start {
    slow(&["--draft", "off", "--repetition-penalty", "0.1"])
}

fn begun(start: Start) -> Terminal {
    let chat = start.open();
    chat.wait_for("\n> ");
    chat
}

/// A question of more than 400 tokens.
fn long_question() -> String {
    let numbers = (0..145).map(|n| format!(" {}", n * 37 % 97));
    format!("Sort:{}", numbers.collect::<String>())
}

#[test]
fn keys_during_an_answer_are_kept_for_the_prompt() {
    let chat = begun(endless());
    chat.send("What can you do?\r");
    chat.wait_for("can can can can");
    chat.send("zebra\x1b[D!");
    chat.wait_for("the context is full");
    chat.wait_for("> zebr!a");
    let screen = chat.screen();
    assert!(screen.matches("zebr").count() == 1 && !screen.contains("^["), "{screen}");
}

#[test]
fn the_first_ctrl_c_stops_an_answer_and_the_second_leaves() {
    let mut chat = begun(endless());
    chat.resize(60, 80);
    chat.send("What can you do?\r");
    chat.wait_for("can can can can");
    chat.send("\x03");
    chat.wait_for("[stopped; Ctrl-C again leaves]\n> ");
    assert!(!chat.screen().contains("^C"), "{}", chat.screen());
    // What was said stays in the conversation.
    chat.send("/show\r");
    chat.wait_until("the prompt", |screen| {
        screen.contains("messages: 2; context used: ") && screen.ends_with("\n> ")
    });
    // A command in between: the next Ctrl-C asks.
    chat.send("\x03");
    chat.wait_for("press Ctrl-C again");
    chat.send("/undo\r/set repetition-penalty 1\r谢谢\r");
    chat.wait_for("不客气");
    chat.send("/set repetition-penalty 0.1\rWhat can you do?\r");
    chat.wait_until("an answer", |screen| screen.matches("can can can can").count() > 1);
    chat.send("\x03");
    chat.wait_until("a stop", |screen| {
        screen.matches("[stopped").count() == 2 && screen.ends_with("\n> ")
    });
    chat.send("\x03");
    assert_eq!(chat.exit_code(), Some(0));
    assert!(chat.is_sane());
}

#[test]
fn the_second_ctrl_c_leaves_a_dumb_terminal() {
    let mut chat = begun(endless().variable("TERM", "dumb"));
    chat.send("What can you do?\n");
    chat.wait_for("can can can can");
    chat.send("\x03");
    chat.wait_until("a stop", |screen| {
        screen.contains("[stopped; Ctrl-C again leaves]") && screen.trim_end().ends_with("\n>")
    });
    chat.send("\x03");
    assert_eq!(chat.exit_code(), Some(130));
    assert!(chat.is_sane());
}

#[test]
fn ctrl_c_stops_the_reading_of_a_prompt() {
    let chat = begun(slow(&[]));
    chat.send(format!("{}\r", long_question()));
    chat.wait_for("reading the prompt, ");
    chat.send("\x03");
    chat.wait_for("[stopped; Ctrl-C again leaves]\n> ");
    assert!(!chat.screen().contains("reading the prompt"), "{}", chat.screen());
    chat.send("谢谢\r");
    chat.wait_for("不客气");
    chat.send("/show\r");
    chat.wait_for("messages: 2;");
}

#[test]
fn a_short_prompt_shows_no_progress() {
    let chat = begun(slow(&[]));
    chat.send("谢谢\r");
    chat.wait_for("不客气");
    assert!(!chat.written().contains("reading the prompt"));
}

#[test]
fn ctrl_z_while_answering_gives_the_shell_its_terminal() {
    let chat = begun(endless().in_shell());
    chat.send("What can you do?\r");
    chat.wait_for("can can can can");
    let modes = chat.modes().local_modes;
    assert!(!chat.is_sane());
    chat.send("\x1a");
    chat.wait_for(SHELL);
    assert!(chat.is_sane());
    chat.send("fg\n");
    chat.wait_for("the context is full");
    chat.wait_for("\n> ");
    chat.send("/clear\r/set repetition-penalty 1\r谢谢\r");
    chat.wait_for("不客气");
    assert!(!chat.screen().contains("^Z") && !modes.contains(rustix::termios::LocalModes::ECHO));
}

#[test]
fn signals_that_end_the_program_leave_the_terminal_as_it_was() {
    for signal in [Signal::TERM, Signal::HUP, Signal::QUIT] {
        let mut chat = begun(endless());
        chat.send("What can you do?\r");
        chat.wait_for("can can can can");
        chat.signal(signal);
        chat.exit_code();
        assert!(chat.is_sane(), "{signal:?}");
    }
    let mut prompt = begun(slow(&[]));
    prompt.signal(Signal::TERM);
    prompt.exit_code();
    assert!(prompt.is_sane());
}

#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let chat = begun(Start::new(&["chat", "--greedy"]).ignores_hangup());
    chat.signal(Signal::HUP);
    chat.send("谢谢\r");
    chat.wait_for("不客气");
}

#[test]
fn answers_are_wrapped_at_the_width_of_the_terminal() {
    let chat = begun(endless());
    chat.send("What can you do?\r");
    chat.wait_for("can can can can\n");
    chat.resize(24, 30);
    chat.wait_for("the context is full");
    let screen = chat.screen();
    // At the end only narrow lines are seen, and no word is split.
    let lines: Vec<_> = screen.lines().filter(|line| line.starts_with("can ")).collect();
    assert!(lines.len() > 10, "{screen}");
    for line in lines {
        assert!(line.len() <= 30 && line.split(' ').all(|word| word == "can"), "{screen}");
    }
}

#[test]
fn a_full_context_is_no_dead_end() {
    let chat = Start::new(&["chat", "--greedy", "--context", "80"]).size(40, 100).open();
    chat.wait_for("\n> ");
    chat.send("My name is Clara.\r");
    chat.wait_for("Clara!");
    chat.send(format!("{}\r", long_question()));
    chat.wait_for("error: ");
    chat.wait_for("/undo removes the last question, /clear");
    chat.send("What is my name?\r");
    chat.wait_for("Your name is Clara.");
    chat.send("/set context-overflow drop-oldest\r");
    chat.wait_for("context-overflow drop-oldest");
    chat.send("Hello!\rHello!\r");
    chat.wait_for("rounds dropped at its beginning: ");
    chat.send("/clear\r谢谢\r");
    chat.wait_for("不客气");
}

#[test]
fn the_end_of_the_tokens_is_said() {
    let chat = Start::new(&["chat", "--greedy", "--max-new-tokens", "2"]).open();
    chat.send("Hello!\r");
    chat.wait_for("[the answer ends here: 2 new tokens are the maximum]");
}

/// The editor of the prompt sets the modes of an answer at the same time.
#[test]
fn a_signal_right_after_a_question_leaves_the_terminal_as_it_was() {
    for milliseconds in 0..8 {
        let mut chat = begun(Start::new(&["chat", "--greedy"]));
        chat.send("谢谢\r");
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        chat.signal(Signal::TERM);
        assert_eq!(chat.exit_code(), None);
        assert!(chat.is_sane(), "after {milliseconds} ms");
    }
}
