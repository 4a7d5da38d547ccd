//! Ctrl-C and closed pipes.

#![cfg(unix)]

mod common;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{isolated, talker, tiny};

fn start(words: &[&str]) -> Child {
    let mut command = isolated(Path::new(env!("CARGO_TARGET_TMPDIR")));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn interrupt(child: &Child) {
    let done = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
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
