//! Downloads of single files.

mod part;

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

pub use self::part::incomplete;

use self::part::Part;
use super::http::{Answer, Failure, Http, Request};
use super::hub::RemoteFile;
use super::progress::Progress;
use super::retry::Retries;
use crate::limits::hub::MAX_RANGE;
use crate::messages;

/// Partial content.
const PARTIAL: u16 = 206;

/// Downloads files and checks them. Threads share it.
pub struct Downloader {
    http: Http,
    /// The value of `Authorization` for the hub.
    authorization: Option<String>,
    retries: Retries,
}

impl Downloader {
    pub fn new(http: Http, authorization: Option<String>) -> Self {
        Self { http, authorization, retries: Retries::default() }
    }

    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Downloads a whole file to `target`, which is replaced. What an unfinished download left in `target.incomplete` is used, and
    /// stays after an error, unless it is wrong.
    ///
    /// # Errors
    /// If the server fails, the contents have another size or hash, the file cannot be written, or the program shall stop.
    pub fn fetch(&self, file: &RemoteFile, target: &Path, progress: &Progress) -> Result<()> {
        let mut part = Part::open(file, target)?;
        progress.found(part.len());
        let mut is_resumed = part.len() > 0;
        loop {
            let note = |line: &str| progress.note(&format!("{}: {line}", file.path));
            self.retries
                .run(&self.http.stop, &note, |has_progressed| {
                    let before = part.len();
                    let done = self.fill(file, &mut part, progress);
                    *has_progressed = part.len() > before;
                    done
                })
                .with_context(|| file.path.clone())?;
            if part.is_right() {
                return part.publish();
            }
            progress.lost(part.len());
            part.clear()?;
            if !is_resumed {
                part.remove();
                bail!(messages::wrong_hash(&file.path, &file.hash));
            }
            // What was there before may have been wrong.
            note(&messages::starts_again());
            is_resumed = false;
        }
    }

    /// Downloads what is missing of a file.
    fn fill(
        &self,
        file: &RemoteFile,
        part: &mut Part<'_>,
        progress: &Progress,
    ) -> Result<(), Failure> {
        if part.len() == file.size {
            return Ok(());
        }
        let range = (part.len() > 0).then(|| format!("bytes={}-", part.len()));
        let mut answer = self.get(file, range.as_deref())?;
        if range.is_some() && first(&answer) != Some(part.len()) {
            // The server sends the whole file.
            if answer.status == PARTIAL {
                return Err(Failure::lasting(anyhow!(messages::wrong_range())));
            }
            progress.lost(part.len());
            part.clear().map_err(Failure::lasting)?;
        }
        while let Some(chunk) = answer.chunk()? {
            part.append(&chunk).map_err(Failure::lasting)?;
            progress.add(chunk.len() as u64);
        }
        match part.len() == file.size {
            true => Ok(()),
            false => Err(Failure::temporary(anyhow!(messages::connection_cut()))),
        }
    }

    /// Downloads a part of a file into memory. Its contents are not checked.
    ///
    /// # Errors
    /// If the range is not in the file or too large, the server fails or cannot send parts, or the program shall stop.
    pub fn range(&self, file: &RemoteFile, range: Range<u64>) -> Result<Vec<u8>> {
        let length = range.end.checked_sub(range.start).filter(|_| range.end <= file.size);
        let length = length.filter(|length| *length <= MAX_RANGE);
        let length = length.with_context(|| messages::no_such_range(&file.path))?;
        if length == 0 {
            return Ok(Vec::new());
        }
        let header = format!("bytes={}-{}", range.start, range.end - 1);
        let note = |line: &str| crate::output::note(&format!("{}: {line}", file.path));
        let bytes = self.retries.run(&self.http.stop, &note, |_| {
            let mut answer = self.get(file, Some(&header))?;
            if answer.status != PARTIAL {
                return Err(Failure::lasting(anyhow!(messages::no_ranges())));
            }
            if first(&answer) != Some(range.start) {
                return Err(Failure::lasting(anyhow!(messages::wrong_range())));
            }
            let bytes = answer.bytes(length as usize)?;
            match bytes.len() as u64 == length {
                true => Ok(bytes),
                false => Err(Failure::temporary(anyhow!(messages::connection_cut()))),
            }
        });
        bytes.with_context(|| file.path.clone())
    }

    fn get(&self, file: &RemoteFile, range: Option<&str>) -> Result<Answer, Failure> {
        let authorization = self.authorization.as_deref();
        self.http.get(Request { url: &file.url, authorization, range })
    }
}

/// The first byte that an answer has, by its `Content-Range: bytes 5-9/10`.
fn first(answer: &Answer) -> Option<u64> {
    if answer.status != PARTIAL {
        return None;
    }
    let range = answer.header("Content-Range")?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}

#[cfg(test)]
mod tests;
