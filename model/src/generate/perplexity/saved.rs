//! Predictions in a file, for a reference that does not fit in memory beside the model.
//!
//! ```text
//! "glm logits 1\n"   {"vocab": …, "rows": …, "windows": "<SHA-256 of the ids and which are counted>"}  "\n"
//! deflate: for each row, the high bytes of all ids, then the low bytes
//! ```
//!
//! A row has the log probabilities of all ids as steps of 1/256 below that of the likeliest: 16 bits each, so at most 256 nats. The
//! rounding adds 6e-7 nats to a divergence. The high bytes compress well, and the low bytes hardly.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::compare::check_vocab;
use super::window::Window;
use crate::error::{Error, Result};
use crate::files::regular::open_regular;
use crate::files::temporary::{folder_of, temporary_file};
use crate::limits::run::MAX_SAVED_HEADER;
use crate::network::model::Model;

const MAGIC: &str = "glm logits 1\n";

/// Steps of a nat.
const STEPS: f32 = 256.0;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    vocab: usize,
    rows: usize,
    windows: String,
}

impl Header {
    fn new(vocab: usize, windows: &[Window]) -> Self {
        let mut hash = Sha256::new();
        for window in windows {
            let counted = window.counted();
            for number in [window.ids().len(), counted.start, counted.end] {
                hash.update((number as u64).to_le_bytes());
            }
            window.ids().iter().for_each(|id| hash.update(id.to_le_bytes()));
        }
        let rows = windows.iter().map(|window| window.counted().len()).sum();
        let windows = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { vocab, rows, windows }
    }
}

/// Writes predictions to a file, which exists once it is [finished](Self::finish).
pub struct LogitsWriter {
    path: PathBuf,
    encoder: DeflateEncoder<tempfile::NamedTempFile>,
    header: Header,
    left: usize,
}

impl LogitsWriter {
    /// For the predictions of `windows` by `model`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(path: impl Into<PathBuf>, model: &Model, windows: &[Window]) -> Result<Self> {
        let path = path.into();
        let file = temporary_file(folder_of(&path), ".glm-", ".part");
        let mut file = file.map_err(Error::io(&path))?;
        let header = Header::new(model.config().vocab, windows);
        let json = serde_json::to_string(&header).unwrap_or_default();
        writeln!(file, "{MAGIC}{json}").map_err(Error::io(&path))?;
        let encoder = DeflateEncoder::new(file, Compression::fast());
        Ok(Self { path, encoder, left: header.rows, header })
    }

    /// Checks that it was made for these predictions.
    pub(super) fn check(&self, vocab: usize, windows: &[Window]) -> Result<()> {
        if self.header == Header::new(vocab, windows) {
            return Ok(());
        }
        Err(Error::file(&self.path, "was begun for another model or other windows"))
    }

    pub(super) fn write(&mut self, rows: &[&[f32]]) -> Result<()> {
        let encoded: Vec<_> = rows.par_iter().map(|row| encode(row)).collect();
        for row in encoded {
            self.encoder.write_all(&row).map_err(Error::io(&self.path))?;
        }
        self.left = self.left.saturating_sub(rows.len());
        Ok(())
    }

    /// Gives the file its name, once it is on the disk. An existing file is replaced.
    ///
    /// # Errors
    /// If predictions are missing, or the file cannot be written.
    pub fn finish(self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::file(&self.path, format!("{} predictions are missing", self.left)));
        }
        let file = self.encoder.finish().map_err(Error::io(&self.path))?;
        // Otherwise a loss of power may leave the new name and an empty file.
        file.as_file().sync_all().map_err(Error::io(&self.path))?;
        file.persist(&self.path).map(|_| ()).map_err(|error| Error::io(&self.path)(error.error))
    }
}

/// The codes of a row of logits. Logits that are not finite make the prediction fail elsewhere.
fn encode(logits: &[f32]) -> Vec<u8> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut bytes = vec![0; 2 * logits.len()];
    let (high, low) = bytes.split_at_mut(logits.len());
    for ((high, low), logit) in high.iter_mut().zip(low).zip(logits) {
        // Conversion saturates.
        [*high, *low] = (((max - logit) * STEPS).round_ties_even() as u16).to_be_bytes();
    }
    bytes
}

/// A file of predictions that is read in the order in which it was written.
pub struct SavedLogits {
    path: PathBuf,
    header: Header,
    decoder: DeflateDecoder<BufReader<File>>,
    row: Vec<u8>,
}

impl SavedLogits {
    /// Opens a file of predictions of the same windows.
    ///
    /// # Errors
    /// If it cannot be read, is no such file, or was made of another text or other windows.
    pub fn open(path: impl Into<PathBuf>, windows: &[Window]) -> Result<Self> {
        let path = path.into();
        let mut file = BufReader::new(open_regular(&path).map_err(Error::io(&path))?);
        let mut magic = [0; MAGIC.len()];
        let is_read = file.read_exact(&mut magic).is_ok();
        let other = || Error::file(&path, "is no file of predictions as `--save-logits` writes it");
        if !is_read || magic != MAGIC.as_bytes() {
            return Err(other());
        }
        let mut line = Vec::new();
        let mut start = (&mut file).take(MAX_SAVED_HEADER);
        start.read_until(b'\n', &mut line).map_err(Error::io(&path))?;
        let header: Header = serde_json::from_slice(&line).map_err(|_| other())?;
        let expected = Header::new(header.vocab, windows);
        if header != expected {
            let problem = "was saved for another text, other windows or another tokenizer";
            return Err(Error::file(&path, problem));
        }
        Ok(Self { path, header, decoder: DeflateDecoder::new(file), row: Vec::new() })
    }

    pub(super) fn check(&self, vocab: usize) -> Result<()> {
        check_vocab(vocab, self.header.vocab)
    }

    /// The log probabilities of the next `rows`, up to a constant. The vocabulary must be [checked](Self::check).
    pub(super) fn read(&mut self, rows: usize, logits: &mut Vec<f32>) -> Result<()> {
        let vocab = self.header.vocab;
        self.row.resize(2 * vocab, 0);
        logits.clear();
        for _ in 0..rows {
            self.decoder
                .read_exact(&mut self.row)
                .map_err(|error| Error::file(&self.path, format!("is damaged: {error}")))?;
            let (high, low) = self.row.split_at(vocab);
            let codes = high.iter().zip(low).map(|(&high, &low)| u16::from_be_bytes([high, low]));
            logits.extend(codes.map(|code| -f32::from(code) / STEPS));
        }
        Ok(())
    }
}
