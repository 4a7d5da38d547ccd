//! What the tests that read fixtures share.

use std::path::{Path, PathBuf};

/// The folder with the fixtures: `GLM_SHARED`, or `shared` beside the repository. Where there is
/// none, says so, and the test has nothing to do.
pub fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let dir = std::env::var_os("GLM_SHARED").map_or_else(beside, PathBuf::from);
    if dir.join("fixtures").is_dir() {
        return Some(dir);
    }
    eprintln!("skipped: no fixtures in {}", dir.display());
    None
}
