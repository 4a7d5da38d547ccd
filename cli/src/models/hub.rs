//! The cache of the Hugging Face hub.
//!
//! ```text
//! models--THUDM--chatglm-6b/refs/main                 the commit of the revision `main`
//! models--THUDM--chatglm-6b/snapshots/COMMIT/FILE     a link to ../../blobs/HASH, or a file
//! models--THUDM--chatglm-6b/blobs/HASH
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use glm_model::read_regular;

use super::{Stored, changed, entries, repositories};
use crate::limits::model::MAX_REF;
use crate::repository::Repository;

/// The revision that is meant if none is named.
const MAIN: &str = "main";

/// Most characters of a commit in a name.
const COMMIT: usize = 8;

/// All snapshots in a cache.
pub fn stored(root: &Path) -> Result<Vec<Stored>> {
    let mut all = Vec::new();
    for (repository, folder) in repositories(root)? {
        all.extend(snapshots(&repository, &folder)?);
    }
    Ok(all)
}

/// The snapshot that the folder of a repository stands for; `None` if it is another folder, or has no snapshot.
pub fn meant(folder: &Path) -> Option<Stored> {
    let repository = Repository::of_folder(folder.file_name()?.to_str()?)?;
    let snapshots = snapshots(&repository, folder).ok()?;
    snapshots.into_iter().find(|snapshot| snapshot.suffix.is_empty())
}

/// Whether this is the folder of a repository without a snapshot: of a download that was stopped early, or removed.
pub fn is_empty(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.and_then(Repository::of_folder).is_some() && !folder.join("config.json").exists()
}

fn snapshots(repository: &Repository, folder: &Path) -> Result<Vec<Stored>> {
    let mut snapshots = Vec::new();
    for entry in entries(&folder.join("snapshots"))? {
        if let (Ok(commit), true) = (entry.file_name().into_string(), entry.path().is_dir()) {
            snapshots.push((changed(&entry.path()), commit, entry.path()));
        }
    }
    // The newest first.
    snapshots.sort_by(|one, other| other.cmp(one));
    let refs = refs(folder)?;
    let main = refs.iter().find(|(name, _)| name == MAIN).map(|(_, commit)| commit);
    let main = snapshots.iter().position(|(_, commit, _)| Some(commit) == main).unwrap_or(0);
    // The first name of each commit.
    let names: HashMap<_, _> = refs.iter().rev().map(|(name, commit)| (commit, name)).collect();
    let name = |(index, (changed, commit, folder)): (usize, (_, String, _))| {
        let suffix = match names.get(&commit) {
            _ if index == main => String::new(),
            Some(name) => format!("@{name}"),
            None => format!("@{}", commit.chars().take(COMMIT).collect::<String>()),
        };
        Stored { repository: repository.clone(), suffix, folder, changed }
    };
    Ok(snapshots.into_iter().enumerate().map(name).collect())
}

/// The revisions of a repository's folder and their commits, sorted. Their names may contain slashes, as `refs/pr/1`.
fn refs(folder: &Path) -> Result<Vec<(String, String)>> {
    let files =
        ref_files(folder)?.into_iter().filter_map(|(name, path)| Some((name, commit(&path)?)));
    Ok(files.collect())
}

/// The commit in the file of a revision, if it can be read.
pub fn commit(file: &Path) -> Option<String> {
    let commit = String::from_utf8(read_regular(file, MAX_REF).ok()?).ok()?;
    Some(commit.trim().to_owned())
}

/// The files of the revisions, by the names of the revisions.
pub fn ref_files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let root = folder.join("refs");
    let (mut files, mut open) = (Vec::new(), vec![root.clone()]);
    while let Some(folder) = open.pop() {
        for entry in entries(&folder)? {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(path),
                Ok(kind) if kind.is_file() => {
                    let name = path.strip_prefix(&root).ok().and_then(Path::to_str);
                    files.extend(name.map(|name| (name.replace('\\', "/"), path.clone())));
                }
                _ => {}
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_revision_is_a_commit_in_a_small_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main");
        fs::write(&path, "0a1b\n").unwrap();
        assert_eq!(commit(&path).unwrap(), "0a1b");
        fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(commit(&path), None);
        assert_eq!(commit(dir.path()), None);
    }
}
