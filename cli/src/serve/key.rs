//! The key that requests must have.

use std::env;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::limits::server::{MAX_KEY, MIN_KEY};
use crate::{input, messages};

/// The variable that holds the key if no file does.
const VARIABLE: &str = "GLM_API_KEY";

/// The hash of a key. Hashes are of equal length, so that a comparison tells nothing about the key.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// The key in a file, or else that of the variable, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read, or a key is too short or has characters that a header cannot have.
    pub fn read(file: Option<&Path>) -> Result<Option<Self>> {
        match file {
            Some(path) => {
                let name = path.display();
                let text = input::secret(path, MAX_KEY).with_context(|| name.to_string())?;
                Self::new(text.trim(), &name.to_string()).map(Some)
            }
            None => match env::var_os(VARIABLE) {
                Some(text) => Self::new(&text.to_string_lossy(), VARIABLE).map(Some),
                None => Ok(None),
            },
        }
    }

    fn new(text: &str, origin: &str) -> Result<Self> {
        let is_word = text.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(is_word && text.len() >= MIN_KEY, messages::not_a_key(origin, MIN_KEY));
        Ok(Self(Self::hash(text.as_bytes())))
    }

    #[cfg(test)]
    pub fn of_test(text: &str) -> Self {
        Self(Self::hash(text.as_bytes()))
    }

    fn hash(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    /// Whether these bytes are the key. Takes the same time for every key of the same length.
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.ct_eq(&Self::hash(given)).into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_is_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "sixteen-letters.\n").unwrap();
        let key = Key::read(Some(file.path())).unwrap().unwrap();
        assert!(key.is(b"sixteen-letters."));
        assert!(!key.is(b"sixteen-letters.\n") && !key.is(b"") && !key.is(b"sixteen-letters.s"));
        for wrong in ["", "\n", "fifteen-letters", "two words of a key", "一一一一一一一一"]
        {
            fs::write(file.path(), wrong).unwrap();
            let error = Key::read(Some(file.path())).err().unwrap().to_string();
            assert!(error.contains(&file.path().display().to_string()), "{error}");
            assert!(error.contains("16") && !error.contains("fifteen"), "{error}");
        }
        assert!(Key::read(Some(Path::new("/nowhere"))).is_err());
    }

    #[test]
    #[cfg(unix)]
    fn a_key_comes_through_a_pipe_but_not_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        crate::file::make_pipe(&pipe);
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, "sixteen-letters.\n")
        });
        assert!(Key::read(Some(&pipe)).unwrap().unwrap().is(b"sixteen-letters."));
        writer.join().unwrap().unwrap();
        let said = crate::failure::message(&Key::read(Some(Path::new("/dev/zero"))).err().unwrap());
        assert!(said.contains("/dev/zero") && said.contains(&MAX_KEY.to_string()), "{said}");
    }
}
