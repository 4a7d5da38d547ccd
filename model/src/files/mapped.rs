//! Files in the address space, and what becomes of them while they are in use.
//!
//! A map shows the file as it is at the moment of a read. Another process may change the file, and then what is computed from it is
//! wrong; or it may cut it, and then a read of what is gone is a signal, SIGBUS, which ends the process unless it is
//! [handled](signal). A file that is renamed, deleted or replaced by renaming another over it stays whole for those who have it open.
//!
//! So each file is kept open with its size and the time of its last modification, and whoever has computed something from it
//! [asks](MappedFiles::check) whether they are the same before the result counts. The time of a change of its name or rights does not
//! matter. What nobody can see is a change within one tick of the clock of the file system, a few milliseconds, after it was opened.

#[cfg(any(target_os = "linux", target_os = "macos"))]
mod regions;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod signal;

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use memmap2::{Mmap, MmapMut, MmapOptions};

use super::checkpoint::Bytes;
use super::regular::open_regular;
use crate::error::{Error, FileChange, Result};
use crate::memory::no_memory;

/// Lets this process survive that another process cuts a file which is mapped: a model whose weights are in that file then gives
/// [`Error::FileChanged`]. Without this call, the system ends the process with SIGBUS when it reads what is gone.
///
/// The call installs a handler of SIGBUS for the whole process, on Linux and macOS; elsewhere it does nothing. The handler puts zeros in
/// place of the missing part of a file that this library has mapped, and notes that the file was cut. Any other SIGBUS goes to the
/// handler that was there before, or has the effect that it had before. A handler that is installed later takes this one's place, and
/// should call it in turn. Further calls do nothing.
///
/// # Errors
/// If the system refuses the handler.
pub fn survive_truncated_files() -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    signal::install()?;
    Ok(())
}

/// A file in the address space.
pub(crate) struct MappedFile {
    /// Dropped before the map is: fields are dropped in this order.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    region: regions::Region,
    map: Mmap,
    file: File,
    path: PathBuf,
    opened: Stamp,
    /// The change that was seen. It stays: what was read in between may be wrong, even if the file is as before.
    seen: AtomicU8,
}

/// What tells whether a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    len: u64,
    /// `None` if the file system has no such time.
    modified: Option<SystemTime>,
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self { len: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl MappedFile {
    /// Maps a whole file. Its pages are read when they are first touched.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path).map_err(Error::io(path))?;
        let opened = Stamp::new(&file.metadata().map_err(Error::io(path))?);
        let len = usize::try_from(opened.len)
            .map_err(|_| Error::file(path, "is larger than the address space"))?;
        let mut options = MmapOptions::new();
        options.len(len);
        // SAFETY: the map is only read, and bytes may have any content. Another process can still change the file: bytes that change
        // behind a `&[u8]` are undefined behavior, and truncation raises SIGBUS. Every user of a map accepts this; `Checkpoint::open`
        // documents it. Headers and pickles are copied before they are checked, so a change can affect weights only.
        let map = unsafe { options.map(&file) }.map_err(Error::io(path))?;
        // Some file systems (ext4, XFS) can map huge pages. Weights were then a little faster to read in most runs, and resident
        // sooner. Other file systems ignore the hint.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self {
            #[cfg(any(target_os = "linux", target_os = "macos"))]
            region: regions::Region::new(map.as_ptr_range()),
            map,
            file,
            path: path.to_owned(),
            opened,
            seen: AtomicU8::new(0),
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Reads bytes of the file, which are not touched in the map: into memory of their own, at the begin of a page.
    ///
    /// # Errors
    /// If the memory cannot be allocated, the file cannot be read, or it was changed.
    pub(crate) fn read(&self, start: usize, len: usize) -> Result<Bytes> {
        if len == 0 {
            return Ok(Bytes::from(&[][..]));
        }
        let memory = MmapMut::map_anon(len);
        let mut memory = memory.map_err(|_| no_memory(len as u64, self.path.display()))?;
        // As for random weights: generation was some per cent faster.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let done = read_at(&self.file, &mut memory, start as u64);
        self.check()?;
        done.map_err(Error::io(&self.path))?;
        Ok(Bytes::from(memory))
    }

    /// Checks that the file is as it was when it was opened.
    ///
    /// # Errors
    /// [`Error::FileChanged`]
    pub(crate) fn check(&self) -> Result<()> {
        self.check_seen()?;
        // A file that cannot be asked, such as one that a server of files has deleted, may still be whole here.
        let Ok(metadata) = self.file.metadata() else { return Ok(()) };
        let now = Stamp::new(&metadata);
        match () {
            () if now.len < self.opened.len => self.changed(FileChange::Cut),
            () if now != self.opened => self.changed(FileChange::Modified),
            () => Ok(()),
        }
    }

    /// As [`check`](Self::check), without asking the system: finds what an earlier check has found, and what the handler of the
    /// signal has noted.
    pub(crate) fn check_seen(&self) -> Result<()> {
        if let Some(change) = FileChange::of(self.seen.load(Ordering::Relaxed)) {
            return self.changed(change);
        }
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        if self.region.is_cut() {
            let len = self.file.metadata().map(|metadata| metadata.len());
            // The signal is the same if the disk fails.
            let is_whole = len.is_ok_and(|len| len == self.opened.len);
            return self.changed(if is_whole { FileChange::Unreadable } else { FileChange::Cut });
        }
        Ok(())
    }

    fn changed(&self, change: FileChange) -> Result<()> {
        self.seen.store(change as u8, Ordering::Relaxed);
        Err(Error::FileChanged { path: self.path.clone(), change })
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut start: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, start)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                start += read as u64;
            }
        }
    }
    Ok(())
}

/// The mapped files that something was computed from, each once.
#[derive(Default)]
pub(crate) struct MappedFiles(Vec<Arc<MappedFile>>);

impl MappedFiles {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that all files are as they were when they were opened. This is a call of the system for each.
    ///
    /// # Errors
    /// [`Error::FileChanged`]
    pub(crate) fn check(&self) -> Result<()> {
        self.0.iter().try_for_each(|file| file.check())
    }

    /// As [`check`](Self::check), without asking the system.
    pub(crate) fn check_seen(&self) -> Result<()> {
        self.0.iter().try_for_each(|file| file.check_seen())
    }
}

impl<'b> FromIterator<&'b Bytes> for MappedFiles {
    /// The files that bytes are in; those in memory have none.
    fn from_iter<I: IntoIterator<Item = &'b Bytes>>(bytes: I) -> Self {
        let mut files: Vec<Arc<MappedFile>> = Vec::new();
        for file in bytes.into_iter().filter_map(Bytes::file) {
            // Tensors of a file mostly follow one another.
            if !files.iter().rev().any(|known| Arc::ptr_eq(known, file)) {
                files.push(Arc::clone(file));
            }
        }
        Self(files)
    }
}

#[cfg(all(test, unix))]
mod tests;
