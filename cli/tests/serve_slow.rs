//! `glm serve` and clients that are slow: whatever they do, their time ends.

#![cfg(all(unix, feature = "serve"))]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::server::{Server, chat, parse, rest};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// All of the context, in as many copies.
fn long(copies: usize) -> Value {
    chat("你好", json!({ "ignore_eos": true, "n": copies, "seed": 1, "stream": true }))
}

/// A stream of many megabytes: random tokens, with the probabilities of others.
fn large() -> Value {
    let fields = json!({
        "ignore_eos": true, "n": 16, "seed": 1, "stream": true, "temperature": 5, "top_p": 1, "top_k": 0, "logprobs": true,
        "top_logprobs": 20,
    });
    chat("你好", fields)
}

#[test]
fn a_request_has_a_time() {
    // Hundreds of thousands of tokens: no machine generates them in two seconds.
    let server =
        Server::start(&["--request-timeout", "2", "--threads", "1", "--max-sequences", "512"]);
    let mut whole = long(512);
    whole["stream"] = json!(false);
    let started = Instant::now();
    let reply = server.post(CHAT, &whole);
    assert_eq!(reply.error(504)["code"], "timeout");
    assert!(started.elapsed() >= Duration::from_secs(2));
    server.wait_for("no sequence", || server.metric("glm_sequences_running") == 0.0);
    let text = rest(server.begin(CHAT, &long(512), "data: "));
    assert!(text.contains("event: error") && text.contains("\"timeout\""), "{text}");
    assert!(!text.contains("[DONE]"));
    // Its places are free again.
    server.wait_for("no sequence", || server.metric("glm_sequences_running") == 0.0);
    server.chat("你好", json!({ "max_tokens": 1 })).ok();
}

/// Writes a byte each time, and reads what the server answers before it closes the connection.
fn dribble(mut stream: TcpStream, bytes: &[u8]) -> (String, Duration) {
    let started = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
    for byte in bytes.iter().chain(std::iter::repeat(&b' ')) {
        assert!(started.elapsed() < Duration::from_secs(30), "it is not dropped");
        let is_open = stream.write_all(&[*byte]).is_ok();
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(_) if is_open => {}
            Err(_) => break,
        }
    }
    (String::from_utf8(answer).unwrap(), started.elapsed())
}

#[test]
fn slow_writers_are_dropped() {
    let server = Server::start(&["--client-timeout", "1"]);
    let second = Duration::from_secs(1);
    let (answer, time) =
        dribble(server.connect(), b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\n");
    assert!(!answer.starts_with("HTTP/1.1 2") && time >= second, "{answer} {time:?}");
    let mut stream = server.connect();
    let head = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let (answer, time) = dribble(stream, b"{");
    parse(&answer).error(408);
    assert!(time >= second, "{time:?}");
    // One that says nothing, and one that says nothing more.
    let mut silent = server.connect();
    let mut idle = server.connect();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let (mut nothing, mut answer) = (Vec::new(), String::new());
    let _ = silent.read_to_end(&mut nothing);
    idle.read_to_string(&mut answer).unwrap();
    assert!(nothing.is_empty() || !nothing.starts_with(b"HTTP/1.1 2"));
    assert_eq!(parse(&answer).status, 200);
}

#[test]
fn a_client_that_reads_nothing_is_dropped() {
    let server = Server::start(&["--client-timeout", "1"]);
    let unread = server.begin(CHAT, &large(), "data: ");
    // The line in the log comes with the end of the response, most of which nobody has taken.
    server.wait_for("a line", || server.log().contains(&format!("POST {CHAT} 200: prompt")));
    server.wait_for("no sequence", || server.metric("glm_sequences_running") == 0.0);
    assert!(!rest_of(unread).contains("[DONE]"));
}

/// What can be read of a connection that may have been reset.
fn rest_of(mut reader: impl Read) -> String {
    let mut rest = Vec::new();
    let _ = reader.read_to_end(&mut rest);
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn a_client_that_reads_slowly_has_a_time() {
    let server = Server::start(&["--request-timeout", "3", "--client-timeout", "1"]);
    let started = Instant::now();
    let mut reader = server.begin(CHAT, &large(), "data: ");
    // Fast enough for the limit of speed, but all of it would take a minute and more.
    let (mut buffer, mut last) = (vec![0; 16 << 10], Vec::new());
    while let Ok(length @ 1..) = reader.read(&mut buffer) {
        last = buffer[..length].to_vec();
        assert!(started.elapsed() < Duration::from_secs(20), "it is not dropped");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!String::from_utf8_lossy(&last).contains("[DONE]"));
    server.wait_for("no sequence", || server.metric("glm_sequences_running") == 0.0);
}
