//! `glm chat` without a terminal: lines from a pipe, and conversations in files.
#![cfg(feature = "demo")]

mod common;

use std::fs;
use std::process::Output;

use common::{glm, json, refusal, stderr, stdout, text};
use serde_json::json;

fn chat(words: &[&str], input: impl Into<Vec<u8>>) -> Output {
    glm(&[&["chat", "--greedy"], words].concat()).write_stdin(input).output().unwrap()
}

#[test]
fn a_line_that_is_not_utf8_does_not_end_the_chat() {
    let run = chat(&[], b"Hello!\n\xffa\xfe\n\xff\nHello!\n".to_vec());
    assert!(run.status.success(), "{}", stderr(&run));
    let said = stdout(&run);
    let answers: Vec<_> = said.lines().collect();
    assert_eq!(answers[0], "Hello! How can I help you?");
    assert!(answers.len() >= 4, "{said}");
    assert_eq!(stderr(&run).matches("is not UTF-8").count(), 1);
    assert!(stderr(&run).contains("line 2 is not UTF-8"), "{}", stderr(&run));
}

#[test]
fn the_end_of_the_tokens_is_said() {
    let run = chat(&["--max-new-tokens", "2"], "Hello!\n");
    assert!(run.status.success());
    assert!(stderr(&run).contains("2 new tokens are the maximum"), "{}", stderr(&run));
    let run = glm(&["generate", "--greedy", "--max-new-tokens", "2", "-p", "Hello!"]).output();
    assert!(stderr(&run.unwrap()).contains("2 new tokens are the maximum"));
    assert!(!stderr(&chat(&[], "Hello!\n")).contains("maximum"));
}

#[test]
fn a_conversation_in_a_file_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = text(&dir.path().join("talk.json"));
    let said = json!([
        { "role": "user", "content": "My name is Clara." },
        { "role": "assistant", "content": "Nice to meet you, Clara!" },
    ]);
    fs::write(&path, said.to_string()).unwrap();
    for flag in ["--continue", "--messages"] {
        let run = chat(&[flag, &path], "What is my name?\n");
        assert!(run.status.success(), "{}", stderr(&run));
        assert_eq!(stdout(&run), "Your name is Clara.\n");
    }
    let said = refusal(&["chat", "--messages", &path], 1);
    assert!(said.contains("ends with an answer"), "{said}");
    // One answer as JSON needs a question.
    let said = refusal(&["chat", "--messages", &path, "--json"], 1);
    assert!(said.contains("ends with an answer") && said.contains("--continue"), "{said}");
    assert_eq!(
        glm(&["chat", "--continue", &path, "--messages", &path]).output().unwrap().status.code(),
        Some(2)
    );

    let asked = json!([{ "role": "user", "content": "Hello!" }]);
    fs::write(&path, asked.to_string()).unwrap();
    let answer = json(&["chat", "--greedy", "--messages", &path, "--json"]);
    assert_eq!(answer["text"], "Hello! How can I help you?");
    let run = chat(&["--continue", &path], "Hello!\n");
    assert_eq!(stdout(&run), "Hello! How can I help you?\n".repeat(2));
}

#[test]
fn a_full_context_is_explained() {
    let run = chat(&["--context", "30"], "What is the capital of France?\n".repeat(4));
    assert_eq!(run.status.code(), Some(1));
    let said = stderr(&run);
    assert!(said.contains("the context holds 30"), "{said}");
    assert!(said.contains("--context-overflow drop-oldest drops the oldest rounds"), "{said}");
}
