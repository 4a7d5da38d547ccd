//! Model files that are changed while they are in use, and `--no-mmap`.

#![cfg(any(target_os = "linux", target_os = "macos"))]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{glm, isolated, stderr, stdout, talker, text};
use tempfile::TempDir;

/// A copy of the demonstration model, whose matrices are all read in the mapped file, and its weights.
fn model() -> (TempDir, String, PathBuf) {
    let dir = TempDir::new().unwrap();
    for entry in fs::read_dir(talker()).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let (folder, weights) = (text(dir.path()), dir.path().join("model.safetensors"));
    (dir, folder, weights)
}

fn cut(weights: &Path) {
    File::options().write(true).open(weights).unwrap().set_len(4096).unwrap();
}

fn start(words: &[&str]) -> Child {
    let mut command = isolated(Path::new(env!("CARGO_TARGET_TMPDIR")));
    command.args(words).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

const SAID: &str = "model.safetensors: was cut off while it was in use";

#[test]
fn an_answer_ends_with_an_error_when_the_file_is_cut() {
    let (_dir, folder, weights) = model();
    let words = ["generate", "-m", &folder, "-p", "你好", "--ignore-eos", "--greedy"];
    let mut child = start(&words);
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    cut(&weights);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains(SAID), "{}", stderr(&output));
}

#[test]
fn weights_in_memory_do_not_change() {
    let (_dir, folder, weights) = model();
    let words = ["-m", &folder, "--greedy", "--threads", "1"];
    let mapped = glm(&[&["generate", "-p", "Hello!"][..], &words].concat()).output().unwrap();
    assert!(mapped.status.success(), "{}", stderr(&mapped));
    for no_mmap in [true, false] {
        let flags = if no_mmap { &["--no-mmap"][..] } else { &[] };
        let mut child = start(&[&["chat"][..], &words, flags].concat());
        let mut input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        input.write_all(b"Hello!\n").unwrap();
        let mut first = String::new();
        answers.read_line(&mut first).unwrap();
        assert_eq!(first, stdout(&mapped));
        cut(&weights);
        input.write_all(b"What is your name?\n").unwrap();
        drop(input);
        let mut second = String::new();
        answers.read_line(&mut second).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.success(), no_mmap, "{said}");
        assert_eq!(said.contains(SAID), !no_mmap, "{said}");
        assert_eq!(second.trim().is_empty(), !no_mmap, "{second}");
        fs::copy(Path::new(&talker()).join("model.safetensors"), &weights).unwrap();
    }
}

#[cfg(feature = "serve")]
#[test]
fn a_server_survives_and_says_so() {
    use common::server::{Server, chat};
    use serde_json::json;
    const CHAT: &str = "/v1/chat/completions";
    let (_dir, folder, weights) = model();
    let question = chat("Hello!", json!({ "temperature": 0 }));
    let of = |reply: &serde_json::Value| reply["choices"][0]["message"]["content"].clone();
    let servers = [&["--no-mmap"][..], &[]].map(|flags| Server::of(&folder, flags, &[]));
    let [copied, mapped] = &servers;
    let expected = of(&mapped.post(CHAT, &question).ok());
    assert_eq!(of(&copied.post(CHAT, &question).ok()), expected);
    cut(&weights);
    for _ in 0..2 {
        let error = mapped.post(CHAT, &question).error(500);
        assert_eq!(error["code"], "file_changed");
        let said = error["message"].as_str().unwrap();
        assert!(said.starts_with(SAID), "the client is told no folder: {said}");
        assert_eq!(of(&copied.post(CHAT, &question).ok()), expected);
    }
    let health = mapped.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("model_changed")));
    assert_eq!(copied.get("/health").status, 200);
    assert_eq!(mapped.log().matches(&text(&weights)).count(), 1, "{}", mapped.log());
    for server in servers {
        server.signal("TERM");
        assert_eq!(server.ended().0, Some(0));
    }
}

#[test]
fn a_batch_stops_and_goes_on() {
    let (dir, folder, weights) = model();
    let [input, output] = ["in.jsonl", "out.jsonl"].map(|name| text(&dir.path().join(name)));
    let lines = (0..40).map(|id| {
        let body = serde_json::json!({
            "messages": [{ "role": "user", "content": "你好" }], "max_tokens": 200, "ignore_eos": true, "seed": id,
        });
        let request = serde_json::json!({
            "custom_id": format!("{id}"), "method": "POST", "url": "/v1/chat/completions", "body": body,
        });
        format!("{request}\n")
    });
    fs::write(&input, lines.collect::<String>()).unwrap();
    let words = ["batch", "-m", &folder, &input, &output, "--max-sequences", "1"];
    let mut child = start(&words);
    let whole = fs::read(&weights).unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    while fs::read_to_string(&output).map_or(0, |done| done.lines().count()) == 0 {
        assert!(Instant::now() < end, "no answer is written");
        assert!(child.try_wait().unwrap().is_none(), "the answers were not written one by one");
        std::thread::sleep(Duration::from_millis(2));
    }
    cut(&weights);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    assert!(stderr(&ended).contains(SAID), "{}", stderr(&ended));
    let done = fs::read_to_string(&output).unwrap();
    assert!((1..40).contains(&done.lines().count()), "{done}");
    assert!(!done.contains("file_changed"), "{done}");
    fs::write(&weights, whole).unwrap();
    let goes_on = start(&words).wait_with_output().unwrap();
    assert_eq!(goes_on.status.code(), Some(0), "{}", stderr(&goes_on));
    assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 40);
}
