//! The file of a cache.
//!
//! ```text
//! magic, fingerprint of the model [32]
//! number of sequences; for each:
//!     index of an earlier sequence and number of its first pages that are shared, number of ids, ids
//!     the bytes of each page that is not shared, from the one on in which the prefix of the adapter ends
//! SHA-256 of all bytes before it [32]
//! ```
//!
//! The fingerprint includes the adapter of the model; only sequences that begin with it are written. Numbers and ids have 32 bits, and all bytes are in little-endian order.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use glm_kernels::KEYS;
use sha2::{Digest, Sha256};

use super::{MAX_SEQUENCES, PrefixCache, part};
use crate::error::{Error, Result};
use crate::files::regular::open_regular;
use crate::limits::run::SYNC_BYTES;
use crate::network::hook::CancelToken;
use crate::network::model::Model;
use crate::network::sequence::Sequence;

const MAGIC: &[u8; 16] = b"glm-prefix-cache";
const VERSION: u32 = 5;

impl PrefixCache {
    /// # Errors
    /// As [`Batch::save_cache`](crate::Batch::save_cache).
    pub(crate) fn save(&self, model: &Model, path: &Path, cancel: &CancelToken) -> Result<()> {
        check(model, path)?;
        part::remove_abandoned(path);
        let part = part::create(path).map_err(Error::io(path))?;
        let written = self.write(model, part.as_file(), cancel);
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        written.map_err(Error::io(path))?;
        part.persist(path).map_err(|error| Error::io(path)(error.error))?;
        Ok(())
    }

    /// Writes until it is cancelled.
    fn write(&self, model: &Model, file: &File, cancel: &CancelToken) -> io::Result<()> {
        let mut to = Hashing { inner: BufWriter::new(file), hash: Sha256::new() };
        let mut unsynced = 0;
        to.write_all(MAGIC)?;
        to.write_number(VERSION as usize)?;
        to.write_all(&model.fingerprint())?;
        let sequences: Vec<_> = self.sequences.iter().filter(|other| model.begins(other)).collect();
        to.write_number(sequences.len())?;
        let pages: Vec<_> = sequences.iter().map(|sequence| sequence.pages()).collect();
        for (index, sequence) in sequences.into_iter().enumerate() {
            // Only whole pages: the last one has tokens of its own.
            let whole = sequence.positions() / KEYS;
            let common = |other: &Vec<usize>| {
                let same = other.iter().zip(&pages[index][..whole]).take_while(|(a, b)| a == b);
                same.count()
            };
            let shared =
                pages[..index].iter().enumerate().map(|(other, pages)| (common(pages), other));
            let (shared, other) = shared.max().unwrap_or_default();
            to.write_number(other)?;
            to.write_number(shared)?;
            to.write_number(sequence.len())?;
            to.write_all(bytemuck::cast_slice(sequence.ids()))?;
            for page in shared.max(sequence.prefix() / KEYS)..pages[index].len() {
                if cancel.is_cancelled() {
                    return Ok(());
                }
                if unsynced >= SYNC_BYTES {
                    to.inner.flush()?;
                    file.sync_data()?;
                    unsynced = 0;
                }
                for part in sequence.page(page) {
                    to.write_all(part)?;
                    unsynced += part.len();
                }
            }
        }
        let Hashing { mut inner, hash } = to;
        inner.write_all(&hash.finalize())?;
        inner.into_inner()?.sync_all()
    }

    /// # Errors
    /// As [`Batch::load_cache`](crate::Batch::load_cache).
    pub(crate) fn load(&mut self, model: &Model, path: &Path) -> Result<usize> {
        check(model, path)?;
        let file = open_regular(path).map_err(Error::io(path))?;
        let mut inner = BufReader::new(file);
        let mut magic = Vec::new();
        inner.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic).map_err(Error::io(path))?;
        if !MAGIC.starts_with(&magic) {
            return Err(Error::file(path, "is no file of kept prompts: name another file"));
        }
        let mut from = Hashing { inner, hash: Sha256::new_with_prefix(&magic) };
        let sequences = read(&mut from, model, path, self.budget)?;
        let tokens = sequences.iter().map(Sequence::len).sum();
        sequences.into_iter().for_each(|sequence| self.insert(sequence));
        Ok(tokens)
    }
}

/// That the model has beginnings to share, and the machine the order of bytes of the file.
fn check(model: &Model, path: &Path) -> Result<()> {
    let problem = match model.is_causal() {
        _ if cfg!(target_endian = "big") => "cannot be used on a big-endian machine",
        false => "cannot be used: a bidirectional prompt has no beginnings to share",
        true => return Ok(()),
    };
    Err(Error::file(path, problem))
}

/// Reads the sequences of a file, after its magic. Nothing of it is used before its hash was compared.
fn read(
    from: &mut Hashing<impl Read>,
    model: &Model,
    path: &Path,
    budget: u64,
) -> Result<Vec<Sequence>> {
    let damaged =
        |problem: &str| Error::Cache { path: path.to_owned(), problem: problem.to_owned() };
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("is cut off"),
        _ => Error::io(path)(error),
    };
    if from.number().map_err(io)? != VERSION {
        return Err(damaged("was written by another version of the program"));
    }
    if from.bytes::<32>().map_err(io)? != model.fingerprint() {
        let problem = "belongs to another model, or to the same with other settings";
        return Err(damaged(problem));
    }
    let count = from.number().map_err(io)?;
    if count as usize > MAX_SEQUENCES {
        return Err(damaged("is damaged"));
    }
    let empty = model.sequence(Some(model.config().max_context))?;
    let mut sequences: Vec<Sequence> = Vec::new();
    let mut own = 0;
    for _ in 0..count {
        let [other, shared, len] = from.numbers().map_err(io)?.map(|number| number as usize);
        let mut sequence = match sequences.get(other) {
            Some(other) if shared <= other.positions() / KEYS => {
                other.fork((shared * KEYS).saturating_sub(other.prefix()))
            }
            None if shared == 0 => empty.fork(0),
            _ => return Err(damaged("is damaged")),
        };
        if len <= sequence.len() || len > sequence.capacity() {
            return Err(damaged("is damaged"));
        }
        let prefix = sequence.prefix();
        let pages = (prefix + len).div_ceil(KEYS) - shared.max(prefix / KEYS);
        own += pages as u64 * empty.page_bytes();
        if own > budget {
            return Err(damaged("needs more memory than the cache may have: raise its limit"));
        }
        let mut ids = vec![0; len];
        from.read_exact(bytemuck::cast_slice_mut(&mut ids)).map_err(io)?;
        let vocab = model.config().vocab;
        if !ids.starts_with(sequence.ids()) || ids.iter().any(|&id| id as usize >= vocab) {
            return Err(damaged("is damaged"));
        }
        sequence.restore(&ids[sequence.len()..], |parts| {
            parts.into_iter().try_for_each(|part| from.read_exact(part)).map_err(io)
        })?;
        sequences.push(sequence);
    }
    let hash: [u8; 32] = from.hash.clone().finalize().into();
    let mut stored = [0; 32];
    from.inner.read_exact(&mut stored).map_err(io)?;
    let is_end = from.inner.read(&mut [0]).map_err(io)? == 0;
    if hash != stored || !is_end {
        return Err(damaged("is damaged"));
    }
    Ok(sequences)
}

/// Hashes what is written or read.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<W: Write> Hashing<W> {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.inner.write_all(bytes)
    }

    fn write_number(&mut self, number: usize) -> io::Result<()> {
        let number = u32::try_from(number).map_err(io::Error::other)?;
        self.write_all(&number.to_le_bytes())
    }
}

impl<R: Read> Hashing<R> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hash.update(bytes);
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn numbers<const N: usize>(&mut self) -> io::Result<[u32; N]> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests;
