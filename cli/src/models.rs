//! The models on this machine: those in the cache of the Hugging Face hub, and those that `glm pull --quantize` made.
//!
//! ```text
//! THUDM/chatglm-6b           the revision `main`, or else the newest
//! THUDM/chatglm-6b@v1.1      another revision
//! THUDM/chatglm-6b:int4      quantized
//! ```

mod choose;
mod find;
mod hub;
mod ollama;
mod quantized;
mod remove;
mod state;

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::folders;
use crate::repository::Repository;

pub use choose::{Choice, choose, newest};
pub use find::{Found, find, named};
pub use quantized::{REPLACED, UNFINISHED, folder as quantized_folder, lock_file};
pub use remove::{is_linked, remove};
pub use state::{State, format, weights};

/// A model in a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub repository: Repository,
    /// What follows the repository in its name: nothing, `@` and a revision, or `:` and a format.
    pub suffix: String,
    /// The folder with its files.
    pub folder: PathBuf,
    /// When its folder changed last.
    pub changed: SystemTime,
}

impl Stored {
    /// The name of the model, which `-m` takes.
    pub fn name(&self) -> String {
        format!("{}{}", self.repository, self.suffix)
    }

    pub fn is_quantized(&self) -> bool {
        self.suffix.starts_with(':')
    }

    pub fn is_unfinished(&self) -> bool {
        self.suffix.ends_with(UNFINISHED)
    }

    /// Bytes of its files on the disk.
    pub fn bytes(&self) -> u64 {
        bytes(&self.folder)
    }
}

/// All models in both caches, the newest first. They may be incomplete, or of a kind that this program cannot run.
///
/// # Errors
/// If a cache exists and cannot be read.
pub fn all() -> Result<Vec<Stored>> {
    let mut all = hub::stored(&folders::hub()?)?;
    all.extend(quantized::stored(&folders::quantized()?)?);
    all.sort_by_key(|model| (std::cmp::Reverse(model.changed), model.name()));
    Ok(all)
}

/// The lock file of a whole repository. Each `glm pull` of the repository locks it as shared, and `glm rm` exclusively.
pub const REPOSITORY_LOCK: &str = "glm.lock";

/// The folder in a cache with the lock files of a repository. Python's tools have theirs there, too.
pub fn locks(cache: &Path, repository: &Repository) -> PathBuf {
    cache.join(".locks").join(repository.folder())
}

/// The entries of a folder; none if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<DirEntry>> {
    let read = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.and_then(Iterator::collect),
    };
    read.with_context(|| folder.display().to_string())
}

/// The folders in a folder that are named after repositories.
fn repositories(root: &Path) -> Result<Vec<(Repository, PathBuf)>> {
    let of_entry = |entry: DirEntry| {
        let repository = Repository::of_folder(entry.file_name().to_str()?)?;
        let path = entry.path();
        path.is_dir().then_some((repository, path))
    };
    Ok(entries(root)?.into_iter().filter_map(of_entry).collect())
}

/// When a folder changed last; long ago if the system does not say.
fn changed(folder: &Path) -> SystemTime {
    let modified = fs::metadata(folder).and_then(|folder| folder.modified());
    modified.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Bytes of the files in a folder and those that its links point to. Links to folders are not followed.
fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of_entry = |entry: DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes(&entry.path()),
        _ => fs::metadata(entry.path()).ok().filter(fs::Metadata::is_file).map_or(0, |f| f.len()),
    };
    entries.map(of_entry).sum()
}
