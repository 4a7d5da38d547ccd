//! A repository in the hub's cache, in the layout of the hub's own tools.
//!
//! ```text
//! models--THUDM--chatglm-6b/blobs/HASH
//! models--THUDM--chatglm-6b/snapshots/COMMIT/FILE     a link to ../../blobs/HASH; a copy where there are no links
//! models--THUDM--chatglm-6b/refs/REVISION             the commit
//! .locks/models--THUDM--chatglm-6b/HASH.lock          locked by the process that downloads the blob
//! .locks/models--THUDM--chatglm-6b/glm.lock           locked by each `glm pull` of the repository, as shared, and by `glm rm`
//! ```

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::download::{Downloader, incomplete};
use super::hub::{Listing, RemoteFile};
use super::lock;
use super::progress::Progress;
use super::stop::Stop;
use crate::file::{self, Lock};
use crate::models;
use crate::repository::Repository;

/// A repository in the cache.
pub struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    /// A repository in the cache `hub`. Its folders are created by the first download.
    pub fn new(hub: &Path, repository: &Repository) -> Self {
        Self { folder: hub.join(repository.folder()), locks: models::locks(hub, repository) }
    }

    /// Locks the repository so that nobody removes it. Waits while another process does.
    ///
    /// # Errors
    /// If the lock cannot be had.
    pub fn lock(&self, repository: &Repository, stop: &Stop) -> Result<File> {
        let (path, name) = (self.locks.join(models::REPOSITORY_LOCK), repository.to_string());
        lock::lock(&path, Lock::Shared, &name, stop, &Progress::hidden())
    }

    /// Removes what was made for a model that is not wanted: perhaps a file, and folders that are empty. `lock` is that of the repository. All
    /// stays if another process uses the repository, and the file if another has linked it meanwhile. Errors are ignored.
    pub fn discard(&self, made: Option<&RemoteFile>, lock: File) {
        drop(lock);
        let path = self.locks.join(models::REPOSITORY_LOCK);
        let Ok(lock) = file::open_lock(&path) else { return };
        // Whoever links a file has this locked as shared, from before it looks for the file.
        if !file::try_lock(&lock, Lock::Exclusive).is_ok_and(|is_free| is_free) {
            return;
        }
        if let Some(file) = made {
            self.remove_unlinked(file);
        }
        self.close();
    }

    /// Removes a file that no snapshot has, unless another program, as Python's tools, is at work on it.
    fn remove_unlinked(&self, file: &RemoteFile) {
        let Ok(lock) = file::open_lock(&self.lock_of(file)) else { return };
        let is_free = file::try_lock(&lock, Lock::Exclusive).is_ok_and(|is_free| is_free);
        let blob = self.blob(file);
        if is_free && models::is_linked(&self.folder, &blob).is_ok_and(|is_linked| !is_linked) {
            let _ = fs::remove_file(blob);
        }
    }

    /// The lock of a file, which is that of Python's tools.
    fn lock_of(&self, file: &RemoteFile) -> PathBuf {
        self.locks.join(format!("{}.lock", file.hash.name()))
    }

    /// Removes the folders that are empty: of a repository of which nothing was downloaded.
    fn close(&self) {
        for folder in [&self.folder.join("blobs"), &self.folder] {
            let _ = fs::remove_dir(folder);
        }
    }

    /// Where the contents of a file are.
    pub fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.folder.join("blobs").join(file.hash.name())
    }

    /// Whether a file is there completely. Its contents were checked when it was downloaded.
    pub fn has(&self, file: &RemoteFile) -> bool {
        let blob = fs::metadata(self.blob(file));
        blob.is_ok_and(|blob| blob.is_file() && blob.len() == file.size)
    }

    /// Bytes of a file that are there.
    pub fn present(&self, file: &RemoteFile) -> u64 {
        if self.has(file) {
            return file.size;
        }
        fs::metadata(incomplete(&self.blob(file))).map_or(0, |part| part.len().min(file.size))
    }

    /// Downloads a file if it is not there, and returns whether it was not. Waits while another process downloads it.
    ///
    /// # Errors
    /// As [`Downloader::fetch`], and if the lock cannot be had.
    pub fn fetch(
        &self,
        downloader: &Downloader,
        file: &RemoteFile,
        progress: &Progress,
    ) -> Result<bool> {
        let lock = self.lock_of(file);
        let _lock =
            lock::lock(&lock, Lock::Exclusive, &file.path, &downloader.http().stop, progress)?;
        if self.has(file) {
            progress.found(file.size);
            return Ok(false);
        }
        create(&self.folder.join("blobs"))?;
        downloader.fetch(file, &self.blob(file), progress)?;
        Ok(true)
    }

    /// The folder of the files of a listing.
    pub fn snapshot(&self, listing: &Listing) -> PathBuf {
        self.folder.join("snapshots").join(&listing.commit)
    }

    /// Lets the snapshot have a file that is there.
    ///
    /// # Errors
    /// If the link cannot be created.
    pub fn link(&self, listing: &Listing, file: &RemoteFile) -> Result<()> {
        let path = self.snapshot(listing).join(&file.path);
        let blob = self.blob(file);
        if let (Ok(one), Ok(other)) = (path.canonicalize(), blob.canonicalize())
            && one == other
        {
            return Ok(());
        }
        create(path.parent().unwrap_or(&path))?;
        let up = "../".repeat(file.path.matches('/').count() + 2);
        let target = format!("{up}blobs/{}", file.hash.name());
        let new = temporary(&path);
        let linked = symlink(&target, &new).or_else(|_| fs::copy(&blob, &new).map(drop));
        let linked = linked.and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        });
        linked.with_context(|| path.display().to_string())
    }

    /// Lets the revision point to the snapshot.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn point(&self, listing: &Listing) -> Result<()> {
        if listing.revision == listing.commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(&listing.revision);
        create(path.parent().unwrap_or(&path))?;
        file::replace(&path, |out| Ok(out.write_all(listing.commit.as_bytes())?))
    }
}

/// Another name beside a file. Each process has its own, because two may write the same file.
fn temporary(path: &Path) -> PathBuf {
    path.with_added_extension(format!("{}.part", std::process::id()))
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Other systems allow links to administrators only.
#[cfg(not(unix))]
fn symlink(_: &str, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::super::hub::Hash;
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_snapshot_links_to_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let repository: Repository = "a/b".parse().unwrap();
        let hash = Hash::Sha256("1".repeat(64));
        let file = RemoteFile { path: "sub/x".into(), size: 2, hash, url: String::new() };
        let (commit, revision) = ("2".repeat(40), "refs/pr/1".to_owned());
        let listing = Listing { repository, commit, revision, files: vec![file] };
        let (cache, file) = (Cache::new(dir.path(), &listing.repository), &listing.files[0]);
        assert!(!cache.has(file));
        create(&dir.path().join("models--a--b/blobs")).unwrap();
        fs::write(cache.blob(file), "hi").unwrap();
        assert!(cache.has(file) && cache.present(file) == 2);
        for _ in 0..2 {
            cache.link(&listing, file).unwrap();
            cache.point(&listing).unwrap();
        }
        let link = cache.snapshot(&listing).join("sub/x");
        let target = Path::new("../../../blobs").join("1".repeat(64));
        assert_eq!(fs::read_link(&link).unwrap(), target);
        assert_eq!(fs::read(&link).unwrap(), b"hi");
        let reference = dir.path().join("models--a--b/refs/refs/pr/1");
        assert_eq!(fs::read_to_string(reference).unwrap(), "2".repeat(40));
        assert_eq!(fs::read_dir(link.parent().unwrap()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn what_another_process_uses_is_not_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let repository: Repository = "a/b".parse().unwrap();
        let hash = Hash::Sha256("1".repeat(64));
        let file = RemoteFile { path: "x".into(), size: 2, hash, url: String::new() };
        let (commit, revision) = ("2".repeat(40), "main".to_owned());
        let listing = Listing { repository, commit, revision, files: vec![file] };
        let (cache, file) = (Cache::new(dir.path(), &listing.repository), &listing.files[0]);
        create(&dir.path().join("models--a--b/blobs")).unwrap();
        let path = cache.locks.join(models::REPOSITORY_LOCK);
        let lock = || {
            let lock = file::open_lock(&path).unwrap();
            assert!(file::try_lock(&lock, Lock::Shared).unwrap());
            lock
        };
        fs::write(cache.blob(file), "hi").unwrap();
        let other = lock();
        cache.discard(Some(file), lock());
        assert!(cache.has(file), "another process may have found it");
        cache.link(&listing, file).unwrap();
        drop(other);
        cache.discard(Some(file), lock());
        assert!(cache.has(file), "it is linked");
        fs::remove_dir_all(dir.path().join("models--a--b/snapshots")).unwrap();
        cache.discard(Some(file), lock());
        assert!(!cache.has(file) && !dir.path().join("models--a--b").exists());
    }
}
