//! The headers of a file of weights without the weights: what a plan needs to know of a file that is not there yet.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use tempfile::NamedTempFile;

use super::{Bytes, Format, safetensors, torch};
use crate::error::{Error, Result};
use crate::files::temporary::folder_of;

/// Bytes that are read before the length of the headers is known.
const FIRST: u64 = 64 << 10;

/// Writes a file of `len` bytes with the headers of a file of weights and zeros in place of the weights. File systems that can, store
/// no zeros. `read` gets a range of the original file, of at most 16 MiB, and returns its bytes; few calls are made. The name of the
/// file tells its format. The file appears at `path` when it is complete.
///
/// A [`Checkpoint`](crate::Checkpoint) of the result has the tensors of the original; only their bytes are not those.
///
/// # Errors
/// If `read` fails or returns too few bytes, the headers are damaged, or the file cannot be written.
pub fn write_skeleton<E: From<Error>>(
    path: &Path,
    len: u64,
    read: &mut dyn FnMut(Range<u64>) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let folder = folder_of(path);
    let file = NamedTempFile::new_in(folder).map_err(Error::io(folder))?;
    file.as_file().set_len(len).map_err(Error::io(path))?;
    let mut skeleton = Skeleton { path, file, len, read };
    match Format::of(path) {
        Format::Safetensors => skeleton.safetensors()?,
        Format::Torch => skeleton.torch()?,
        Format::Gguf => {
            let problem =
                "is a GGUF file, which is converted when it is complete: download it first";
            return Err(Error::file(path, problem).into());
        }
    }
    // After a loss of power, a file of this size must have its headers.
    skeleton.file.as_file().sync_all().map_err(Error::io(path))?;
    let named = skeleton.file.persist(path);
    named.map_err(|error| Error::io(path)(error.error))?;
    Ok(())
}

struct Skeleton<'s, E> {
    path: &'s Path,
    file: NamedTempFile,
    len: u64,
    read: &'s mut dyn FnMut(Range<u64>) -> Result<Vec<u8>, E>,
}

impl<E: From<Error>> Skeleton<'_, E> {
    /// The length of the header, and the header.
    fn safetensors(&mut self) -> Result<(), E> {
        let first = self.len.min(FIRST);
        self.copy(0..first)?;
        let length = safetensors::header_len(&self.map()?).map_err(self.fail())?;
        let end = (8 + length).min(self.len);
        if end > first {
            self.copy(first..end)?;
        }
        Ok(())
    }

    /// The directory at the end, and the entries that say what the tensors are. The other entries are tensors: their local headers
    /// follow from the directory, so hundreds of small reads are saved. Their data may therefore begin a few bytes before their true
    /// place.
    fn torch(&mut self) -> Result<(), E> {
        let tail = self.len.saturating_sub(FIRST);
        self.copy(tail..self.len)?;
        let directory = torch::directory(&self.map()?).map_err(self.fail())?;
        if directory.start < tail {
            self.copy(directory.start..tail)?;
        }
        let entries = torch::entries(&self.map()?).map_err(self.fail())?;
        for entry in entries {
            match entry.is_header {
                true => self.copy(entry.range)?,
                false => self.put(entry.range.start, &entry.local_header)?,
            }
        }
        Ok(())
    }

    fn map(&self) -> Result<Bytes> {
        Bytes::map(self.file.path())
    }

    fn fail(&self) -> impl Fn(String) -> Error {
        let path = self.path.to_owned();
        move |problem| Error::file(&path, problem)
    }

    /// Copies a range of the original.
    fn copy(&mut self, range: Range<u64>) -> Result<(), E> {
        let bytes = (self.read)(range.clone())?;
        if bytes.len() as u64 != range.end - range.start {
            let problem = format!("bytes {range:?} cannot be read: found {}", bytes.len());
            return Err(Error::file(self.path, problem).into());
        }
        Ok(self.put(range.start, &bytes)?)
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let write = |file: &mut File| {
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)
        };
        write(self.file.as_file_mut()).map_err(Error::io(self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Checkpoint;

    fn skeleton_of(original: &Path) -> u64 {
        let bytes = fs::read(original).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(original.file_name().unwrap());
        let mut copied = 0;
        let mut read = |range: Range<u64>| {
            copied += range.end - range.start;
            Ok::<_, Error>(bytes[range.start as usize..range.end as usize].to_vec())
        };
        write_skeleton(&path, bytes.len() as u64, &mut read).unwrap();
        let (found, expected) = (Checkpoint::open(&path).unwrap(), Checkpoint::open(original));
        let expected = expected.unwrap();
        assert!(found.names().eq(expected.names()));
        for name in found.names() {
            let (found, expected) = (found.tensor(name).unwrap(), expected.tensor(name).unwrap());
            assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()));
        }
        copied
    }

    #[test]
    fn a_skeleton_has_the_tensors_of_the_original() {
        let models = Path::new("tests/models");
        assert!(skeleton_of(&models.join("chatglm-6b-tiny/bin-f16/pytorch_model.bin")) < 200_000);
        assert!(skeleton_of(&models.join("glm-4-0414-layer/model.safetensors")) < 200_000);
        skeleton_of(&models.join("chatglm2-6b-tiny/int4/pytorch_model.bin"));
    }

    #[test]
    fn damaged_headers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.safetensors", "a.bin"] {
            let path = dir.path().join(name);
            let mut read =
                |range: Range<u64>| Ok::<_, Error>(vec![0xff; (range.end - range.start) as usize]);
            assert!(write_skeleton(&path, 1 << 40, &mut read).is_err(), "{name}");
            let mut short = |_: Range<u64>| Ok::<_, Error>(Vec::new());
            assert!(write_skeleton(&path, 1 << 20, &mut short).is_err(), "{name}");
            assert!(!path.exists());
        }
    }
}
