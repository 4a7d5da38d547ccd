//! The small files of a folder that is written.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::config::UNWRITTEN;
use crate::files::model_dir::{CONFIG, CONFIG_NAME, ModelDir};
use crate::files::variant::name_for_copy;

/// `config.json` of the new folder: that of the source, or the published one if the source has none. If the copy
/// would not be taken for the same model, its name is added.
pub(super) fn configuration(source: &Path) -> Result<Vec<u8>> {
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

/// Writes a new file, and waits until it is on the disk.
pub(super) fn write(path: &Path, mut bytes: impl Read) -> Result<()> {
    let mut file = File::create_new(path).map_err(Error::io(path))?;
    io::copy(&mut bytes, &mut file).and_then(|_| file.sync_all()).map_err(Error::io(path))
}

/// Removes a file, if there is one.
pub(in crate::files::quantize) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

/// Makes new names durable, on systems that can sync folders.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}
