//! The folder that quantizing writes.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::iter;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::files::checkpoint;
use crate::files::config::{GENERATION, UNWRITTEN};
use crate::files::model_dir::{CONFIG, CONFIG_NAME, ModelDir, TEMPLATE};
use crate::files::packed::PACKING_METADATA;
use crate::files::peft::PEFT_CONFIG;
use crate::files::temporary;
use crate::files::variant::name_for_copy;
use crate::text::tokenizer;

/// The file of weights in the new folder.
pub(super) const WEIGHTS: &str = "model.safetensors";

/// The names of the tensors that an unfinished file has, if another process can go on with it.
pub(super) const JOURNAL: &str = "journal.json";

/// Files that are copied if they exist, beside those of the tokenizer.
const COMPANIONS: [&str; 4] = [GENERATION, TEMPLATE, "LICENSE", "MODEL_LICENSE"];

/// The names of the files that a model may have beside `config.json` and its weights: tokenizer, generation settings, chat template
/// and licence. The library reads no others.
pub fn companion_files() -> impl Iterator<Item = &'static str> {
    COMPANIONS.into_iter().chain(PACKING_METADATA).chain(tokenizer::FILES)
}

/// Start of the name of an unfinished file.
const PART_START: &str = "model.";
/// End of the name of an unfinished file.
const PART_END: &str = ".part";

/// Checks that the folder has no file of a model, not even a dangling link, and nothing that was begun with a calibration.
pub(super) fn check(target: &Path) -> Result<()> {
    refuse(target, companion_files().chain([CONFIG]).map(str::to_owned))?;
    check_adapter(target)?;
    check_weights(target)?;
    if target.join(JOURNAL).exists() {
        let problem = format!(
            "holds a calibration that is not finished ({JOURNAL}): go on with it, or remove the folder"
        );
        return Err(Error::file(target, problem));
    }
    Ok(())
}

/// Checks that the folder has no adapter, which would be applied to what is written beside it.
pub(super) fn check_adapter(target: &Path) -> Result<()> {
    refuse(target, iter::once(PEFT_CONFIG.to_owned()))
}

/// Checks that the folder has no weights.
pub(super) fn check_weights(target: &Path) -> Result<()> {
    refuse(target, checkpoint::entries())
}

fn refuse(target: &Path, names: impl Iterator<Item = String>) -> Result<()> {
    for name in names {
        if target.join(&name).symlink_metadata().is_ok() {
            let problem = format!("holds {name} already: remove it, or name another folder");
            return Err(Error::file(target, problem));
        }
    }
    Ok(())
}

/// As [`check`], and removes unfinished files of killed runs. Those of a run that goes on are locked: then the folder is refused.
pub(super) fn prepare(target: &Path) -> Result<()> {
    check(target)?;
    for entry in fs::read_dir(target).map_err(Error::io(target))? {
        let entry = entry.map_err(Error::io(target))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PART_START) && name.ends_with(PART_END) {
            let path = entry.path();
            lock(&File::open(&path).map_err(Error::io(&path))?, target)?;
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Locks an unfinished file of a folder, until it is closed. Some file systems have no locks: there it is not locked.
///
/// # Errors
/// If another process has locked it.
pub(super) fn lock(part: &File, folder: &Path) -> Result<()> {
    match part.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(Error::file(folder, "is being written by another process"))
        }
        _ => Ok(()),
    }
}

/// Writes the companions and then gives the finished file its name, by `place`: last, because its name makes the folder a model. If that
/// fails, the files that were created are removed again.
pub(super) fn publish(
    source: &Path,
    target: &Path,
    place: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<()> {
    let path = target.join(WEIGHTS);
    let folder = ModelDir::open(source)?;
    let mut created = Vec::new();
    let published = companion_files()
        .filter(|name| folder.has(name))
        .try_for_each(|name| write(&target.join(name), &*folder.read(name)?, &mut created))
        .and_then(|()| write(&target.join(CONFIG), &*configuration(source)?, &mut created))
        .and_then(|()| place(&path).map_err(Error::io(&path)));
    if published.is_err() {
        for path in created {
            // Best effort; the first error is reported.
            let _ = fs::remove_file(path);
        }
    }
    published.and_then(|()| sync_folder(target))
}

/// Removes the companions that a killed [`publish`] may have left.
pub(super) fn unpublish(target: &Path) -> Result<()> {
    for name in companion_files().chain([CONFIG]) {
        let path = target.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { path, source: error });
            }
            _ => {}
        }
    }
    Ok(())
}

/// `config.json` of the new folder: that of the source, or the published one if the source has none. If the copy
/// would not be taken for the same model, its name is added.
fn configuration(source: &Path) -> Result<Vec<u8>> {
    let folder = ModelDir::open(source)?;
    if !folder.has(CONFIG) {
        return Ok(UNWRITTEN.as_bytes().to_vec());
    }
    match name_for_copy(&folder)? {
        Some(name) => {
            let mut config = folder.json(CONFIG)?;
            config.insert(CONFIG_NAME.to_owned(), name.into());
            Ok(format!("{:#}\n", Value::Object(config)).into_bytes())
        }
        None => Ok(folder.read(CONFIG)?.into_owned()),
    }
}

/// Writes a new file, adds it to `created`, and waits until it is on the disk.
fn write(path: &Path, mut bytes: impl Read, created: &mut Vec<PathBuf>) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io(path))?;
    created.push(path.to_owned());
    io::copy(&mut bytes, &mut file).and_then(|_| file.sync_all()).map_err(Error::io(path))
}

/// Makes the new name durable, on systems that can sync folders.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}

/// A file with a temporary name. It is locked, so that [`prepare`] can tell it from those of
/// killed runs.
pub(super) fn temporary_file(folder: &Path) -> Result<NamedTempFile> {
    let file = temporary::temporary_file(folder, PART_START, PART_END);
    let file = file.map_err(Error::io(folder))?;
    // Some file systems have no locks. Two runs are then told apart by who finishes first.
    let _ = file.as_file().try_lock();
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_another_process_writes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let live = temporary_file(dir.path()).unwrap();
        let error = prepare(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another process") && live.path().exists(), "{error}");
        // What a killed process leaves has no lock.
        let dead = live.into_temp_path().keep().unwrap();
        prepare(dir.path()).unwrap();
        assert!(!dead.exists());
    }

    #[test]
    fn a_model_that_another_process_finished_stays() {
        let dir = tempfile::tempdir().unwrap();
        let [source, target] = ["source", "target"].map(|name| dir.path().join(name));
        for folder in [&source, &target] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(CONFIG), "{}").unwrap();
        }
        fs::write(source.join("LICENSE"), "").unwrap();
        fs::write(target.join(WEIGHTS), "").unwrap();
        publish(&source, &target, |_| Ok(())).unwrap_err();
        assert!(target.join(WEIGHTS).exists() && target.join(CONFIG).exists());
        assert!(!target.join("LICENSE").exists());
    }
}
