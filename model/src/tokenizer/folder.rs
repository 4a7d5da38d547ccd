//! The small files of a model's folder, wherever they are.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read: `tokenizer.json` of GLM-4 has 20 MB. Bounds memory.
const MAX_FILE: u64 = 64 << 20;

/// Files by their names: those of a folder, or some that are in memory.
pub(crate) struct Folder<'a> {
    path: PathBuf,
    files: Option<&'a [(&'a str, &'a [u8])]>,
}

impl<'a> Folder<'a> {
    /// # Errors
    /// If there is no such folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        std::fs::metadata(path).map_err(Error::io(path))?;
        Ok(Folder { path: path.into(), files: None })
    }

    pub(crate) fn of(files: &'a [(&'a str, &'a [u8])]) -> Self {
        Folder { path: PathBuf::new(), files: Some(files) }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self.files {
            Some(files) => files.iter().any(|(n, _)| *n == name),
            None => self.path.join(name).is_file(),
        }
    }

    /// Where the folder is; empty if it is in memory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with a file.
    pub(crate) fn error(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::file(&self.path.join(name), problem)
    }

    /// # Errors
    /// If the file is not there, too large, or cannot be read.
    pub(crate) fn read(&self, name: &str) -> Result<Cow<'a, [u8]>> {
        if !self.has(name) {
            return Err(self.error(name, "is missing, or no regular file"));
        }
        if let Some(files) = self.files {
            let file = files.iter().find(|(n, _)| *n == name);
            return Ok(Cow::Borrowed(file.map_or(&[], |(_, bytes)| *bytes)));
        }
        let path = self.path.join(name);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(Error::io(&path))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(self.error(name, format!("is larger than {MAX_FILE} bytes")));
        }
        Ok(Cow::Owned(bytes))
    }

    /// A JSON object; an empty one where there is no such file.
    ///
    /// # Errors
    /// If the file is no JSON object, or cannot be read.
    pub(crate) fn json(&self, name: &str) -> Result<Map<String, Value>> {
        if !self.has(name) {
            return Ok(Map::new());
        }
        let json = self.read(name)?;
        serde_json::from_slice(&json)
            .map_err(|e| self.error(name, format!("is no JSON object: {e}")))
    }
}
