//! Removes models from the caches.
//!
//! Nothing outside the caches is removed: links are removed and not followed, and a folder that is a link is refused.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{REPOSITORY_LOCK, Stored, entries, hub, locks, quantized};
use crate::file::{self, Lock};
use crate::messages;

/// The folder of blobs.
const BLOBS: &str = "blobs";

/// Removes a model and returns the bytes that are free now. Files that other revisions have as well are kept.
///
/// # Errors
/// If another process downloads it, a folder on the way to the model is a link, or something cannot be removed.
pub fn remove(model: &Stored) -> Result<u64> {
    match model.is_quantized() {
        true => remove_quantized(model),
        false => remove_snapshot(model),
    }
}

fn remove_quantized(model: &Stored) -> Result<u64> {
    let folder = &model.folder;
    let parent = parent(folder)?;
    check_folder(parent)?;
    check_folder(folder)?;
    let format = quantized::format(model.suffix.trim_start_matches(':'));
    let path = locks(self::parent(parent)?, &model.repository).join(format!("{format}.lock"));
    let _lock = lock(&path, model)?;
    let freed = remove_folder(folder)?;
    remove_if_empty(parent)?;
    Ok(freed)
}

/// Removes a snapshot, the revisions that point to it, and the blobs that no other snapshot has. If it is the last snapshot, the
/// whole folder of the repository goes.
fn remove_snapshot(model: &Stored) -> Result<u64> {
    let snapshot = &model.folder;
    let snapshots = parent(snapshot)?;
    let repository = parent(snapshots)?;
    let blobs = repository.join(BLOBS);
    for folder in [repository, snapshots, snapshot] {
        check_folder(folder)?;
    }
    let locks = locks(parent(repository)?, &model.repository);
    // First that of the repository, so that no `glm pull` begins, then that of each blob that Python's tools download.
    let of_repository = locks.join(REPOSITORY_LOCK);
    let _of_repository = lock(&of_repository, model)?;
    let of_blobs = entries(&locks)?.into_iter().map(|entry| entry.path());
    let of_blobs = of_blobs.filter(|path| path.is_file() && *path != of_repository);
    let _of_blobs = of_blobs.map(|path| lock(&path, model)).collect::<Result<Vec<_>>>()?;
    let commit = snapshot.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut others = BTreeSet::new();
    let mut is_last = true;
    for entry in entries(snapshots)?.into_iter().filter(|entry| entry.path() != *snapshot) {
        is_last = false;
        blobs_of(&entry.path(), repository, &mut others)?;
    }
    if is_last {
        return remove_folder(repository);
    }
    let mut own = BTreeSet::new();
    blobs_of(snapshot, repository, &mut own)?;
    // The revisions first: what they point to is then never missing.
    for (_, file) in hub::ref_files(repository)? {
        if hub::commit(&file).is_some_and(|target| target == commit) {
            remove_file(&file)?;
        }
    }
    let mut freed = remove_folder(snapshot)?;
    // A folder of blobs elsewhere is left alone.
    if check_folder(&blobs).is_ok() {
        for blob in own.difference(&others) {
            freed += remove_file(blob)?;
        }
    }
    Ok(freed)
}

/// Locks a file that no other process has locked. It is created, because a process that begins later must find it locked.
fn lock(path: &Path, model: &Stored) -> Result<File> {
    let lock = || {
        let file = file::open_lock(path)?;
        Ok::<_, io::Error>((file::try_lock(&file, Lock::Exclusive)?, file))
    };
    let (is_free, file) = lock().with_context(|| path.display().to_string())?;
    ensure!(is_free, messages::model_is_pulled(model.name()));
    Ok(file)
}

/// Whether a snapshot of the repository in a folder has a link to one of its blobs.
///
/// # Errors
/// If a folder or a link cannot be read.
pub fn is_linked(repository: &Path, blob: &Path) -> Result<bool> {
    let mut found = BTreeSet::new();
    blobs_of(&repository.join("snapshots"), repository, &mut found)?;
    Ok(found.contains(blob))
}

/// Adds the blobs of the repository that the links in a folder of a snapshot point to.
fn blobs_of(folder: &Path, repository: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    for entry in entries(folder)? {
        let path = entry.path();
        let kind = entry.file_type().with_context(|| path.display().to_string())?;
        if kind.is_dir() {
            blobs_of(&path, repository, found)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(|| path.display().to_string())?;
            let blob = blob(&folder.join(target), repository);
            found.extend(blob.filter(|blob| fs::symlink_metadata(blob).is_ok_and(|b| b.is_file())));
        }
    }
    Ok(())
}

/// The path of a blob if it lies directly in the folder of blobs.
fn blob(path: &Path, repository: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.strip_prefix(repository).ok()?.components() {
        match component {
            // What leads out of the folder of the repository is no blob.
            Component::ParentDir if !inside.pop() => return None,
            Component::ParentDir | Component::CurDir => {}
            other => inside.push(other),
        }
    }
    (inside.parent()? == Path::new(BLOBS)).then(|| repository.join(inside))
}

/// Removes a folder with everything in it, without following links, and returns the bytes of its files.
fn remove_folder(folder: &Path) -> Result<u64> {
    let freed = own_bytes(folder)?;
    fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    Ok(freed)
}

fn own_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in entries(folder)? {
        let metadata = entry.metadata().with_context(|| entry.path().display().to_string())?;
        bytes += match metadata.file_type() {
            kind if kind.is_dir() => own_bytes(&entry.path())?,
            kind if kind.is_file() => metadata.len(),
            _ => 0,
        };
    }
    Ok(bytes)
}

fn remove_file(path: &Path) -> Result<u64> {
    let bytes = fs::symlink_metadata(path).map_or(0, |file| file.len());
    fs::remove_file(path).with_context(|| path.display().to_string())?;
    Ok(bytes)
}

fn remove_if_empty(folder: &Path) -> Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
            Err(error).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Checks that a folder is not a link to another place.
fn check_folder(path: &Path) -> Result<()> {
    let kind = fs::symlink_metadata(path).with_context(|| path.display().to_string())?.file_type();
    ensure!(kind.is_dir(), messages::folder_is_a_link(path.display()));
    Ok(())
}

fn parent(path: &Path) -> Result<&Path> {
    path.parent().map_or_else(|| bail!(messages::no_such_folder(path.display())), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_among_the_blobs_is_a_blob() {
        let repository = Path::new("../hub/models--a--b");
        let of = |target: &str| blob(&repository.join("snapshots/c").join(target), repository);
        assert_eq!(of("../../blobs/x"), Some(repository.join("blobs/x")));
        assert_eq!(of("./../../blobs/../blobs/x"), Some(repository.join("blobs/x")));
        for target in ["../../../blobs/x", "../../blobs/d/x", "../../refs/main", "/etc/passwd", "x"]
        {
            assert_eq!(of(target), None, "{target}");
        }
        assert_eq!(blob(Path::new("../../../../hub/models--a--b/blobs/x"), repository), None);
    }

    #[test]
    fn a_lock_file_that_was_not_there_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let model = Stored {
            repository: "a/m".parse().unwrap(),
            suffix: String::new(),
            folder: dir.path().join("models--a--m"),
            changed: std::time::SystemTime::UNIX_EPOCH,
        };
        let path = dir.path().join(".locks/models--a--m").join(REPOSITORY_LOCK);
        let held = lock(&path, &model).unwrap();
        let other = file::open_lock(&path).unwrap();
        assert!(!file::try_lock(&other, Lock::Shared).unwrap(), "`glm pull` must wait");
        drop(held);
        assert!(file::try_lock(&other, Lock::Shared).unwrap());
        let said = lock(&path, &model).unwrap_err().to_string();
        assert!(said.contains("a/m cannot be removed"), "{said}");
    }
}
