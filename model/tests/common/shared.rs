//! The folder of test data that is not part of the repository.

use std::env;
use std::path::{Path, PathBuf};

/// The folder beside the repository, or the one that `GLM_SHARED` names.
///
/// # Panics
/// If there is no such folder. A test that needs it is ignored by default.
pub fn shared_dir() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = env::var_os("GLM_SHARED").map_or(beside, PathBuf::from);
    let is_there = folder.join("fixtures").is_dir();
    assert!(is_there, "no test data in {}: set GLM_SHARED to its folder", folder.display());
    folder
}
