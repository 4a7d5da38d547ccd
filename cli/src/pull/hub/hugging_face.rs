//! The Hugging Face hub, <https://huggingface.co/docs/hub/api>.
//!
//! ```text
//! GET /api/models/REPOSITORY/revision/REVISION                 {"sha": COMMIT}
//! GET /api/models/REPOSITORY/tree/COMMIT?recursive=true        [{"type", "path", "size", "oid", "lfs": {"oid", "size"}}], in pages
//! GET /REPOSITORY/resolve/COMMIT/PATH                          the file; large ones are redirected to other hosts
//! ```

use std::io;

use anyhow::{Context, Error, Result, bail, ensure};
use serde::Deserialize;

use super::{Client, Hash, Listing, MAX_FILES, RemoteFile, escaped, hex, text};
use crate::limits::hub::MAX_TOKEN;
use crate::repository::Repository;
use crate::{folders, input, messages};

pub const ENDPOINT: &str = "https://huggingface.co";

pub const REVISION: &str = "main";

#[derive(Deserialize)]
struct Info {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    oid: String,
    lfs: Option<Lfs>,
}

/// A file that is stored outside of git.
#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// # Errors
/// If `HF_HUB_OFFLINE` forbids downloads.
pub fn check_online() -> Result<()> {
    let offline = text("HF_HUB_OFFLINE")?.unwrap_or_default().to_uppercase();
    ensure!(!["1", "ON", "YES", "TRUE"].contains(&&*offline), messages::offline());
    Ok(())
}

/// The token in `HF_TOKEN`, else in the file that `hf auth login` writes.
pub fn token() -> Result<Option<String>> {
    if let Some(token) = text("HF_TOKEN")? {
        return Ok(Some(token));
    }
    let path = match text("HF_TOKEN_PATH")? {
        Some(path) => path.into(),
        None => folders::hugging_face()?.join("token"),
    };
    let token = match input::secret(&path, MAX_TOKEN) {
        Err(error) if is_missing(&error) => return Ok(None),
        read => read.with_context(|| path.display().to_string())?,
    };
    Ok(Some(token.trim().to_owned()).filter(|token| !token.is_empty()))
}

fn is_missing(error: &Error) -> bool {
    error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::NotFound)
}

pub fn list(hub: &Client<'_>, repository: &Repository, revision: &str) -> Result<Listing> {
    let base = &hub.endpoint.base;
    let api = format!("{base}/api/models/{repository}");
    let (info, _) = hub.json::<Info>(&format!("{api}/revision/{}", escaped(revision, b"")))?;
    let commit = hex(&info.sha, 40)?;
    let mut files = Vec::new();
    // An empty page counts as well, so that pages come to an end.
    let mut listed = 0;
    let mut page = Some(format!("{api}/tree/{commit}?recursive=true"));
    while let Some(url) = page {
        let (entries, next) = hub.json::<Vec<Entry>>(&url)?;
        listed += 1 + entries.len();
        ensure!(listed <= MAX_FILES, messages::too_many_files(repository, MAX_FILES));
        for entry in entries.into_iter().filter(|entry| entry.r#type == "file") {
            let path = escaped(&entry.path, b"/");
            files.push(entry.file(format!("{base}/{repository}/resolve/{commit}/{path}"))?);
        }
        page = next.map(|next| next_page(base, &next, &url)).transpose()?;
    }
    Ok(Listing { repository: repository.clone(), commit, revision: revision.to_owned(), files })
}

/// The URL of another page. It must be of the same hub, which alone may get the token.
fn next_page(base: &str, next: &str, this: &str) -> Result<String> {
    let next = if next.starts_with('/') { format!("{base}{next}") } else { next.to_owned() };
    // Mirrors forward the links of the hub.
    let next = match next.strip_prefix(ENDPOINT) {
        Some(path) if path.starts_with('/') => format!("{base}{path}"),
        _ => next,
    };
    if !next.starts_with(&format!("{base}/")) || next == this {
        bail!(messages::foreign_page(this, next));
    }
    Ok(next)
}

impl Entry {
    fn file(self, url: String) -> Result<RemoteFile> {
        let Self { path, size, oid, lfs, .. } = self;
        let (hash, size) = match lfs {
            Some(lfs) => (Hash::sha256(&lfs.oid), lfs.size),
            None => (Hash::git_sha1(&oid), size),
        };
        let hash = hash.with_context(|| path.escape_debug().to_string())?;
        Ok(RemoteFile { path, size, hash, url })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_of_the_same_hub() {
        let of = |base, next| next_page(base, next, "this").ok();
        let mirror = "https://hf-mirror.com";
        assert_eq!(of(mirror, "/api/x?cursor=1").unwrap(), "https://hf-mirror.com/api/x?cursor=1");
        assert_eq!(of(mirror, "https://huggingface.co/a").unwrap(), "https://hf-mirror.com/a");
        for foreign in ["https://evil.com/a", "https://hf-mirror.com.evil.com/a", "//evil", "this"]
        {
            let next = of(mirror, foreign);
            assert!(
                next.is_none_or(|next| next.starts_with("https://hf-mirror.com/")),
                "{foreign}"
            );
        }
    }

    #[test]
    fn entries_have_sizes_and_hashes() {
        let of = |json: &str| {
            let entry: Entry = serde_json::from_str(json).unwrap();
            entry.file(String::new())
        };
        let (git, sha) = ("a".repeat(40), "b".repeat(64));
        let small = of(&format!(r#"{{"type":"file","path":"c","size":3,"oid":"{git}"}}"#)).unwrap();
        assert_eq!((small.size, small.hash.name()), (3, &*git));
        let large = format!(
            r#"{{"type":"file","path":"w","size":9,"oid":"{git}","lfs":{{"oid":"{sha}","size":9,"pointerSize":1}}}}"#
        );
        assert_eq!(of(&large).unwrap().hash, Hash::Sha256(sha));
        assert!(of(r#"{"type":"file","path":"c","size":3,"oid":"../x"}"#).is_err());
    }
}
