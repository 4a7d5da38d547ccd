//! Writes the tiny causal models of the tests to a folder: `cargo run -p glm-cli --example causal -- FOLDER`. The tests with
//! published clients serve one of them.

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/common/causal.rs"]
mod causal;

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| std::io::Error::other("usage: causal FOLDER"))?;
    causal::Family::ALL.iter().try_for_each(|family| family.write(&folder.join(family.name())))
}
