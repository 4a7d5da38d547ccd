//! `glm serve`: its end.

#![cfg(all(unix, feature = "serve"))]

mod common;

use common::server::{Server, chat, rest};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn long(copies: usize) -> Value {
    chat("你好", json!({ "ignore_eos": true, "n": copies, "seed": 1, "stream": true }))
}

#[test]
fn answers_in_progress_are_finished() {
    for signal in ["TERM", "INT"] {
        let server = Server::start(&[]);
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

/// The blanks after the first are a part of the answer in progress.
#[test]
fn a_text_to_fill_is_finished() {
    let server = Server::start(&["--threads", "1"]);
    let text = "床前[MASK]光，疑是地上[MASK]。".repeat(8);
    std::thread::scope(|scope| {
        let fill = scope.spawn(|| server.post("/v1/fill", &json!({ "text": text, "seed": 4 })));
        server.wait_for("the first blank", || server.metric("glm_sequences_running") > 0.0);
        server.signal("TERM");
        server.wait_for("the signal", || server.log().contains("ending"));
        assert!(!fill.is_finished(), "the signal came too late");
        let filled = fill.join().unwrap().ok();
        assert_eq!(filled["answers"].as_array().unwrap().len(), 16, "{filled}");
    });
    assert_eq!(server.ended().0, Some(0));
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
