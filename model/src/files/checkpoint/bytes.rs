//! Bytes that outlive the checkpoint they came from.

use std::fmt;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use half::f16;
use memmap2::MmapMut;

use crate::error::Result;
use crate::files::mapped::MappedFile;
use crate::memory::zeros;

/// Shared, read-only bytes: a part of a mapped file or of memory.
///
/// A clone costs a reference count and keeps the whole file mapped.
///
/// The bytes may be misaligned for the numbers in them: read these with `from_le_bytes`.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    /// Always inside the bytes of the owner; only `slice` changes it.
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    File(Arc<MappedFile>),
    Memory(Arc<dyn AsRef<[u8]> + Send + Sync>),
}

impl Owner {
    fn bytes(&self) -> &[u8] {
        match self {
            Owner::File(file) => file.bytes(),
            Owner::Memory(memory) => (**memory).as_ref(),
        }
    }
}

impl Bytes {
    /// Maps a whole file. Its pages are read when they are first touched.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        Ok(Self::of(Owner::File(Arc::new(MappedFile::open(path)?))))
    }

    fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::of(Owner::Memory(Arc::new(owner)))
    }

    fn of(owner: Owner) -> Self {
        let range = 0..owner.bytes().len();
        Self { owner, range }
    }

    /// The mapped file that they are a part of; `None` in memory.
    pub(crate) fn file(&self) -> Option<&Arc<MappedFile>> {
        match &self.owner {
            Owner::File(file) => Some(file),
            Owner::Memory(_) => None,
        }
    }

    /// The same bytes in memory: a clone if they are there already.
    ///
    /// # Errors
    /// If the memory cannot be allocated, or the file cannot be read or was changed.
    pub(crate) fn in_memory(&self) -> Result<Self> {
        match &self.owner {
            Owner::File(file) => file.read(self.range.start, self.range.len()),
            Owner::Memory(_) => Ok(self.clone()),
        }
    }

    /// Checks that the file that they are a part of is as it was when it was opened.
    ///
    /// # Errors
    /// [`Error::FileChanged`](crate::Error::FileChanged)
    pub(crate) fn check(&self) -> Result<()> {
        self.file().map_or(Ok(()), |file| file.check())
    }

    /// A part of these bytes, relative to their start; `None` if it is out of bounds.
    pub fn slice(&self, part: Range<usize>) -> Option<Self> {
        if part.start > part.end || part.end > self.len() {
            return None;
        }
        let range = self.range.start + part.start..self.range.start + part.end;
        Some(Self { owner: self.owner.clone(), range })
    }

    /// Whether their address is divisible by `align`, a power of two.
    pub(crate) fn is_aligned(&self, align: usize) -> bool {
        gap(self, align) == 0
    }

    /// The same bytes, those of the tensor `name`, at an address divisible by `align`: a clone if they are aligned already, else a copy.
    ///
    /// # Errors
    /// If the memory for the copy cannot be allocated.
    ///
    /// # Panics
    ///
    /// If `align` is not a power of two.
    pub(crate) fn aligned(&self, align: usize, name: &str) -> Result<Self> {
        assert!(align.is_power_of_two(), "an alignment is a power of two, found {align}");
        if self.is_aligned(align) {
            return Ok(self.clone());
        }
        let mut copy = zeros(self.len() + align - 1, name)?;
        let start = gap(&copy, align);
        let range = start..start + self.len();
        copy[range.clone()].copy_from_slice(self);
        Ok(Self { range, ..Self::new(copy) })
    }

    /// Asks the system for small pages, if these bytes are of a mapped file: for bytes of which only some are read, or that are soon
    /// [released](Self::release). Otherwise what is read next to them may bring 2 MB of them into memory.
    pub(crate) fn use_small_pages(&self) {
        #[cfg(target_os = "linux")]
        if self.file().is_some() && !self.is_empty() {
            let start = self.as_ptr().addr() % page_size();
            // SAFETY: the range, from the beginning of its first page on, lies in a mapping that `owner` keeps alive. The advice changes only
            // the size of the pages.
            unsafe {
                let at = self.as_ptr().cast_mut().sub(start);
                libc::madvise(at.cast(), start + self.len(), libc::MADV_NOHUGEPAGE);
            }
        }
    }

    /// Asks the system to read these bytes of a mapped file from the disk, all at once and without waiting for them. Nothing happens to
    /// other bytes, and where they are in memory already.
    pub(crate) fn read_ahead(&self) {
        #[cfg(unix)]
        if self.file().is_some() && !self.is_empty() {
            let start = self.as_ptr().addr() % page_size();
            // SAFETY: the range, from the beginning of its first page on, lies in a mapping that `owner` keeps alive. The advice changes
            // no contents.
            unsafe {
                let at = self.as_ptr().cast_mut().sub(start);
                libc::madvise(at.cast(), start + self.len(), libc::MADV_WILLNEED);
            }
        }
    }

    /// Tells the system that these bytes of a mapped file will not be read soon, so that their pages no longer count as memory of this
    /// process. They are read again when they are next touched. Nothing happens to other bytes.
    pub(crate) fn release(&self) {
        #[cfg(target_os = "linux")]
        if self.file().is_some() {
            // Whole pages only: weights that are still read may be in the others.
            let start = gap(self, page_size());
            let len = self.len().saturating_sub(start) / page_size() * page_size();
            if len > 0 {
                let at = self[start..].as_ptr().cast_mut().cast();
                // SAFETY: the range lies in a mapping that `owner` keeps alive. The mapping is of a file and only read, so that a page that
                // is dropped is the same page of the file when it is read again, also while other threads read it.
                unsafe { libc::madvise(at, len, libc::MADV_DONTNEED) };
            }
        }
    }
}

/// Bytes of a page of memory, a power of two.
#[cfg(unix)]
fn page_size() -> usize {
    // SAFETY: the call only returns a number.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(1 << 16)
}

/// Bytes to skip until the address is divisible by `align`.
fn gap(bytes: &[u8], align: usize) -> usize {
    bytes.as_ptr().addr().wrapping_neg() % align
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes)
    }
}

impl From<Vec<f16>> for Bytes {
    fn from(numbers: Vec<f16>) -> Self {
        Self::new(Halves(numbers))
    }
}

struct Halves(Vec<f16>);

impl AsRef<[u8]> for Halves {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl From<MmapMut> for Bytes {
    fn from(bytes: MmapMut) -> Self {
        Self::new(bytes)
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self::new(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(len: u8) -> Bytes {
        Bytes::from((0..len).collect::<Vec<_>>())
    }

    #[test]
    fn slices_lie_inside() {
        let bytes = counting(10).slice(2..9).unwrap();
        assert_eq!(bytes.slice(1..3).unwrap()[..], [3, 4]);
        assert!(bytes.slice(7..7).unwrap().is_empty());
        assert!(bytes.slice(7..8).is_none());
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = bytes.slice(3..2);
        assert!(reversed.is_none());
        assert!(bytes.slice(0..usize::MAX).is_none());
    }

    #[test]
    fn aligned_copies_only_what_is_misaligned() {
        let bytes = counting(200);
        for start in 0..64 {
            let slice = bytes.slice(start..start + 100).unwrap();
            let aligned = slice.aligned(64, "x").unwrap();
            assert_eq!(aligned[..], slice[..]);
            assert!(aligned.as_ptr().addr().is_multiple_of(64));
            let moved = aligned.as_ptr() != slice.as_ptr();
            assert_eq!(moved, !slice.as_ptr().addr().is_multiple_of(64));
        }
    }

    #[test]
    fn a_map_outlives_its_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"weights").unwrap();
        let bytes = Bytes::map(file.path()).unwrap();
        drop(file);
        assert_eq!(bytes[..], *b"weights");
    }

    #[test]
    fn released_bytes_are_read_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let expected: Vec<u8> = (0..1 << 18).map(|i| (i % 251) as u8).collect();
        std::fs::write(file.path(), &expected).unwrap();
        for bytes in [Bytes::map(file.path()).unwrap(), Bytes::from(expected.clone())] {
            for part in [0..expected.len(), 5..200_001, 7..9] {
                assert_eq!(bytes[..], expected);
                let slice = bytes.slice(part.clone()).unwrap();
                slice.use_small_pages();
                assert_eq!(slice[..], expected[part.clone()]);
                slice.release();
                assert_eq!(slice[..], expected[part]);
            }
        }
    }

    #[test]
    fn a_folder_is_not_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let error = Bytes::map(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with(": is no regular file"), "{error}");
    }
}
