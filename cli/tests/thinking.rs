//! Thoughts before an answer: whether there are any, and where they are shown.

#![allow(missing_docs)]

mod common;

use std::fs;

use common::causal::Family;
use common::{glm, json, refusal, stderr, stdout, text};
use serde_json::{Value, json};

/// Words that let a small model say something for 16 tokens, always the same.
const SHORT: [&str; 6] = ["--max-new-tokens", "16", "--temperature", "1", "--seed", "3"];

#[test]
fn thoughts_are_no_part_of_an_answer() {
    let folder = Family::Glm45.folder();
    let model = text(folder.path());
    let generate = |words: &[&str]| {
        let words = [&["generate", "-m", &model, "-p", "hi"], &SHORT[..], words].concat();
        (json(&[&words[..], &["--json"]].concat()), glm(&words).output().unwrap())
    };
    // The prompt begins the thoughts, and 16 tokens of noise do not end them.
    let (thought, output) = generate(&["--think", "on"]);
    assert_eq!(thought["text"], "");
    assert!(!thought["reasoning_content"].as_str().unwrap().is_empty(), "{thought}");
    assert_eq!(stdout(&output), "\n");
    assert!(!stderr(&output).contains("thought"), "{}", stderr(&output));
    // It ends them at once.
    let (said, output) = generate(&["--think", "off"]);
    assert!(said.get("reasoning_content").is_none(), "{said}");
    let text = said["text"].as_str().unwrap();
    assert!(!text.is_empty());
    assert_eq!(stdout(&output), format!("{text}\n"));
}

#[cfg(feature = "grammar")]
#[test]
fn an_answer_follows_thoughts() {
    let folder = Family::Glm45.folder();
    let model = text(folder.path());
    let grammar = folder.path().join("ok.lark");
    fs::write(&grammar, "start: \"ok\"").unwrap();
    let grammar = text(&grammar);
    let ended = (0..20).any(|seed: u32| {
        let seed = seed.to_string();
        let words = ["generate", "-m", &model, "-p", "hi", "--think", "on", "--json"];
        let more = ["--grammar", &grammar, "--temperature", "1", "--max-new-tokens", "1000"];
        let answer = json(&[&words[..], &more, &["--seed", &seed]].concat());
        if answer["finish"] != "stop" {
            return false;
        }
        assert_eq!(answer["text"], "ok", "{answer}");
        true
    });
    assert!(ended);
}

/// A chat whose question is in a file.
fn asked(folder: &std::path::Path, messages: &Value) -> String {
    let path = folder.join("talk.json");
    fs::write(&path, messages.to_string()).unwrap();
    text(&path)
}

#[test]
fn a_chat_is_told_whether_to_think() {
    let folder = Family::Glm45.folder();
    let model = text(folder.path());
    let talk = asked(folder.path(), &json!([{ "role": "user", "content": "hi" }]));
    let chat = |words: &[&str]| {
        let all =
            [&["chat", "-m", &model, "--messages", &talk, "--json"], &SHORT[..], words].concat();
        json(&all)
    };
    let prompt = |answer: &Value| answer["prompt_ids"].as_array().unwrap().clone();
    let (default, on, off) = (chat(&[]), chat(&["--think", "on"]), chat(&["--think", "off"]));
    let begin = prompt(&default);
    let after = |answer: &Value| prompt(answer)[begin.len()..].to_vec();
    let id = |name| json!(Family::Glm45.id(name));
    assert_eq!(after(&on), [json!(u32::from(b'\n')), id("<think>")]);
    assert_eq!(after(&off), [json!(u32::from(b'\n')), id("<think>"), id("</think>")]);
    assert!(on["reasoning_content"].is_string() && off.get("reasoning_content").is_none());
}

#[test]
fn what_a_model_cannot_do_is_refused() {
    let folder = Family::Glm4.folder();
    let model = text(folder.path());
    let words = ["generate", "-m", &model, "-p", "hi", "--max-new-tokens", "2", "--think"];
    let said = refusal(&[&words[..], &["on"]].concat(), 1);
    assert!(said.contains("cannot think") && said.contains("enable_thinking"), "{said}");
    // It does not think.
    assert!(glm(&[&words[..], &["off"]].concat()).output().unwrap().status.success());
    let said = refusal(&[&words[..], &["maybe"]].concat(), 2);
    assert!(said.contains("one of `on`, `off`"), "{said}");
    let chat = ["chat", "-m", &model, "--think", "on"];
    assert!(refusal(&chat, 1).contains("cannot think"));
}

#[test]
fn a_batch_thinks_where_its_requests_do_not_say() {
    let folder = Family::Glm45.folder();
    let model = text(folder.path());
    let line = |id: &str, more: Value| {
        let mut body = json!({ "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 8, "temperature": 1, "seed": 3 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body })
    };
    let off = json!({ "chat_template_kwargs": { "enable_thinking": false } });
    let keeps = json!({ "chat_template_kwargs": { "clear_thinking": false } });
    let lines =
        [line("a", json!({})), line("b", off), line("c", keeps)].map(|line| format!("{line}\n"));
    let input = folder.path().join("in.jsonl");
    fs::write(&input, lines.concat()).unwrap();
    let words =
        ["batch", "-m", &model, "--order", "--think", "on", &text(&input), "-"].map(str::to_owned);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let output = glm(&words).output().unwrap();
    let answers: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let body = |at: usize| &answers[at]["response"]["body"];
    let message = |at: usize| &body(at)["choices"][0]["message"];
    assert!(message(0)["reasoning_content"].is_string(), "{answers:?}");
    assert!(message(1).get("reasoning_content").is_none(), "{answers:?}");
    // Its template always leaves old thoughts out.
    assert_eq!(body(2)["error"]["param"], "chat_template_kwargs", "{answers:?}");
}

#[cfg(unix)]
mod terminal {
    use super::*;
    use common::terminal::Start;

    #[test]
    fn thoughts_are_folded_and_shown_again() {
        let folder = Family::Glm45.folder();
        let model = text(folder.path());
        let talk = asked(folder.path(), &json!([{ "role": "user", "content": "hi" }]));
        let words = ["chat", "-m", &model, "--think", "on", "--max-new-tokens", "100"];
        // Letters that a terminal shows as they are.
        let is_plain = |word: &&str| word.len() > 2 && word.chars().all(|c| c.is_ascii_graphic());
        let found = (0..50).find_map(|seed: u32| {
            let seeded = ["--temperature", "1", "--seed", &seed.to_string()].map(str::to_owned);
            let seeded: Vec<_> = seeded.iter().map(String::as_str).collect();
            let answer = json(&[&words[..], &seeded, &["--messages", &talk, "--json"]].concat());
            let thoughts = answer["reasoning_content"].as_str()?;
            // More than a row of the terminal.
            if thoughts.chars().count() < 50 {
                return None;
            }
            let word = thoughts.split(|c: char| !c.is_ascii_graphic()).find(is_plain)?;
            let seeded: Vec<_> = seeded.iter().map(ToString::to_string).collect();
            Some((seeded, word.to_owned()))
        });
        let (seeded, word) = found.expect("thoughts with letters");
        let (seeded, word): (Vec<_>, _) = (seeded.iter().map(String::as_str).collect(), &*word);
        let chat = Start::new(&[&words[..], &seeded].concat()).size(40, 44).open();
        chat.wait_for("\n> ");
        chat.send("hi\r");
        chat.wait_for("/thoughts shows it]");
        chat.wait_until("the prompt", |screen| screen.trim_end().ends_with("\n>"));
        let screen = chat.screen();
        assert!(screen.contains("> hi\n[thought for ") && !screen.contains(word), "{screen}");
        // They were seen before, in pieces and dimmed.
        let mut written = chat.written();
        assert!(written.contains("\x1b[2m"));
        for between in ["\x1b[2m", "\x1b[0m", "\r\n"] {
            written = written.replace(between, "");
        }
        assert!(written.contains(word), "{word}: {written:?}");
        chat.send("/thoughts\r");
        chat.wait_for(word);
        for (line, said) in [
            ("/think off", "think off"),
            ("/think", "think off"),
            ("/set think default", "think on"),
        ] {
            chat.send(format!("{line}\r"));
            chat.wait_until(said, |screen| {
                screen.rsplit_once(line).is_some_and(|(_, after)| after.contains(said))
            });
        }
    }

    #[test]
    fn a_chat_says_what_its_model_cannot_do() {
        let folder = Family::Glm4.folder();
        let chat =
            Start::new(&["chat", "-m", &text(folder.path()), "--greedy"]).size(40, 100).open();
        chat.wait_for("\n> ");
        chat.send("/think on\r");
        chat.wait_for("this model cannot think");
        chat.send("/thoughts\r");
        chat.wait_for("there were no thoughts");
    }
}
