//! Ctrl-C and closed pipes.

#![cfg(unix)]

mod common;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::causal::Family;
use common::{isolated, talker, text, tiny};

fn start(words: &[&str]) -> Child {
    let mut command = isolated(Path::new(env!("CARGO_TARGET_TMPDIR")));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn interrupt(child: &Child) {
    send(child, "-INT");
}

fn send(child: &Child, signal: &str) {
    let done = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(done.success());
}

#[test]
fn ctrl_c_stops_an_answer_with_130() {
    let model = talker();
    let mut child = start(&["generate", "-m", &model, "-p", "你好", "--ignore-eos", "--greedy"]);
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stopped"));
    assert_eq!(output.stdout.last(), Some(&b'\n'), "the line of what was said is ended");
}

#[test]
fn a_reader_that_goes_away_ends_the_answer_quietly() {
    let model = talker();
    let mut child = start(&["generate", "-m", &model, "-p", "你好", "--ignore-eos", "--greedy"]);
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stderr).contains("error"));
}

#[test]
fn help_and_version_succeed_and_wrong_usage_has_a_code_of_its_own() {
    for words in [&["--help"][..], &["chat", "--help"], &["--version"]] {
        assert!(start(words).wait().unwrap().success());
    }
    assert_eq!(start(&["quantize"]).wait().unwrap().code(), Some(2));
    assert!(start(&["info", "-m", &tiny("int4")]).wait().unwrap().success());
}

#[test]
fn no_signal_leaves_an_unfinished_file() {
    let (model, folder) = (Family::ChatGlm3.folder(), tempfile::tempdir().unwrap());
    let model = text(model.path());
    let [input, out] = ["text.txt", "out"].map(|name| text(&folder.path().join(name)));
    // Long enough to be signalled.
    fs::write(&input, "hello ".repeat(100_000)).unwrap();
    let ids = format!("{:?}", vec![5; 8000]);
    let files = || fs::read_dir(folder.path()).unwrap().count();
    let common = ["-m", &model, "--threads", "1"];
    let perplexity = ["--window", "2000", "--save-logits", &out, &input];
    for words in [
        [&["perplexity"], &common[..], &perplexity].concat(),
        [&["logits"], &common[..], &["--ids", &ids, "--out", &out]].concat(),
    ] {
        for signal in ["-INT", "-TERM"] {
            let signalled = || {
                let mut child = start(&words);
                let end = Instant::now() + Duration::from_secs(60);
                while files() == 1 {
                    let is_running = child.try_wait().unwrap().is_none();
                    assert!(Instant::now() < end && is_running, "{words:?}");
                    thread::sleep(Duration::from_millis(1));
                }
                send(&child, signal);
                child.wait_with_output().unwrap()
            };
            let mut output = signalled();
            // On a busy machine, it may end before it is signalled.
            for _ in 0..5 {
                if output.status.success() {
                    fs::remove_file(&out).unwrap();
                    output = signalled();
                }
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(130), "{} {signal}: {said}", words[0]);
            assert_eq!(files(), 1, "{} {signal}", words[0]);
        }
    }
}
