//! Locks between processes.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::progress::Progress;
use super::stop::Stop;
use crate::messages;

/// How often is looked whether another process has finished.
const TICK: Duration = Duration::from_millis(200);

/// Locks the file at `path`, which is created with its folder. Waits while another process has the lock, and says so of what is called
/// `name` for people. The lock ends with the file.
///
/// # Errors
/// If the file cannot be opened or locked, or the program shall stop.
pub fn lock(path: &Path, name: &str, stop: &Stop, progress: &Progress) -> Result<File> {
    let open = || {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        File::options().write(true).create(true).truncate(false).open(path)
    };
    let lock = open().with_context(|| path.display().to_string())?;
    let mut is_noted = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            // A file system without locks.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                return Ok(lock);
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| path.display().to_string());
            }
            Err(TryLockError::WouldBlock) if is_noted => {}
            Err(TryLockError::WouldBlock) => {
                progress.note(&messages::another_downloads(name));
                is_noted = true;
            }
        }
        stop.check()?;
        thread::sleep(TICK);
    }
}
