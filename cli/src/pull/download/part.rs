//! A file that is not downloaded completely.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};
use glm_model::open_regular_as;

use super::super::hash::Hasher;
use super::super::hub::RemoteFile;
use crate::messages;

/// The end of the name of an unfinished file, as Python's tools have it.
pub const INCOMPLETE: &str = ".incomplete";

/// Bytes that are read at a time to hash what is there.
const CHUNK: usize = 1 << 20;

/// The first bytes of a file, on the disk and hashed.
pub struct Part<'a> {
    remote: &'a RemoteFile,
    target: PathBuf,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    len: u64,
}

/// The name of the unfinished file.
pub fn incomplete(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(INCOMPLETE);
    path.into()
}

impl<'a> Part<'a> {
    /// Opens what is there of a file, or creates it.
    pub fn open(remote: &'a RemoteFile, target: &Path) -> Result<Self> {
        let path = incomplete(target);
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = open_regular_as(&mut options, &path);
        let file = file.with_context(|| path.display().to_string())?;
        let hasher = Hasher::new(remote);
        let mut part = Self { remote, target: target.to_owned(), path, file, hasher, len: 0 };
        part.read().with_context(|| part.path.display().to_string())?;
        if part.len > remote.size {
            part.clear()?;
        }
        Ok(part)
    }

    /// Hashes what is there. A file that is too long is not read to its end.
    fn read(&mut self) -> std::io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        while self.len <= self.remote.size {
            match self.file.read(&mut chunk)? {
                0 => break,
                read => {
                    self.hasher.update(&chunk[..read]);
                    self.len += read as u64;
                }
            }
        }
        Ok(())
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// If the file becomes longer than it should, or cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let len = self.len + bytes.len() as u64;
        ensure!(len <= self.remote.size, messages::longer_than_listed(self.remote.size));
        self.file.write_all(bytes).map_err(|error| self.explain(error))?;
        self.hasher.update(bytes);
        self.len = len;
        Ok(())
    }

    fn explain(&self, error: std::io::Error) -> Error {
        let is_full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let error = Error::from(error).context(self.path.display().to_string());
        if is_full { error.context(messages::disk_is_full()) } else { error }
    }

    /// Begins at the start again.
    pub fn clear(&mut self) -> Result<()> {
        let done = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        done.with_context(|| self.path.display().to_string())?;
        self.hasher = Hasher::new(self.remote);
        self.len = 0;
        Ok(())
    }

    /// Whether size and hash are those of the hub.
    pub fn is_right(&self) -> bool {
        self.len == self.remote.size && self.hasher.clone().finish() == self.remote.hash.name()
    }

    /// Removes the file. Errors are ignored.
    pub fn remove(self) {
        let _ = fs::remove_file(self.path);
    }

    /// Gives the file its final name, once it is on the disk.
    pub fn publish(self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.explain(error))?;
        fs::rename(&self.path, &self.target).with_context(|| self.target.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::hub::Hash;
    use super::*;

    /// The file `hello\n`.
    fn remote() -> RemoteFile {
        let hash = Hash::GitSha1("ce013625030ba8dba906f756967f9e9ca394464a".into());
        RemoteFile { path: "a".into(), size: 6, hash, url: String::new() }
    }

    #[test]
    fn a_file_gets_its_name_when_it_is_right() {
        let (dir, remote) = (tempfile::tempdir().unwrap(), remote());
        let target = dir.path().join("a");
        let mut part = Part::open(&remote, &target).unwrap();
        part.append(b"hel").unwrap();
        assert!(!part.is_right() && !target.exists());
        drop(part);
        let mut part = Part::open(&remote, &target).unwrap();
        assert_eq!(part.len(), 3);
        part.append(b"lo\n").unwrap();
        assert!(part.append(b"x").is_err());
        assert!(part.is_right());
        part.publish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"hello\n");
        assert!(!incomplete(&target).exists());
    }

    #[test]
    fn what_is_too_long_or_wrong_is_not_used() {
        let (dir, remote) = (tempfile::tempdir().unwrap(), remote());
        let target = dir.path().join("a");
        fs::write(incomplete(&target), "far too long").unwrap();
        let mut part = Part::open(&remote, &target).unwrap();
        assert_eq!(part.len(), 0);
        part.append(b"HELLO\n").unwrap();
        assert!(!part.is_right());
        part.clear().unwrap();
        part.append(b"hello\n").unwrap();
        assert!(part.is_right());
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_no_part() {
        let (dir, remote) = (tempfile::tempdir().unwrap(), remote());
        let target = dir.path().join("a");
        crate::file::make_pipe(&incomplete(&target));
        assert!(Part::open(&remote, &target).is_err());
    }

    /// `/dev/full` refuses every byte as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_leaves_no_file_of_the_final_name() {
        let (dir, remote) = (tempfile::tempdir().unwrap(), remote());
        let target = dir.path().join("a");
        let mut part = Part::open(&remote, &target).unwrap();
        part.file = File::options().write(true).open("/dev/full").unwrap();
        let error = part.append(b"hello\n").unwrap_err();
        assert!(crate::failure::message(&error).starts_with("the disk is full"), "{error:?}");
        assert!(!target.exists() && part.len() == 0);
    }
}
