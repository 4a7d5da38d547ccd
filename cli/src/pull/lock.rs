//! Locks between processes.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::progress::Progress;
use super::stop::Stop;
use crate::file::{self, Lock};
use crate::messages;

/// How often is looked whether another process has finished.
const TICK: Duration = Duration::from_millis(200);

/// Locks the file at `path`, which is created with its folder. Waits while another process has locked it, and says so of what is called
/// `name` for people. The lock ends with the file.
///
/// # Errors
/// If the file cannot be opened or locked, or the program shall stop.
pub fn lock(path: &Path, lock: Lock, name: &str, stop: &Stop, progress: &Progress) -> Result<File> {
    let file = file::open_lock(path).with_context(|| path.display().to_string())?;
    let mut is_noted = false;
    loop {
        if file::try_lock(&file, lock).with_context(|| path.display().to_string())? {
            return Ok(file);
        }
        if !is_noted {
            progress.note(&messages::another_uses(name));
            is_noted = true;
        }
        stop.check()?;
        thread::sleep(TICK);
    }
}
