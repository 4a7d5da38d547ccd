//! The space on a disk.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{messages, units};

/// Checks that the disk of a folder has space for so many bytes. Where the system does not say, writing will.
pub fn check(folder: &Path, needed: u64) -> Result<()> {
    if let Ok(free) = fs4::available_space(folder) {
        let (needed_text, free_text) = (units::bytes(needed), units::bytes(free));
        let folder = folder.display();
        ensure!(needed <= free, messages::disk_is_too_small(folder, needed_text, free_text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_space_for_a_byte_and_not_for_everything() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), 1).unwrap();
        let refusal = check(dir.path(), u64::MAX).unwrap_err().to_string();
        assert!(refusal.contains("TB, and "), "{refusal}");
    }
}
