//! The history of questions, in a file that only its user can read.

use std::fs::{self, DirBuilder, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustyline::Config;
use rustyline::history::{FileHistory, History as _, MemHistory};

use super::style::note;
use crate::file::{self, Lock};
use crate::folders;
use crate::limits::input::{MAX_ENTRY, MAX_HISTORY};
use crate::messages;

/// What is remembered for the next run. The editor has its own memory of this run.
pub struct History {
    config: Config,
    pub is_on: bool,
    /// Texts that could not be written yet.
    unsaved: Vec<String>,
    /// Whether a failure was noted.
    is_noted: bool,
}

impl History {
    /// Reads the history of earlier runs into the memory of the editor. If that fails, it is noted.
    pub fn open(is_on: bool, config: &Config, memory: &mut MemHistory) -> Self {
        let mut history =
            Self { config: config.clone(), is_on, unsaved: Vec::new(), is_noted: false };
        if is_on {
            match path().and_then(|path| load(&path, config)) {
                Ok(entries) => entries.iter().for_each(|entry| drop(memory.add(entry))),
                failed => history.report(failed.map(drop)),
            }
        }
        history
    }

    /// Remembers a text for the next run, if that is wanted. It must be one that [`is_kept`].
    pub fn add(&mut self, text: &str) {
        if self.is_on {
            self.unsaved.push(text.to_owned());
            let saved = path().and_then(|path| save(&self.unsaved, &path, &self.config));
            if saved.is_ok() {
                self.unsaved.clear();
            }
            self.report(saved);
        }
    }

    fn report(&mut self, done: Result<()>) {
        if let Err(error) = done
            && !self.is_noted
        {
            note(&messages::no_history(format!("{error:#}")));
            self.is_noted = true;
        }
    }
}

/// Whether a text is worth remembering.
pub fn is_kept(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= MAX_ENTRY
}

fn path() -> Result<PathBuf> {
    Ok(folders::state()?.join("history"))
}

/// The texts of the file; none if there is no file.
fn load(path: &Path, config: &Config) -> Result<FileHistory> {
    let mut entries = FileHistory::with_config(config);
    let Ok(metadata) = path.metadata() else { return Ok(entries) };
    let is_history = metadata.is_file() && metadata.len() <= MAX_HISTORY;
    ensure!(is_history, messages::not_a_history(path.display()));
    entries.load(path).with_context(|| path.display().to_string())?;
    Ok(entries)
}

/// Adds texts to the file, which is created for its user alone, as is its folder. The file is replaced whole: the editor's library would empty
/// it first, and what was remembered would be lost if the disk is full or the process ends.
fn save(texts: &[String], path: &Path, config: &Config) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).with_context(|| folder.display().to_string())?;
    let replace = || -> Result<()> {
        // Of two processes that add a text at the same time, the second adds to what the first has written.
        let _lock = locked(&path.with_added_extension("lock"))?;
        // Where the file is a link, what it points to is replaced.
        let path = match path.canonicalize() {
            Err(error) if path.is_symlink() => return Err(error.into()),
            found => found.unwrap_or_else(|_| path.to_owned()),
        };
        let mut entries = load(&path, config)?;
        let mut is_new = false;
        for text in texts {
            // An equal text twice in a row is one entry.
            is_new |= entries.add(text)?;
        }
        if is_new {
            // The name is always the same: who holds the lock writes over what a killed process has left. The library creates the file for its
            // user alone.
            let part = path.with_added_extension("part");
            let written = entries.save(&part).map_err(Into::into).and_then(|()| {
                // Windows syncs only what is open for writing.
                File::options().write(true).open(&part)?.sync_all()?;
                Ok(fs::rename(&part, &path)?)
            });
            if written.is_err() {
                let _ = fs::remove_file(&part);
            }
            return written;
        }
        Ok(())
    };
    replace().with_context(|| path.display().to_string())
}

/// Locks the history, or gives up after a second: a process that holds the lock may have been stopped.
fn locked(path: &Path) -> Result<File> {
    let lock = file::open_lock(path).with_context(|| path.display().to_string())?;
    for _ in 0..20 {
        if file::try_lock(&lock, Lock::Exclusive)? {
            return Ok(lock);
        }
        thread::sleep(Duration::from_millis(50));
    }
    bail!(messages::history_is_locked())
}
