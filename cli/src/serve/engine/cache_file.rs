//! The file from which the cache is restored.

use std::path::Path;

use anyhow::Result;
use glm_model::{Batch, Error};

use crate::file;
use crate::messages;

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
