//! Paths of the test data.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod adapter;
pub mod runner;

use std::path::{Path, PathBuf};
use std::{env, fs};

use tempfile::TempDir;

/// The directory of test data beside the repository, or the one that `GLM_SHARED` names. A fresh clone does not have it, so tests
/// that use it are `#[ignore]`; `.ci/run` runs them if the directory exists.
///
/// # Panics
/// If it does not exist.
pub fn shared() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = env::var_os("GLM_SHARED").map_or(beside, PathBuf::from);
    let fixtures = folder.join("fixtures");
    assert!(fixtures.is_dir(), "this test needs the shared fixtures: no folder {fixtures:?}");
    folder
}

/// A small model in the shared directory.
pub fn shared_model(name: &str) -> PathBuf {
    existing(shared().join("fixtures/models").join(name))
}

/// A small model in this repository.
pub fn fixture(name: &str) -> PathBuf {
    existing(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name))
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "this test needs {}, which is missing", path.display());
    path
}

/// The special ids of the original GLM come from the tokenizer, which the fixture does not have.
pub fn with_added_tokens(dir: &Path, tokens: String) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::write(copy.path().join("added_tokens.json"), tokens).unwrap();
    copy
}
