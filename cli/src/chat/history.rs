//! The history of questions, in a file that only its user can read.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustyline::Config;
use rustyline::history::{FileHistory, History as _, MemHistory};
use tempfile::Builder;

use super::style::note;
use crate::file;
use crate::folders;
use crate::limits::input::{MAX_ENTRY, MAX_HISTORY};
use crate::messages;

/// What is remembered for the next run. The editor has its own memory of this run.
pub struct History {
    entries: FileHistory,
    pub is_on: bool,
    /// Whether a failure was noted.
    is_noted: bool,
}

impl History {
    /// Reads the history of earlier runs into the memory of the editor. If that fails, it is noted.
    pub fn open(is_on: bool, config: &Config, memory: &mut MemHistory) -> Self {
        let entries = FileHistory::with_config(config);
        let mut history = Self { entries, is_on, is_noted: false };
        if is_on {
            let loaded = path().and_then(|path| load(&path, &mut history.entries));
            history.report(loaded);
            history.entries.iter().for_each(|entry| drop(memory.add(entry)));
        }
        history
    }

    /// Remembers a text for the next run, if that is wanted. It must be one that [`is_kept`].
    pub fn add(&mut self, text: &str) {
        if self.is_on {
            let added = path().and_then(|path| append(text, &path, &mut self.entries));
            self.report(added);
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

fn load(path: &Path, entries: &mut FileHistory) -> Result<()> {
    let Ok(metadata) = path.metadata() else { return Ok(()) };
    let is_history = metadata.is_file() && metadata.len() <= MAX_HISTORY;
    ensure!(is_history, messages::not_a_history(path.display()));
    entries.load(path).with_context(|| path.display().to_string())
}

/// Adds a text to the file, which is created for its user alone, as is its folder. The file is replaced whole: the editor's library would empty
/// it first, and what was remembered would be lost if the disk is full or the process ends.
fn append(text: &str, path: &Path, entries: &mut FileHistory) -> Result<()> {
    // An equal text twice in a row is one entry. What cannot be written now is written with the next text.
    if !entries.add(text)? {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).with_context(|| folder.display().to_string())?;
    let mut replace = || -> Result<()> {
        // Of two processes that add a text at the same time, the second adds to what the first has written.
        let lock = path.with_added_extension("lock");
        let lock = file::open_lock(&lock).with_context(|| lock.display().to_string())?;
        match lock.lock() {
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            locked => locked?,
        }
        // Where the file is a link, what it points to is replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().unwrap_or(folder);
        // Only the user may read it.
        let part = Builder::new().prefix(".glm-").suffix(".part").tempfile_in(folder)?;
        if path.exists() {
            fs::copy(&path, part.path())?;
        }
        entries.append(part.path())?;
        part.as_file().sync_all()?;
        part.persist(path)?;
        Ok(())
    };
    replace().with_context(|| path.display().to_string())
}
