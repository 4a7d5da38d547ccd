//! `glm quantize --calibrate`: its texts, what it refuses, and what remains of a run that was stopped.
#![cfg(unix)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{glm, isolated, json, refusal, stderr, talker, text, tiny};
use serde_json::Value;

/// The demonstration model in half precision.
fn source() -> String {
    text(&Path::new(&talker()).join("../f16"))
}

/// Conversations that the demonstration model could have.
const CONVERSATION: &str = r#"[{"role":"user","content":"你好"},{"role":"assistant","content":"你好，我是一个小型演示模型。"}]"#;

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    text(&path)
}

/// Calibrates with at most 64 tokens, and returns what `glm info` says about it.
fn calibrated(folder: &Path, name: &str, calibrate: &str) -> Value {
    let target = text(&folder.join(name));
    let words = ["quantize", &source(), &target, calibrate, "--calibration-tokens", "64"];
    let output = glm(&words).output().unwrap();
    assert!(output.status.success(), "{calibrate}: {}", stderr(&output));
    assert!(output.stdout.is_empty());
    let said = stderr(&output);
    let info = json(&["info", "-m", &target, "--json"])["calibration"].take();
    assert!(said.contains(&format!("calibrating with {} tokens", info["tokens"])), "{said}");
    assert!(said.contains("INT4 with a minimum, in groups of 64"), "{said}");
    info
}

#[test]
fn the_texts_are_a_file_conversations_or_those_of_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    // Fewer tokens than a part of a text has.
    let few = write(folder, "few.txt", "床前明月光，疑是地上霜。");
    let one = write(folder, "one.json", CONVERSATION);
    let lines = write(folder, "two.jsonl", format!("{CONVERSATION}\n\n{CONVERSATION}\n"));
    let own = calibrated(folder, "own", "--calibrate");
    let few = calibrated(folder, "few", &format!("--calibrate={few}"));
    let one = calibrated(folder, "one", &format!("--calibrate={one}"));
    let two = calibrated(folder, "two", &format!("--calibrate={lines}"));
    let tokens = |info: &Value| info["tokens"].as_u64().unwrap();
    // The text of the program is longer; a prompt has a few tokens of its own around it.
    assert!((64..72).contains(&tokens(&own)) && tokens(&few) < 32, "{own} {few}");
    assert!(tokens(&one) > 8 && tokens(&two) == 2 * tokens(&one), "{one} {two}");
    let hash = |info: &Value| info["sha256"].as_str().unwrap().to_owned();
    assert!(hash(&own).len() == 64 && hash(&own) != hash(&few) && hash(&one) != hash(&two));
    assert_eq!(own["method"], "gptq-1");

    let output = glm(&["info", "-m", &text(&folder.join("own"))]).output().unwrap();
    let shown = format!("gptq-1 with {} tokens, SHA-256 {}...", own["tokens"], &hash(&own)[..12]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(&shown), "{shown}");
    assert!(json(&["info", "-m", &source(), "--json"])["calibration"].is_null());
}

#[test]
fn texts_that_cannot_be_used_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let target = text(&folder.join("target"));
    let refuse = |source: &str, words: &[&str], code: i32| {
        let said = refusal(&[&["quantize", source, &target][..], words].concat(), code);
        assert!(!Path::new(&target).exists(), "{words:?}");
        said
    };
    for (name, content, expected) in [
        ("empty.txt", &b""[..], "at least 2 tokens"),
        ("latin1.txt", b"caf\xe9 au lait", "UTF-8"),
        ("object.json", br#"{"role":"user"}"#, "object.json"),
        ("half.json", br#"[{"role":"user","content":"a"}"#, "half.json"),
        ("line.jsonl", b"\n[{\"role\":\"user\"}]\n", "line.jsonl:2"),
        ("none.jsonl", b"", "no conversation has an answer"),
        ("asked.json", br#"[{"role":"user","content":"a"}]"#, "no conversation has an answer"),
    ] {
        let path = write(folder, name, content);
        let said = refuse(&source(), &[&format!("--calibrate={path}")], 1);
        assert!(said.contains(expected) && said.contains(name), "{name}: {said}");
    }
    let missing = format!("--calibrate={}", text(&folder.join("missing.txt")));
    assert!(refuse(&source(), &[&missing], 1).contains("missing.txt"));
    refuse(&source(), &["--calibrate", "--calibration-tokens", "0"], 2);
    refuse(&source(), &["--calibration-tokens", "64"], 2);
    assert!(refuse(&talker(), &["--calibrate"], 1).contains("kernels' layout already"));
    assert!(refuse(&tiny("bin-f16"), &["--calibrate"], 1).contains("tokenizer"));
}

/// A run that calibrates with much text.
struct Run {
    home: PathBuf,
    target: PathBuf,
}

impl Run {
    const TOKENS: &str = "2048";

    fn start(&self) -> Child {
        let mut command = isolated(&self.home);
        command.args(["quantize", &source(), &text(&self.target), "--calibrate"]);
        command.args(["--calibration-tokens", Self::TOKENS]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// What is written, if the run has begun.
    fn journal(&self) -> Option<Vec<u8>> {
        fs::read(self.target.with_added_extension("quantize.part").join("journal.json")).ok()
    }

    /// Waits until a matrix more is written than `before`.
    fn wait_for_work(&self, child: &mut Child, before: &Option<Vec<u8>>) {
        let started = Instant::now();
        while self.journal() == *before {
            assert!(started.elapsed() < Duration::from_secs(120), "nothing is written");
            assert!(child.try_wait().unwrap().is_none(), "it has ended already");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_run_that_was_stopped_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let run = |name: &str| Run { home: folder.to_owned(), target: folder.join(name) };
    let whole = run("whole");
    assert!(whole.start().wait().unwrap().success());

    let stopped = run("stopped");
    let target = text(&stopped.target);
    for signal in ["-INT", "-TERM"] {
        let before = stopped.journal();
        let mut child = stopped.start();
        stopped.wait_for_work(&mut child, &before);
        // Another process may not write to the folder meanwhile.
        let words = ["quantize", &source(), &target, "--calibrate"];
        let said = refusal(&[&words[..], &["--calibration-tokens", Run::TOKENS]].concat(), 1);
        assert!(said.contains("is being written by another process"), "{said}");
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{signal}: {}", stderr(&output));
        assert!(stderr(&output).contains("the same command goes on"), "{}", stderr(&output));
        assert!(!stopped.target.exists());
    }
    // What was begun is of these texts.
    let words = ["quantize", &source(), &target, "--calibrate", "--calibration-tokens", "512"];
    let said = refusal(&words, 1);
    assert!(said.contains("was begun for another model or other options"), "{said}");
    let said = refusal(&["quantize", &source(), &target], 1);
    assert!(said.contains("holds a calibration that is not finished"), "{said}");

    let output = stopped.start().wait_with_output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{}", stderr(&output));
    let file = |run: &Run| fs::read(run.target.join("model.safetensors")).unwrap();
    assert!(file(&stopped) == file(&whole), "the bytes");
    let names = |run: &Run| {
        let entries = fs::read_dir(&run.target).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.collect();
        names.sort();
        names
    };
    assert_eq!(names(&stopped), names(&whole));
}
