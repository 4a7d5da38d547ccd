//! The small files of a model's folder: on the disk, in memory, or as metadata of a GGUF file.

use crate::error::{Error, Result};
use crate::files::gguf::Gguf;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read};
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

/// The first bytes of the file that git-lfs leaves in the place of one that was not fetched.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// What is wrong with a file that [`is_lfs_pointer`].
pub(crate) const IS_LFS_POINTER: &str = "is a git-lfs pointer and not the file itself: run `git lfs pull` in its repository, or \
                                         download the model with `glm pull`";

/// The end of the folder name of a repository in the cache of the Hugging Face hub starts with this.
const HUB_START: &str = "models--";

/// Whether git-lfs has yet to fetch the file with these bytes.
pub(crate) fn is_lfs_pointer(bytes: &[u8]) -> bool {
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
    /// If `path` is neither, or the GGUF file is not valid.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(Error::io(path))?;
        let source = match Gguf::find(path)? {
            Some(gguf) => Source::Gguf(gguf.into()),
            None if metadata.is_dir() => Source::Disk,
            None => return Err(Error::file(path, "is neither a folder nor a GGUF file")),
        };
        Ok(ModelDir { path: path.into(), source })
    }

    /// Files in memory.
    pub(crate) fn of(files: &'a [(&'a str, &'a [u8])]) -> Self {
        ModelDir { path: PathBuf::new(), source: Source::Memory(files) }
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

    /// The path of a file, or of the GGUF file that stands for it.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        match &self.source {
            Source::Gguf(gguf) => gguf.path().to_owned(),
            _ => self.path.join(name),
        }
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

    /// The name of the folder on the disk. In the cache of the Hugging Face hub it is that of the repository: the folder itself is
    /// `models--OWNER--NAME/snapshots/COMMIT` there.
    pub(crate) fn own_name(&self) -> Option<String> {
        // Canonical, so that "." has a name, too.
        let path = self.path.canonicalize().ok()?;
        let mut names = path.iter().rev().take(3).filter_map(|name| name.to_str());
        match names.find_map(|name| name.strip_prefix(HUB_START)) {
            Some(repository) => repository.rsplit("--").next().map(str::to_owned),
            None if path.is_file() => Some(path.file_stem()?.to_string_lossy().into_owned()),
            None => Some(path.file_name()?.to_string_lossy().into_owned()),
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
        match &self.source {
            Source::Disk => {}
            Source::Memory(files) => {
                let file = files.iter().find(|(n, _)| *n == name);
                return Ok(Cow::Borrowed(file.map_or(&[], |(_, bytes)| *bytes)));
            }
            Source::Gguf(gguf) => return gguf.file(name).map(Cow::Owned),
        }
        let path = self.path.join(name);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(Error::io(&path))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(self.error(name, format!("is larger than {MAX_FILE} bytes")));
        }
        if is_lfs_pointer(&bytes) {
            return Err(self.error(name, IS_LFS_POINTER));
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
            fs::create_dir(&path).unwrap();
            let folder = ModelDir { path: path.join("."), ..ModelDir::of(&files) };
            assert_eq!(folder.names().unwrap(), expected, "{published:?} {tokenizer:?}");
        }
    }

    #[test]
    fn in_the_cache_of_the_hub_a_model_is_called_as_its_repository() {
        let dir = tempfile::tempdir().unwrap();
        for (path, name) in [
            ("models--THUDM--chatglm3-6b/snapshots/0123abcd", "chatglm3-6b"),
            ("models--THUDM--chatglm2-6b/int4", "chatglm2-6b"),
            ("models--gpt2/snapshots/0123abcd", "gpt2"),
            ("models/THUDM/chatglm2-6b", "chatglm2-6b"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(&path).unwrap();
            assert_eq!(ModelDir::open(&path).unwrap().own_name().as_deref(), Some(name));
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
