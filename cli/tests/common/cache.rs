//! A home with a cache of models, as the tools of the Hugging Face hub and `glm pull --quantize` lay it out.

#![cfg(unix)]
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

use super::{isolated, stderr};

pub struct Home(TempDir);

impl Home {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn glm(&self, words: &[&str]) -> Command {
        let mut command = Command::from_std(isolated(self.path()));
        command.args(words).write_stdin("");
        command
    }

    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.glm(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What a run that must fail says; nothing is on its stdout.
    pub fn refusal(&self, words: &[&str], code: i32) -> String {
        let output = self.glm(words).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{words:?}");
        stderr(&output)
    }

    pub fn config(&self) -> PathBuf {
        self.path().join("home/.config/glm/config.toml")
    }

    pub fn hub(&self) -> PathBuf {
        self.path().join("home/.cache/huggingface/hub")
    }

    pub fn quantized(&self) -> PathBuf {
        self.path().join("home/.cache/huggingface/glm")
    }

    /// The folder of a repository in the hub's cache.
    pub fn repository(&self, repository: &str) -> PathBuf {
        self.hub().join(format!("models--{}", repository.replace('/', "--")))
    }

    /// Adds the files of a folder as a snapshot, each as a link to a blob that is called as its contents are.
    pub fn add_snapshot(&self, repository: &str, commit: &str, source: &Path) -> PathBuf {
        let repository = self.repository(repository);
        let snapshot = repository.join("snapshots").join(commit);
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        for entry in fs::read_dir(source).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                let name = entry.file_name().into_string().unwrap();
                let blob = format!("{name}-{}", entry.metadata().unwrap().len());
                fs::copy(entry.path(), repository.join("blobs").join(&blob)).unwrap();
                symlink(format!("../../blobs/{blob}"), snapshot.join(&name)).unwrap();
            }
        }
        snapshot
    }

    /// Lets a revision point to a commit.
    pub fn add_ref(&self, repository: &str, revision: &str, commit: &str) {
        let file = self.repository(repository).join("refs").join(revision);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, commit).unwrap();
    }

    /// Adds the files of a folder as a quantized model.
    pub fn add_quantized(&self, repository: &str, format: &str, source: &Path) -> PathBuf {
        let folder = self.quantized().join(self.repository(repository).file_name().unwrap());
        let folder = folder.join(format);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(source).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
            }
        }
        folder
    }
}

/// Makes a folder look as if it had changed this many hours ago.
pub fn age(folder: &Path, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    fs::File::open(folder).unwrap().set_modified(then).unwrap();
}
