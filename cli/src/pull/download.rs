//! Downloads of single files.

use std::ops::Range;
use std::path::Path;

use anyhow::Result;

use super::http::Http;
use super::hub::RemoteFile;
use super::progress::Progress;

pub struct Downloader {
    http: Http,
    token: Option<String>,
}

impl Downloader {
    /// Downloads a whole file to `target`.
    pub fn fetch(&self, file: &RemoteFile, target: &Path, progress: &Progress) -> Result<()> {
        todo!()
    }

    /// Downloads a part of a file.
    pub fn range(&self, file: &RemoteFile, range: Range<u64>) -> Result<Vec<u8>> {
        todo!()
    }
}
