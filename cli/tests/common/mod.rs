//! Running `glm`, and where its models are.

#![allow(dead_code, reason = "each test file uses its part")]

#[cfg(unix)]
pub mod browser;
pub mod cache;
pub mod causal;
pub mod hub;
#[cfg(all(unix, feature = "serve"))]
pub mod page;
#[cfg(unix)]
pub mod pulling;
#[cfg(all(unix, feature = "serve"))]
pub mod server;
#[cfg(unix)]
pub mod terminal;

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

/// `glm` with these words, in English, and its stdin empty.
pub fn glm(words: &[&str]) -> Command {
    let mut command = Command::from_std(isolated(Path::new(env!("CARGO_TARGET_TMPDIR"))));
    command.args(words).env("LC_ALL", "C").write_stdin("");
    command
}

/// `glm` with an empty home in this folder: no models, settings or language of the developer.
pub fn isolated(folder: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_glm"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_setting =
            ["XDG_", "HF_", "LC_", "MODELSCOPE_"].iter().any(|start| name.starts_with(start));
        let is_setting = is_setting || name.to_lowercase().ends_with("_proxy");
        if is_setting || ["GLM_MODEL", "GLM_THREADS", "LANG"].contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    command.env("HOME", folder.join("home"));
    command
}

/// The JSON that a run that succeeds prints.
pub fn json(words: &[&str]) -> Value {
    let output = glm(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a run that must fail says; nothing is on its stdout.
pub fn refusal(words: &[&str], code: i32) -> String {
    let output = glm(words).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
    assert!(output.stdout.is_empty(), "{words:?}");
    let said = stderr(&output);
    assert!(said.contains("error: ") && !said.contains("panicked"), "{words:?}: {said}");
    said
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A tiny model of random weights without a tokenizer: `bin-f16` or `int4`.
pub fn tiny(variant: &str) -> String {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/models");
    text(&models.join("chatglm-6b-tiny").join(variant))
}

/// A fixture too large for the repository. Tests that use it are ignored unless asked for.
///
/// # Panics
/// If it is missing.
pub fn shared(path: &str) -> PathBuf {
    let root = std::env::var_os("GLM_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let path = root.join("fixtures").join(path);
    assert!(path.exists(), "this test needs the shared fixtures: {} is missing", path.display());
    path
}

/// The demonstration model as a folder: a small ChatGLM-6B with a tokenizer.
pub fn talker() -> String {
    text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/demo/int4"))
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
