//! Where the test data is.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod runner;

use std::path::{Path, PathBuf};
use std::{env, fs};

use tempfile::TempDir;

/// The folder of test data beside the repository, or the one that `GLM_SHARED` names. A fresh clone lacks it: tests that use it
/// are ignored unless asked for, as `.ci/run` does where the folder exists.
///
/// # Panics
/// If there is no such folder.
pub fn shared() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = env::var_os("GLM_SHARED").map_or(beside, PathBuf::from);
    let fixtures = folder.join("fixtures");
    assert!(fixtures.is_dir(), "this test needs the shared fixtures: no folder {fixtures:?}");
    folder
}

/// A small model of the shared folder.
pub fn shared_model(name: &str) -> PathBuf {
    existing(shared().join("fixtures/models").join(name))
}

/// A small model of this repository.
pub fn fixture(name: &str) -> PathBuf {
    existing(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name))
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(path.exists(), "this test needs {}, which is missing", path.display());
    path
}

/// The original GLM has its special ids from the tokenizer, which the fixture lacks.
pub fn with_added_tokens(dir: &Path, tokens: String) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    fs::write(copy.path().join("added_tokens.json"), tokens).unwrap();
    copy
}
