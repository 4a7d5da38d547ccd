//! The unfinished file of a cache, which is locked while it is written: what a killed process has left is locked by nobody.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirEntry, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::files::regular::open_regular_as;
use crate::files::temporary::folder_of;

/// What its name has behind the name of the finished one, and at its end. Random letters and digits are between them. Nobody else names a
/// file so.
const START: &str = ".glm-";
const END: &str = ".part";
const LETTERS: usize = 16;

/// Age up to which a part stays, whoever has locked it: its process locks it only after it has created it.
pub(super) const NEW: Duration = Duration::from_secs(600);

/// A new part of the cache at `path`. It is removed unless it becomes the finished file.
///
/// # Errors
/// If it cannot be created.
pub(super) fn create(path: &Path) -> io::Result<NamedTempFile> {
    let start = start(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&start).suffix(END).rand_bytes(LETTERS);
    // Only the user may read it.
    let part = builder.tempfile_in(folder_of(path))?;
    // A file system without locks lets nobody have one, and then no part is removed.
    let _ = part.as_file().try_lock();
    Ok(part)
}

/// Removes the parts of a cache that killed processes have left.
pub(super) fn remove_abandoned(path: &Path) {
    let start = start(path);
    // What cannot be removed does no harm but to take up space.
    for entry in fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        if is_part(&entry.file_name(), &start) && is_abandoned(&entry).unwrap_or(false) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn start(path: &Path) -> OsString {
    let mut start = path.file_name().unwrap_or_default().to_owned();
    start.push(START);
    start
}

fn is_part(name: &OsStr, start: &OsStr) -> bool {
    let name = name.as_encoded_bytes().strip_prefix(start.as_encoded_bytes());
    let letters = name.and_then(|name| name.strip_suffix(END.as_bytes()));
    letters.is_some_and(|letters| {
        letters.len() == LETTERS && letters.iter().all(u8::is_ascii_alphanumeric)
    })
}

fn is_abandoned(entry: &DirEntry) -> io::Result<bool> {
    // Of a link, not of the file that it leads to.
    let metadata = entry.metadata()?;
    let age = metadata.modified()?.elapsed().map_err(io::Error::other)?;
    if !metadata.is_file() || age <= NEW {
        return Ok(false);
    }
    // Some file systems lock only what is open for writing.
    let part = open_regular_as(File::options().read(true).write(true), &entry.path())?;
    Ok(part.try_lock().is_ok())
}
