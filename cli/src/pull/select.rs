//! The files of a repository that are needed.

use super::hub::RemoteFile;

/// The files that are downloaded.
#[derive(Debug)]
pub struct Selected<'a> {
    /// Configuration, tokenizer, licence and index.
    pub others: Vec<&'a RemoteFile>,
    pub weights: Vec<&'a RemoteFile>,
}
