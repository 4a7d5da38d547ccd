//! `glm serve`: its end.

#![cfg(all(unix, feature = "serve"))]

mod common;

use std::fs;
use std::time::Instant;

use common::causal::Family;
use common::server::{PATIENCE, Server, chat, rest};
use common::text;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

const CHAT: &str = "/v1/chat/completions";

fn long(copies: usize) -> Value {
    chat("你好", json!({ "ignore_eos": true, "n": copies, "seed": 1, "stream": true }))
}

#[test]
fn answers_in_progress_are_finished() {
    for signal in ["TERM", "INT", "HUP"] {
        // Plain Rust on a busy machine is slow.
        let server = Server::start(&["--grace", "600"]);
        let answer = server.begin(CHAT, &long(8), "data: ");
        server.signal(signal);
        server.wait_for("the signal", || server.log().contains("ending"));
        // A new request is refused while the old one goes on.
        if let Ok(mut stream) = std::net::TcpStream::connect(server.address()) {
            use std::io::{Read, Write};
            let _ = stream.write_all(server.request("GET", "/health", &[], "").as_bytes());
            let mut reply = String::new();
            let _ = stream.read_to_string(&mut reply);
            assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 503"), "{reply}");
        }
        let text = rest(answer);
        assert!(text.contains("[DONE]") && !text.contains("event: error"), "{signal}");
        assert_eq!(server.ended().0, Some(0));
    }
}

/// The blanks after the first are a part of the answer in progress. On a fast machine a signal may come too late; then it is sent again to
/// another server.
#[test]
fn a_text_to_fill_is_finished() {
    let text = "床前[MASK]光，疑是地上[MASK]。".repeat(8);
    let is_in_time = |_| {
        let server = Server::start(&["--threads", "1"]);
        std::thread::scope(|scope| {
            let fill = scope.spawn(|| server.post("/v1/fill", &json!({ "text": text, "seed": 4 })));
            let is_filling = || server.metric("glm_sequences_running") > 0.0 || fill.is_finished();
            server.wait_for("the first blank", is_filling);
            server.signal("TERM");
            let filled = fill.join().unwrap().ok();
            assert_eq!(filled["answers"].as_array().unwrap().len(), 16, "{filled}");
        });
        let (code, log) = server.ended();
        assert_eq!(code, Some(0), "{log}");
        let line = |words: &str| log.lines().position(|line| line.contains(words));
        line("ending").unwrap() < line("/v1/fill 200").unwrap()
    };
    assert!((0..50).any(is_in_time), "each signal came too late");
}

#[test]
fn answers_that_take_too_long_are_ended() {
    let server = Server::start(&["--grace", "0", "--threads", "1"]);
    let answer = server.begin(CHAT, &long(16), "data: ");
    server.signal("TERM");
    let text = rest(answer);
    assert!(text.contains("event: error") && text.contains("shutting down"), "{text}");
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn an_idle_server_ends_at_once() {
    let server = Server::start(&[]);
    // A connection that waits for its next request does not hold it up.
    let _idle = server.connect();
    server.signal("TERM");
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server = Server::start(&["--grace", "100"]);
    let answer = server.begin(CHAT, &long(16), "data: ");
    server.signal("TERM");
    server.wait_for("the signal", || server.log().contains("ending"));
    server.signal("TERM");
    assert_eq!(server.ended().0, Some(130));
    drop(answer);
}

/// A terminal that is closed sends SIGHUP twice.
#[test]
fn a_second_hangup_is_ignored() {
    let model = Family::ChatGlm3.folder();
    let files = TempDir::new().unwrap();
    let file = files.path().join("cache");
    let server = Server::of(&text(model.path()), &["--cache-file", &text(&file)], &[]);
    let mut asked = long(8);
    asked["max_tokens"] = json!(1000);
    let answer = server.begin(CHAT, &asked, "data: ");
    server.signal("HUP");
    server.wait_for("the signal", || server.log().contains("ending"));
    server.signal("HUP");
    let text = rest(answer);
    assert!(text.contains("[DONE]") && !text.contains("event: error"), "{text}");
    let (code, log) = server.ended();
    assert!(code == Some(0) && file.exists(), "{code:?} {log}");

    // SIGTERM still ends it.
    let server = Server::start(&["--grace", "100"]);
    let _answer = server.begin(CHAT, &long(16), "data: ");
    server.signal("HUP");
    server.wait_for("the signal", || server.log().contains("ending"));
    server.signal("TERM");
    assert_eq!(server.ended().0, Some(130));
}

#[test]
fn a_cache_that_cannot_be_saved_is_a_failure() {
    let model = Family::ChatGlm3.folder();
    let files = TempDir::new().unwrap();
    let file = text(&files.path().join("cache"));
    let server = Server::of(&text(model.path()), &["--cache-file", &file], &[]);
    server.chat("你好", json!({ "max_tokens": 1 })).ok();
    files.close().unwrap();
    server.signal("TERM");
    let (code, log) = server.ended();
    assert!(code == Some(1) && log.lines().last().unwrap().contains(&file), "{code:?} {log}");
}

/// The cache of a tiny model is saved in an instant, so that the second signal may come too late. The exit code says whether it has.
#[test]
fn a_second_signal_ends_the_saving_or_comes_too_late() {
    let model = Family::ChatGlm3.folder();
    let files = TempDir::new().unwrap();
    let file = files.path().join("cache");
    let start = || Server::of(&text(model.path()), &["--cache-file", &text(&file)], &[]);
    let prompt = "一二三四五六七八九十".repeat(250);
    let names = || {
        let names = fs::read_dir(files.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.collect::<Vec<_>>()
    };
    let server = start();
    server.chat("你好", json!({ "max_tokens": 1 })).ok();
    server.signal("TERM");
    assert_eq!(server.ended().0, Some(0));
    let good = fs::read(&file).unwrap();
    for _ in 0..5 {
        fs::write(&file, &good).unwrap();
        let server = start();
        server.chat(&prompt, json!({ "max_tokens": 1 })).ok();
        let id = Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        let begun = Instant::now();
        // Without a pause, which would be longer than the saving.
        while !server.log().contains("being saved") {
            assert!(begun.elapsed() < PATIENCE, "{}", server.log());
        }
        kill_process(id, Signal::TERM).unwrap();
        let (code, log) = server.ended();
        assert_eq!(names(), ["cache"], "{log}");
        match code {
            Some(130) => assert!(fs::read(&file).unwrap() == good, "{log}"),
            _ => assert!(code == Some(0) && fs::read(&file).unwrap() != good, "{code:?} {log}"),
        }
    }
}
