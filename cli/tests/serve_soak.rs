//! `glm serve` before many clients that come and go at random.
//!
//! A short run has a hundred clients and checks what does not depend on the speed of the machine. `GLM_SOAK_SECONDS=600` makes it a long
//! run: a thousand clients for ten minutes, some of whom are refused, and memory that stays the same.

#![cfg(all(target_os = "linux", feature = "serve"))]

mod common;

use std::io::{BufRead, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::server::{Server, chat, parse};
use serde_json::{Value, json};

/// The least seconds of a long run.
const LONG: u64 = 600;
const CHAT: &str = "/v1/chat/completions";

/// Uniform numbers by a linear congruence: what matters is that the clients differ.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

fn question(seed: u64) -> Value {
    chat("你好", json!({ "seed": seed, "temperature": 1.5, "max_tokens": 16 }))
}

fn text(reply: &Value) -> String {
    reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
    left: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One connection: a whole answer, or one that is left somewhere.
fn come_and_go(server: &Server, random: &mut Random, expected: &[String], counts: &Counts) {
    let seed = random.below(expected.len() as u64);
    let mut body = question(seed);
    let streamed = random.below(2) == 0;
    body["stream"] = streamed.into();
    let request = server.request("POST", CHAT, &[], &body.to_string());
    let mut stream = server.connect();
    let sent = match random.below(8) {
        0 => random.below(request.len() as u64) as usize,
        _ => request.len(),
    };
    stream.write_all(&request.as_bytes()[..sent]).unwrap();
    if sent < request.len() || random.below(4) == 0 {
        // What has come by now may be nothing, the beginning, or the whole.
        std::thread::sleep(Duration::from_millis(random.below(300)));
        return Counts::add(&counts.left);
    }
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let reply = parse(&response);
    if reply.status == 429 {
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        return Counts::add(&counts.refused);
    }
    let answer = if streamed {
        let pieces = reply.events();
        let piece = |event: &Value| {
            event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
        };
        pieces.iter().map(piece).collect()
    } else {
        text(&reply.ok())
    };
    assert_eq!(answer, expected[seed as usize], "seed {seed}");
    Counts::add(&counts.answered);
}

/// Bytes of memory that the process has now.
fn memory(server: &Server) -> f64 {
    let status = std::fs::read(format!("/proc/{}/status", server.id())).unwrap();
    let lines = status.lines().map_while(Result::ok);
    let kilobytes = lines
        .filter_map(|line| line.strip_prefix("VmRSS:").map(|rest| rest.replace("kB", "")))
        .find_map(|number| number.trim().parse::<f64>().ok());
    kilobytes.unwrap() * 1024.0
}

/// Files that the process has open, connections among them.
fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.id())).unwrap().count()
}

#[test]
fn clients_come_and_go() {
    let seconds = std::env::var("GLM_SOAK_SECONDS").map_or(10, |text| text.parse().unwrap());
    let is_long = seconds >= LONG;
    let clients: u64 = if is_long { 1000 } else { 100 };
    let server = Server::start(&["--cache-memory", "0"]);
    let texts = || -> Vec<_> {
        (0..8).map(|seed| text(&server.post(CHAT, &question(seed)).ok())).collect()
    };
    let expected = texts();
    let files = open_files(&server);
    let counts = Counts::default();
    let begin = Instant::now();
    let span = Duration::from_secs(seconds);
    let mut measured = Vec::new();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (server, expected, counts) = (&server, &expected, &counts);
            let body = move || {
                let mut random = Random(client);
                // However slow the machine is, each client comes once.
                loop {
                    come_and_go(server, &mut random, expected, counts);
                    if begin.elapsed() >= span {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(random.below(2000)));
                }
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, body).unwrap();
        }
        for tenth in 1..=10 {
            std::thread::sleep(
                (begin + span * tenth / 10).saturating_duration_since(Instant::now()),
            );
            measured.push(memory(&server));
        }
    });
    // What the clients had is free again.
    server.wait_for("no sequence", || server.metric("glm_sequences_running") == 0.0);
    server.wait_for("no page", || server.metric("glm_kv_pages") == 0.0);
    server.wait_for("no connection", || open_files(&server) <= files);
    assert_eq!(texts(), expected);
    let [answered, refused, left] = [&counts.answered, &counts.refused, &counts.left]
        .map(|count| count.load(Ordering::Relaxed));
    let report =
        format!("{answered} answered, {refused} refused, {left} left; memory {measured:?}");
    println!("{report}");
    assert!(answered > 0 && left > 0, "{report}");
    if is_long {
        assert!(refused > 0, "{report}");
        // What has a limit reaches it in the first fifth: buffers, connections, pages.
        let settled = &measured[2..];
        let mean = settled.iter().sum::<f64>() / settled.len() as f64;
        assert!(settled.iter().all(|bytes| (bytes / mean - 1.0).abs() <= 0.02), "{report}");
    }
    let log = server.log();
    assert!(!log.contains("panic") && !log.contains(" 500: "), "{log}");
}
