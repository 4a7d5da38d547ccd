//! The lock of a folder that is written.

use std::fs::{self, File, Metadata, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// The file by which a folder is known as one that is written here, and which is locked while it is.
pub(super) const LOCK: &str = ".glm-quantize";

/// Locks a folder that is written, until the file is closed. Some file systems have no locks: there, only what is kept can be gone on
/// with, and nothing else may write it.
///
/// # Errors
/// If another process writes it, or it is not of a process like this.
pub(super) fn lock(folder: &Path, is_kept: bool) -> Result<File> {
    let in_use = || Error::file(folder, "is being written by another process");
    if !fs::symlink_metadata(folder).is_ok_and(|folder| folder.is_dir()) {
        return Err(Error::file(folder, "is a link: remove it"));
    }
    let path = folder.join(LOCK);
    let is_new = path.symlink_metadata().is_err();
    if is_new && fs::read_dir(folder).map_err(Error::io(folder))?.next().is_some() {
        // Of another process that has just begun, or of none.
        let problem = "is not empty, and not of `glm quantize`: remove it, or name another target";
        return Err(Error::file(folder, problem));
    }
    let mut options = File::options();
    let file = not_through_links(options.write(true).create(true).truncate(false)).open(&path);
    let file = file.map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use()),
        Err(TryLockError::Error(_)) if is_new || is_kept => {}
        Err(TryLockError::Error(error)) => {
            let problem = format!(
                "may be written by another process, and files cannot be locked here ({error}): if there is none, remove it"
            );
            return Err(Error::file(folder, problem));
        }
    }
    // The process that had it locked may have published or removed it meanwhile.
    let ours = file.metadata().map_err(Error::io(&path))?;
    match fs::symlink_metadata(&path) {
        Ok(now) if is_same(&now, &ours) => Ok(file),
        _ => Err(in_use()),
    }
}

/// Options that do not open what a link leads to, and do not wait for the reader of a pipe, where the system has such.
pub(super) fn not_through_links(options: &mut fs::OpenOptions) -> &mut fs::OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    options
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}
