//! Models with an adapter, and folders that are none.

use std::path::Path;

use glm_model::{Adapter, Model};
use tempfile::TempDir;

/// The model with an adapter.
pub fn tuned(model: &Model, folder: &Path) -> Model {
    model.with_adapter(Some(&Adapter::open(folder, model).unwrap())).unwrap()
}

/// Checks that a folder is no adapter of the model, and that the error has all these parts.
#[track_caller]
pub fn refused(folder: &TempDir, model: &Model, expected: &[&str]) {
    let error = Adapter::open(folder.path(), model).unwrap_err().to_string();
    assert!(expected.iter().all(|part| error.contains(part)), "{error}");
}
