//! What a hub says about a repository.

mod hugging_face;
mod model_scope;

use std::fmt;

use anyhow::{Result, bail, ensure};

use super::http::Http;
use crate::args::Hub;
use crate::messages;
use crate::repository::Repository;

/// The files of a revision of a repository.
#[derive(Debug)]
pub struct Listing {
    pub repository: Repository,
    /// The name of the snapshot.
    pub commit: String,
    pub revision: String,
    pub files: Vec<RemoteFile>,
}

/// A file on a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its path in the repository: relative, without `..`.
    pub path: String,
    pub size: u64,
    pub hash: Hash,
    pub url: String,
}

/// What the contents of a file are checked with, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hash {
    Sha256(String),
    /// SHA-1 of `blob SIZE\0` and the contents, as git has it.
    GitSha1(String),
}

impl Hash {
    /// The name of the blob in the hub's cache.
    pub fn name(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitSha1(hex) => hex,
        }
    }

    fn sha256(text: &str) -> Result<Self> {
        Ok(Self::Sha256(hex(text, 64)?))
    }

    fn git_sha1(text: &str) -> Result<Self> {
        Ok(Self::GitSha1(hex(text, 40)?))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hex) => write!(f, "SHA-256 {hex}"),
            Self::GitSha1(hex) => write!(f, "git SHA-1 {hex}"),
        }
    }
}
