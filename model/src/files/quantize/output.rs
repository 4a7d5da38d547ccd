//! The folder that quantizing writes: it has a name of its own until it is complete.

mod files;
mod lock;
mod target;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::config::GENERATION;
use crate::files::model_dir::{CONFIG, ModelDir, TEMPLATE};
use crate::files::packed::PACKING_METADATA;
use crate::files::temporary::folder_of;
use crate::text::tokenizer;
use files::{configuration, sync_folder, write};
use lock::{LOCK, lock, not_through_links};
use target::{check, resolved};

pub(super) use files::remove;

/// What is added to the name of a folder while it is written.
pub(super) const UNFINISHED: &str = ".quantize.part";

/// The file of weights in the new folder.
const WEIGHTS: &str = "model.safetensors";

/// The unfinished file of weights.
const PART: &str = "model.safetensors.part";

/// The names of the tensors that an unfinished file has, if another process can go on with it.
pub(super) const JOURNAL: &str = "journal.json";

/// The journal while it is written. Always the same name, so that what a killed process leaves is found.
pub(super) const NEW_JOURNAL: &str = "journal.json.part";

/// Files that are copied if they exist, beside those of the tokenizer.
const COMPANIONS: [&str; 4] = [GENERATION, TEMPLATE, "LICENSE", "MODEL_LICENSE"];

/// The names of the files that a model may have beside `config.json` and its weights: tokenizer, generation settings, chat template
/// and licence. The library reads no others.
pub fn companion_files() -> impl Iterator<Item = &'static str> {
    COMPANIONS.into_iter().chain(PACKING_METADATA).chain(tokenizer::FILES)
}

/// The folder that is written for `target`, beside it, until it is complete.
pub(super) fn unfinished(target: &Path) -> Result<PathBuf> {
    Ok(with_end(&resolved(target)?))
}

/// A folder that is written, with its file of weights. Nothing else is written to, and nothing else is removed.
pub(super) struct Output {
    place: Place,
    /// The unfinished file of weights.
    file: File,
    path: PathBuf,
}

/// Where an output is.
struct Place {
    /// What the folder becomes.
    target: PathBuf,
    /// Empty when it has become it.
    folder: PathBuf,
    /// Whether the folder stays if it is not published, but has a journal.
    is_kept: bool,
    /// Locked until it is closed, which is after the folder was removed.
    lock: Option<File>,
}

impl Place {
    fn has_journal(&self) -> bool {
        self.folder.join(JOURNAL).exists()
    }
}

impl Output {
    /// Begins to write the folder `target`, which must not exist or be empty, or goes on with what a killed process has left. Unless
    /// `is_kept` and there is a journal, what is written is removed when the output is dropped without being
    /// [published](Self::publish).
    ///
    /// # Errors
    /// If the folder has files, another process writes it, or a file cannot be created.
    pub(super) fn open(target: &Path, is_kept: bool) -> Result<Self> {
        let target = resolved(target)?;
        check(&target)?;
        let folder = with_end(&target);
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let lock = Some(lock(&folder, is_kept)?);
        let mut place = Place { target, folder, is_kept: true, lock };
        // Another process may have finished it before it was locked.
        check(&place.target)?;
        if !is_kept && place.has_journal() {
            let problem = format!(
                "holds a calibration that is not finished ({JOURNAL}): go on with it, or remove the folder"
            );
            return Err(Error::file(&place.folder, problem));
        }
        place.is_kept = is_kept;
        remove(&place.folder.join(NEW_JOURNAL))?;
        let path = place.folder.join(PART);
        let published = place.folder.join(WEIGHTS);
        if published.symlink_metadata().is_ok() {
            // Of a process that was killed while it published.
            fs::rename(&published, &path).map_err(Error::io(&path))?;
        }
        let mut options = File::options();
        let file = not_through_links(options.read(true).write(true).create(true).truncate(false));
        let file = file.open(&path).map_err(Error::io(&path))?;
        Ok(Self { place, file, path })
    }

    /// The folder that is written.
    pub(super) fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// The file of weights.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The path of the file of weights.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the configuration and the companions of `source` to the finished weights, and gives the folder its name. This is one step:
    /// the model is there whole or not at all.
    ///
    /// # Errors
    /// If a file cannot be written, or something is at the target now: that stays as it is. If only the last step fails, the finished
    /// folder stays under its own name.
    pub(super) fn publish(self, source: &Path) -> Result<()> {
        let Self { mut place, file, path } = self;
        let folder = place.folder.clone();
        let model = ModelDir::open(source)?;
        for name in companion_files() {
            // One that is there is of a process that was killed here.
            remove(&folder.join(name))?;
            if model.has(name) {
                write(&folder.join(name), &*model.read(name)?)?;
            }
        }
        remove(&folder.join(CONFIG))?;
        write(&folder.join(CONFIG), &*configuration(source)?)?;
        file.sync_all().map_err(Error::io(&path))?;
        drop(file);
        let weights = folder.join(WEIGHTS);
        fs::rename(&path, &weights).map_err(Error::io(&weights))?;
        only_ours(&folder)?;
        sync_folder(&folder)?;
        check(&place.target)?;
        if let Err(error) = place.take_place() {
            place.folder.clear();
            let problem = format!(
                "cannot be created ({error}); the model is complete in {}: rename that folder",
                folder.display()
            );
            return Err(Error::file(&place.target, problem));
        }
        // Another process may write a folder of the name that this one had.
        place.folder.clear();
        // They do no harm in a finished folder. Nor does a new name that a power failure may undo: the folder is complete under either.
        let _ = fs::remove_file(place.target.join(JOURNAL));
        let _ = fs::remove_file(place.target.join(LOCK));
        let _ = sync_folder(folder_of(&place.target));
        Ok(())
    }
}

impl Place {
    /// Renames the complete folder to the target.
    fn take_place(&mut self) -> io::Result<()> {
        if let Ok(empty) = fs::metadata(&self.target) {
            // It is replaced by one like it: what is private stays private.
            if fs::metadata(&self.folder)?.permissions() != empty.permissions() {
                fs::set_permissions(&self.folder, empty.permissions())?;
            }
        }
        if cfg!(windows) {
            // Windows does not rename a folder in which files are open, nor onto an empty one. The lock loses its name while it is held: in
            // a folder without it, no other process begins to write before this one has renamed it.
            fs::remove_file(self.folder.join(LOCK))?;
            self.lock.take();
            let _ = fs::remove_dir(&self.target);
        }
        fs::rename(&self.folder, &self.target)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.folder.as_os_str().is_empty() || (self.is_kept && self.has_journal()) {
            return;
        }
        // Best effort. In a folder with another file, that stays, and so does the folder.
        for name in ours() {
            let _ = fs::remove_file(self.folder.join(name));
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

/// The names of the files that an output writes. The lock is the last.
pub(super) fn ours() -> impl Iterator<Item = &'static str> {
    companion_files().chain([PART, WEIGHTS, CONFIG, JOURNAL, NEW_JOURNAL, LOCK])
}

/// Checks that a folder that is written has no file of others, which would be published with it.
fn only_ours(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        if !ours().any(|ours| name == ours) {
            let problem = format!("holds {}, which is of another: remove it", name.display());
            return Err(Error::file(folder, problem));
        }
    }
    Ok(())
}

fn with_end(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(UNFINISHED);
    name.into()
}

#[cfg(test)]
mod tests;
