//! The file of the cache: restored at the start, saved at the end.

use std::path::Path;

use anyhow::Result;
use glm_model::{Batch, CancelToken, Error};

use crate::file;
use crate::messages;
use crate::output::note;
use crate::units::bytes;

/// Reads the file into the cache, if there is one. Returns what is to be said. A file of kept prompts that does not fit is left alone; the
/// end of the server replaces it.
///
/// # Errors
/// If the file is something else, cannot be read, or could not be written later.
pub fn read(batch: &mut Batch, path: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    file::check(path)?;
    if !path.exists() {
        return Ok(None);
    }
    match batch.load_cache(path) {
        Ok(tokens) => Ok(Some(messages::cache_is_read(tokens, path.display()))),
        Err(error @ (Error::Cache { .. } | Error::KvBudget { .. } | Error::Memory { .. })) => {
            Ok(Some(messages::cache_is_not_read(error)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes the cache to the file, if there is one.
///
/// # Errors
/// If it cannot be written, or that is cancelled.
pub fn write(batch: &Batch, path: Option<&Path>, cancel: &CancelToken) -> glm_model::Result<()> {
    let Some(path) = path else { return Ok(()) };
    note(&messages::cache_is_being_saved(bytes(batch.stats().cache_bytes), path.display()));
    batch.save_cache(path, cancel)
}
