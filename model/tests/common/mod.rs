//! What several tests need.

use std::env;
use std::path::{Path, PathBuf};

/// The folder of test data beside the repository, or wherever `GLM_SHARED` says.
/// Where there is none, says so: the caller then has nothing to test.
pub fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = env::var_os("GLM_SHARED").map_or(beside, PathBuf::from);
    if folder.join("fixtures").is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no test data in {}", folder.display());
    None
}

/// A fixture's folder: the copy in this repository if it has one, else the one in the shared folder.
#[allow(dead_code)]
pub fn fixture(name: &str) -> Option<PathBuf> {
    let copy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(name);
    if copy.exists() {
        return Some(copy);
    }
    let folder = shared()?.join("fixtures/models").join(name);
    assert!(folder.exists(), "{} is missing", folder.display());
    Some(folder)
}
