//! `glm chat` in a pseudo-terminal.
#![cfg(all(unix, feature = "demo"))]

mod common;

use common::terminal::{Start, Terminal};

/// A chat with the bundled model whose answers are always the same.
fn chat() -> Terminal {
    let terminal = Start::new(&["chat", "--greedy"]).open();
    terminal.wait_for("\n> ");
    terminal
}

#[test]
fn a_question_is_answered_and_ctrl_d_leaves() {
    let mut chat = chat();
    chat.send("你好\r");
    chat.wait_for("你好！有什么可以帮你的吗？\n");
    chat.send("\x04");
    assert_eq!(chat.exit_code(), Some(0));
    assert!(chat.is_sane());
}
