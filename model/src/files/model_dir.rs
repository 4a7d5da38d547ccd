//! The small files of a model's folder, on the disk or in memory.

use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read; bounds memory. `tokenizer.json` of GLM-4 has 20 MB.
const MAX_FILE: u64 = 64 << 20;

/// The configuration of the model.
pub(crate) const CONFIG: &str = "config.json";

/// The field of it with the name or path under which the model was published.
pub(crate) const CONFIG_NAME: &str = "_name_or_path";

/// The configuration of the tokenizer.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The chat template, if it is not in `tokenizer_config.json`.
pub(crate) const TEMPLATE: &str = "chat_template.jinja";

/// Names of added tokens and their ids.
pub(crate) const ADDED_TOKENS: &str = "added_tokens.json";

/// Files by name: those of a folder on the disk, or some in memory.
pub(crate) struct ModelDir<'a> {
    path: PathBuf,
    files: Option<&'a [(&'a str, &'a [u8])]>,
}

impl<'a> ModelDir<'a> {
    /// Opens a folder on the disk.
    ///
    /// # Errors
    /// If `path` is no folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        if !std::fs::metadata(path).map_err(Error::io(path))?.is_dir() {
            return Err(Error::file(path, "is not a folder"));
        }
        Ok(ModelDir { path: path.into(), files: None })
    }

    /// Files in memory.
    pub(crate) fn of(files: &'a [(&'a str, &'a [u8])]) -> Self {
        ModelDir { path: PathBuf::new(), files: Some(files) }
    }

    /// Whether the file exists and is a regular file. Opening a pipe would block until somebody writes to it.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self.files {
            Some(files) => files.iter().any(|(n, _)| *n == name),
            None => self.path.join(name).is_file(),
        }
    }

    /// The path of the folder; empty for files in memory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Possible names of the model in lower case, most reliable first: the last part of the name or path under which the model
    /// was published, the same of its tokenizer, and the name of the folder.
    ///
    /// # Errors
    /// As [`ModelDir::json`].
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let (config, tokenizer) = (self.json(CONFIG)?, self.json(TOKENIZER_CONFIG)?);
        let published = [config.get(CONFIG_NAME), tokenizer.get("name_or_path")];
        let last = |path: &str| {
            let name = path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next();
            name.unwrap_or_default().to_lowercase()
        };
        let published = published.into_iter().flatten().filter_map(Value::as_str).map(last);
        let own = self.own_name().map(|name| name.to_lowercase());
        Ok(published.chain(own).filter(|name| !name.is_empty()).collect())
    }

    /// The name of the folder on the disk; in the cache of a hub, `models--OWNER--NAME/snapshots/COMMIT`, the name of the repository.
    pub(crate) fn own_name(&self) -> Option<String> {
        // Canonical, so that "." has a name, too.
        let path = self.path.canonicalize().ok()?;
        let snapshots = path.parent().filter(|folder| folder.ends_with("snapshots"));
        if let Some(repository) = snapshots.and_then(|folder| folder.parent()?.file_name()) {
            let repository = repository.to_string_lossy();
            if let Some(name) = repository.strip_prefix("models--") {
                return Some(name.rsplit("--").next().unwrap_or(name).to_owned());
            }
        }
        Some(path.file_name()?.to_string_lossy().into_owned())
    }

    /// An error about a file.
    pub(crate) fn error(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::file(&self.path.join(name), problem)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// If the file is missing, too large, or cannot be read.
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

    /// A file as a JSON object; an empty object if the file is missing.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_by_the_last_part_of_its_names_and_by_its_folder() {
        for (published, tokenizer, expected) in [
            (Some("THUDM/ChatGLM3-6B"), None, &["chatglm3-6b", "q4"][..]),
            (Some("/base/chatglm2/"), Some("a/b"), &["chatglm2", "b", "q4"]),
            (Some("C:\\base\\x"), None, &["x", "q4"]),
            (Some("/"), None, &["q4"]),
            (None, Some("THUDM/chatglm2-6b"), &["chatglm2-6b", "q4"]),
        ] {
            let config = serde_json::json!({ CONFIG_NAME: published }).to_string();
            let tokenizer = serde_json::json!({ "name_or_path": tokenizer }).to_string();
            let files = [(CONFIG, config.as_bytes()), (TOKENIZER_CONFIG, tokenizer.as_bytes())];
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("Q4");
            std::fs::create_dir(&path).unwrap();
            let folder = ModelDir { path: path.join("."), ..ModelDir::of(&files) };
            assert_eq!(folder.names().unwrap(), expected, "{published:?} {tokenizer:?}");
        }
    }

    #[test]
    fn a_snapshot_is_called_by_its_repository() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models--THUDM--chatglm3-6b/snapshots/0123");
        std::fs::create_dir_all(&path).unwrap();
        let names = ModelDir::open(&path).unwrap().names().unwrap();
        assert_eq!(names, ["chatglm3-6b"]);
    }
}
