//! The history of questions, in a file that only its user can read.

use std::fs::DirBuilder;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustyline::Editor;
use rustyline::history::FileHistory;

use super::complete::Helper;
use super::style::note;
use crate::folders;
use crate::messages;

/// Entries that are kept.
pub const LONGEST: usize = 1000;
/// Bytes of the longest text that is kept; a longer one is a pasted document.
const LARGEST_ENTRY: usize = 64 << 10;
/// Bytes of the largest file that is read: far more than we write.
const LARGEST_FILE: u64 = 64 << 20;

/// Where the history is, and whether it is written.
pub struct History {
    /// `None` if there is no folder for it.
    path: Option<PathBuf>,
    pub is_on: bool,
}

impl History {
    /// Reads the history of earlier runs. What fails is noted, and the history then lasts for this run.
    pub fn open(is_on: bool, editor: &mut Editor<Helper, FileHistory>) -> Self {
        let path = is_on.then(path).and_then(|path| match path {
            Ok(path) => Some(path),
            Err(error) => {
                note(&messages::no_history(format!("{error:#}")));
                None
            }
        });
        if let Some(path) = &path
            && let Err(error) = load(path, editor)
        {
            note(&messages::no_history(format!("{error:#}")));
        }
        Self { path, is_on }
    }

    /// Remembers a text.
    pub fn add(&mut self, text: &str, editor: &mut Editor<Helper, FileHistory>) {
        if text.trim().is_empty() || text.len() > LARGEST_ENTRY {
            return;
        }
        // An equal text twice in a row is one entry.
        let is_new = editor.add_history_entry(text).unwrap_or(false);
        if !is_new || !self.is_on {
            return;
        }
        if self.path.is_none() {
            self.path = path().ok();
        }
        let Some(path) = &self.path else { return };
        let written = create(path)
            .and_then(|()| editor.append_history(path).with_context(|| path.display().to_string()));
        if let Err(error) = written {
            note(&messages::no_history(format!("{error:#}")));
            self.is_on = false;
        }
    }
}

fn path() -> Result<PathBuf> {
    Ok(folders::state()?.join("history"))
}

fn load(path: &Path, editor: &mut Editor<Helper, FileHistory>) -> Result<()> {
    let Ok(metadata) = path.metadata() else { return Ok(()) };
    let name = || path.display().to_string();
    if !metadata.is_file() || metadata.len() > LARGEST_FILE {
        anyhow::bail!(messages::not_a_history(path.display()));
    }
    editor.load_history(path).with_context(name)
}

/// Creates the folder of the history, which only its user can enter.
fn create(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).with_context(|| folder.display().to_string())
}
