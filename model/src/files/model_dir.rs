//! The small files of a model's folder: on the disk, in memory, or as metadata of a GGUF file.

use crate::error::{Error, Result};
use crate::files::gguf::Gguf;
use crate::files::json::check_json_values;
use crate::files::model_path::ModelPath;
use crate::files::regular::open_regular;
use crate::files::utf8::{owned_utf8, utf8};
use crate::files::variant::Variant;
use crate::limits::file::MAX_FILE;
use crate::limits::file::MOST_IN_CONFIG;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The configuration of the model.
pub(crate) const CONFIG: &str = "config.json";

/// The field of it with the name or path under which the model was published.
pub(crate) const CONFIG_NAME: &str = "_name_or_path";

/// The configuration of the tokenizer.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The vocabulary of ChatGLM2, ChatGLM3 and GLM-4.
pub(crate) const TOKENIZER_MODEL: &str = "tokenizer.model";

/// The chat template, if it is not in `tokenizer_config.json`.
pub(crate) const TEMPLATE: &str = "chat_template.jinja";

/// Names of added tokens and their ids.
pub(crate) const ADDED_TOKENS: &str = "added_tokens.json";

/// The first bytes of the file that git-lfs leaves in the place of one that was not fetched.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// What is wrong with a file that [`is_lfs_pointer`].
pub(crate) const IS_LFS_POINTER: &str = "is a git-lfs pointer and not the file itself: run `git lfs pull` in its repository, or \
                                         download the model with `glm pull`";

/// Whether git-lfs has yet to fetch the file with these bytes: they are a pointer to it.
pub fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS_POINTER)
}

/// Whether a folder has an entry of this path: also a link to nothing, or a file that cannot be examined. Its reader then reports
/// what is wrong.
pub(crate) fn is_there(path: &Path) -> bool {
    !fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Files by name.
pub(crate) struct ModelDir<'a> {
    path: PathBuf,
    source: Source<'a>,
    variant: Option<Variant>,
}

/// Where the files are.
enum Source<'a> {
    Disk,
    Memory(&'a [(&'a str, &'a [u8])]),
    Gguf(Box<Gguf>),
}

impl<'a> ModelDir<'a> {
    /// Opens a folder on the disk, or a GGUF file.
    ///
    /// # Errors
    /// If it is neither, or the GGUF file is not valid.
    pub(crate) fn open(model: impl Into<ModelPath>) -> Result<Self> {
        let model = model.into();
        let path = model.path();
        let metadata = fs::metadata(path).map_err(Error::io(path))?;
        let source = match Gguf::find(path)? {
            Some(gguf) => Source::Gguf(gguf.into()),
            None if metadata.is_dir() => Source::Disk,
            None => return Err(Error::file(path, "is neither a folder nor a GGUF file")),
        };
        Ok(ModelDir { path: path.into(), source, variant: model.variant() })
    }

    /// Opens a folder on the disk, whatever is in it.
    ///
    /// # Errors
    /// If it is none.
    pub(crate) fn on_disk(path: &Path) -> Result<Self> {
        if !fs::metadata(path).map_err(Error::io(path))?.is_dir() {
            return Err(Error::file(path, "is not a folder"));
        }
        Ok(ModelDir { path: path.into(), source: Source::Disk, variant: None })
    }

    /// Files in memory.
    pub(crate) fn of(files: &'a [(&'a str, &'a [u8])]) -> Self {
        ModelDir { path: PathBuf::new(), source: Source::Memory(files), variant: None }
    }

    /// Whether the file exists. Not if it is known to be no regular file: opening a pipe would block until somebody writes to it.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.source {
            Source::Disk => {
                let path = self.path.join(name);
                fs::metadata(&path).map_or_else(|_| is_there(&path), |file| file.is_file())
            }
            Source::Memory(files) => files.iter().any(|(n, _)| *n == name),
            Source::Gguf(gguf) => gguf.stands_for(name),
        }
    }

    /// The path of the folder or the GGUF file; empty for files in memory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The variant, if the caller says which it is.
    pub(crate) fn variant(&self) -> Option<Variant> {
        self.variant
    }

    /// Whether it is a GGUF file.
    pub(crate) fn is_gguf(&self) -> bool {
        matches!(self.source, Source::Gguf(_))
    }

    /// The path of a file, or of the GGUF file that stands for it.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        match &self.source {
            Source::Gguf(gguf) => gguf.path().to_owned(),
            _ => self.path.join(name),
        }
    }

    /// An error about a file.
    pub(crate) fn error(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::file(&self.path_of(name), problem)
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// If the file is missing, too large, a pointer of git-lfs, or cannot be read.
    pub(crate) fn read(&self, name: &str) -> Result<Cow<'a, [u8]>> {
        if !self.has(name) {
            return Err(self.error(name, "is missing, or no regular file"));
        }
        let bytes = match &self.source {
            Source::Disk => Cow::Owned(self.read_from_disk(name)?),
            Source::Memory(files) => {
                let file = files.iter().find(|(n, _)| *n == name);
                Cow::Borrowed(file.map_or(&[][..], |(_, bytes)| *bytes))
            }
            Source::Gguf(gguf) => Cow::Owned(gguf.file(name)?),
        };
        if is_lfs_pointer(&bytes) {
            return Err(self.error(name, IS_LFS_POINTER));
        }
        Ok(bytes)
    }

    fn read_from_disk(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path.join(name);
        let mut bytes = Vec::new();
        open_regular(&path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(Error::io(&path))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(self.error(name, format!("is larger than {MAX_FILE} bytes")));
        }
        Ok(bytes)
    }

    /// The text of a file, without a byte-order mark.
    ///
    /// # Errors
    /// As [`ModelDir::read`], and if the file is not UTF-8.
    pub(crate) fn text(&self, name: &str) -> Result<Cow<'a, str>> {
        let decoded = match self.read(name)? {
            Cow::Borrowed(bytes) => utf8(bytes).map(Cow::Borrowed),
            Cow::Owned(bytes) => owned_utf8(bytes).map(Cow::Owned),
        };
        decoded.map_err(|problem| self.error(name, problem.to_string()))
    }

    /// A file as a JSON object; an empty object if the file is missing.
    ///
    /// # Errors
    /// If the file is no JSON object, or cannot be read.
    pub(crate) fn json(&self, name: &str) -> Result<Map<String, Value>> {
        if !self.has(name) {
            return Ok(Map::new());
        }
        let text = self.text(name)?;
        check_json_values(text.as_bytes(), MOST_IN_CONFIG)
            .map_err(|problem| self.error(name, problem))?;
        serde_json::from_str(&text).map_err(|e| self.error(name, format!("is no JSON object: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_wherever_the_file_is() {
        let many = format!("{{\"a\":[{}0]}}", "0,".repeat(MOST_IN_CONFIG));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CONFIG), &many).unwrap();
        let files = [(CONFIG, many.as_bytes())];
        for folder in [ModelDir::on_disk(dir.path()).unwrap(), ModelDir::of(&files)] {
            let error = folder.json(CONFIG).unwrap_err().to_string();
            assert!(error.ends_with("config.json: has more than 131072 values"), "{error}");
        }
    }

    #[test]
    fn a_pointer_of_git_lfs_is_not_taken_for_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        fs::write(dir.path().join("ice_text.model"), pointer).unwrap();
        let error = crate::Tokenizer::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("ice_text.model: is a git-lfs pointer"), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_that_cannot_be_examined_is_not_called_missing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = ModelDir::open(dir.path()).unwrap();
        for (name, target, expected) in
            [("loop", "loop", "symbolic links"), ("gone", "nothing", "No such file")]
        {
            std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
            assert!(folder.has(name));
            let error = folder.read(name).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
        assert!(!folder.has("absent"));
    }
}
