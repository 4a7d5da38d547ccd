//! `glm serve` and clients that are too many, too large, or gone. Slow ones are in `serve_slow.rs`.

#![cfg(all(unix, feature = "serve"))]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::server::{PATIENCE, Server, chat, parse, rest};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// An answer that takes all of the context, in as many copies.
fn long(copies: usize) -> Value {
    chat("你好", json!({ "ignore_eos": true, "n": copies, "seed": 1, "stream": true }))
}

#[test]
fn a_full_queue_refuses_with_429() {
    let server = Server::start(&["--max-sequences", "4", "--queue", "0"]);
    let first = server.begin(CHAT, &long(4), "data: ");
    let refused = server.chat("你好", json!({}));
    let error = refused.error(429);
    assert_eq!(error["code"], "queue_full");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    assert!(rest(first).contains("[DONE]"));
    server.wait_for("a place", || server.chat("你好", json!({ "max_tokens": 1 })).status == 200);
}

/// A user has taken all places, and half of them are for a request that waits.
#[test]
fn what_waits_gives_way_to_a_client_with_fewer_places() {
    let server = Server::start(&["--max-sequences", "4", "--queue", "4"]);
    let greedy = |is_streamed: bool| {
        let mut body = long(4);
        (body["user"], body["stream"]) = (json!("greedy"), json!(is_streamed));
        body
    };
    let first = server.begin(CHAT, &greedy(true), "data: ");
    std::thread::scope(|scope| {
        let second = scope.spawn(|| server.post(CHAT, &greedy(false)));
        server.wait_for("a request that waits", || server.metric("glm_sequences_waiting") > 0.0);
        server.chat("你好", json!({ "max_tokens": 1, "user": "modest" })).ok();
        let refused = second.join().unwrap();
        assert_eq!(refused.error(429)["code"], "queue_full");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    });
    assert!(rest(first).contains("[DONE]"));
    server.wait_for("the places", || {
        server.chat("你好", json!({ "max_tokens": 1, "n": 4 })).status == 200
    });
}

/// Others ask for the only place all the time, also between two blanks.
#[test]
fn a_text_to_fill_keeps_its_place() {
    let server = Server::start(&["--max-sequences", "1", "--queue", "0"]);
    let (refused, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let text = "床前[MASK]光，疑是地上[MASK]。".repeat(8);
    std::thread::scope(|scope| {
        for number in 0..3 {
            let (server, refused, is_over) = (&server, &refused, &is_over);
            scope.spawn(move || {
                let fields = json!({ "max_tokens": 1, "user": number.to_string() });
                while !is_over.load(Ordering::Relaxed) {
                    let reply = server.chat("你好", fields.clone());
                    refused.fetch_add(usize::from(reply.status == 429), Ordering::Relaxed);
                }
            });
        }
        // The text is filled again until one of them was refused meanwhile.
        let fill = || {
            let before = refused.load(Ordering::Relaxed);
            let reply = server.post("/v1/fill", &json!({ "text": text, "seed": 4 }));
            // The others may have the place when it comes.
            if reply.status == 429 {
                return false;
            }
            let filled = reply.ok();
            assert_eq!(filled["answers"].as_array().unwrap().len(), 16, "{filled}");
            refused.load(Ordering::Relaxed) > before
        };
        let filled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            server.wait_for("a request beside the text", fill);
        }));
        is_over.store(true, Ordering::Relaxed);
        filled.unwrap();
    });
}

#[test]
fn what_waits_is_answered_later() {
    let server = Server::start(&["--max-sequences", "1", "--queue", "8"]);
    let ask = || {
        server.chat("你好", json!({ "temperature": 0 })).ok()["choices"][0]["message"]["content"]
            .clone()
    };
    let expected = ask();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), expected));
    });
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let server = Server::start(&["--max-sequences", "8", "--queue", "0", "--cache-memory", "0"]);
    let before = server.metric("glm_answer_tokens_total");
    let first = server.begin(CHAT, &long(8), "data: ");
    drop(first);
    server.wait_for("a place", || {
        server.chat("你好", json!({ "max_tokens": 1, "n": 8 })).status == 200
    });
    let tokens = server.metric("glm_answer_tokens_total") - before;
    assert!(tokens < 8.0 * 400.0, "{tokens} tokens were generated for nobody");
    server.wait_for("no sequence", || server.metric("glm_sequences_running") == 0.0);
    assert_eq!(server.metric("glm_kv_pages"), 0.0);
    // It is known in the log, with the tokens so far.
    server.wait_for("a line", || server.log().contains("200: prompt"));
    // So is one that waits for a whole answer.
    let mut body = long(8);
    body["stream"] = json!(false);
    let mut stream = server.connect();
    stream.write_all(server.request("POST", CHAT, &[], &body.to_string()).as_bytes()).unwrap();
    server.wait_for("pages", || server.metric("glm_kv_pages") > 0.0);
    drop(stream);
    server.wait_for("no page", || server.metric("glm_kv_pages") == 0.0);
    assert_eq!(server.metric("glm_sequences_running"), 0.0);
    server.wait_for("a line", || server.log().contains("499"));
}

#[test]
fn malformed_requests_are_answered_or_closed() {
    let server = Server::start(&[]);
    for body in ["", "{", "[]", "\"", "{\"messages\": [}", "nonsense", "{\"messages\": []} x"] {
        server.send("POST", CHAT, &[], body).error(400);
    }
    let deep = format!("{{\"messages\": {}", "[".repeat(100_000));
    server.send("POST", CHAT, &[], &deep).error(400);
    let closed = format!("{{\"messages\": {}{}}}", "[".repeat(5000), "]".repeat(5000));
    server.send("POST", CHAT, &[], &closed).error(400);
    // Half of a character of two.
    for text in ["\\ud83d", "\\ude00\\ud83d", "\\ud83dx"] {
        server.send("POST", "/tokenize", &[], &format!("{{\"text\": \"{text}\"}}")).error(400);
    }
    for text in ["\\ud83d\\ude00", "\\u0000", "\\u0000\\uffff你"] {
        let body = format!("{{\"text\": \"{text}\"}}");
        assert!(server.send("POST", "/tokenize", &[], &body).ok()["count"].as_u64() > Some(0));
    }
    server.chat("a\0b", json!({ "max_tokens": 2 })).ok();
    let invalid = [&b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 12\r\n\r\n{\"text\":\"\xff\"}"[..]];
    for bytes in invalid {
        let answer = server.raw(bytes);
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    for bytes in [
        &b"\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n",
    ] {
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn large_requests_are_refused() {
    let server = Server::start(&[]);
    // A mebibyte, and 16 bytes for each of the 512 tokens of the context.
    let of_bytes = |bytes: usize| " ".repeat(bytes - 13) + r#"{"text": "x"}"#;
    let most = (1 << 20) + 16 * 512;
    server.send("POST", "/tokenize", &[], &of_bytes(most)).ok();
    let refused = server.send("POST", "/tokenize", &[], &of_bytes(most + 1)).error(413);
    assert!(refused["message"].as_str().unwrap().contains(&most.to_string()), "{refused}");
    // Chunks have no length that is known before.
    let mut request = b"POST /tokenize HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..40 {
        request.extend_from_slice(b"10000\r\n");
        request.extend_from_slice(&vec![b' '; 0x10000]);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = server.raw(&request);
    assert!(answer.is_empty() || parse(&answer).status == 413, "{answer}");
    let long = "x".repeat(200_000);
    let answer = server.raw(server.request("GET", "/health", &[("x-long", &long)], "").as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many: Vec<_> = (0..300).map(|index| format!("x-{index}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "1")).collect();
    let answer = server.raw(server.request("GET", "/health", &many, "").as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_body_of_100_megabytes_is_not_stored() {
    let server = Server::start(&[]);
    let before = server.most_memory();
    let length = 100 << 20;
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut stream = server.connect();
    stream.write_all(head.as_bytes()).unwrap();
    let (mut sent, piece) = (0, vec![b' '; 1 << 16]);
    while sent < length && stream.write_all(&piece).is_ok() {
        sent += piece.len();
    }
    assert!(sent < length, "the server has read all of it");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.is_empty() || parse(&answer).status == 413, "{answer}");
    if let (Some(before), Some(after)) = (before, server.most_memory()) {
        assert!(after - before < 20 << 20, "{} bytes", after - before);
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_connection_above_the_limit_waits() {
    const CONNECTIONS: usize = 512;
    let server = Server::start(&["--client-timeout", "600"]);
    let ask = |stream: &mut TcpStream| {
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    };
    let answer = |stream: &mut TcpStream| {
        let mut bytes = [0; 12];
        stream.read_exact(&mut bytes).map(|()| assert_eq!(&bytes, b"HTTP/1.1 200"))
    };
    let mut streams: Vec<_> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    for stream in &mut streams {
        ask(stream);
        answer(stream).unwrap();
    }
    let mut next = server.connect();
    ask(&mut next);
    next.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(answer(&mut next).is_err(), "it is answered beside {CONNECTIONS} others");
    streams.pop();
    next.set_read_timeout(Some(PATIENCE)).unwrap();
    answer(&mut next).unwrap();
}
