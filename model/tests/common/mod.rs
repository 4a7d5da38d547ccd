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
