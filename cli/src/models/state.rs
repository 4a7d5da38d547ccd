//! Whether a model can be run.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use glm_model::{
    Config, Error, Inventory, MOST_IN_CONFIG, ModelFiles, check_json_values, open_regular,
};
use serde_json::Value;

use crate::limits::model::MAX_CONFIG;

/// What the files of a model are good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It can be run. Its weights are of this format.
    Ready { kind: String, format: String },
    /// Files are missing: it was not downloaded completely.
    Incomplete { kind: String },
    /// A file is damaged.
    Damaged { kind: String },
    /// This program cannot run it. The kind is as in its configuration, if it has one.
    Unsupported { kind: Option<String> },
}

impl State {
    /// The state of the model in a folder. Of the weights, only headers are read.
    pub fn of(folder: &Path) -> Self {
        let Ok(config) = Config::open(folder) else {
            return Self::Unsupported { kind: kind(folder) };
        };
        let kind = config.architecture.to_owned();
        match ModelFiles::open(folder) {
            Ok(files) => Self::Ready { kind, format: format(files.inventory()).to_lowercase() },
            Err(error) if is_missing(&error, folder) => Self::Incomplete { kind },
            Err(_) => Self::Damaged { kind },
        }
    }

    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }
}

/// How most weights are stored.
pub fn weights(inventory: &Inventory) -> &str {
    let mut formats = BTreeMap::new();
    for matrix in &inventory.matrices {
        *formats.entry(matrix.format.as_str()).or_insert(0) += matrix.weights();
    }
    let most = formats.into_iter().max_by_key(|(_, weights)| *weights);
    most.map_or("", |(format, _)| format)
}

/// The type of most weights: `INT4`, `F16`.
pub fn format(inventory: &Inventory) -> &str {
    weights(inventory).split([',', ' ']).next().unwrap_or_default()
}

/// Whether a file is missing, or the folder has no weights at all.
fn is_missing(error: &Error, folder: &Path) -> bool {
    match error {
        Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        Error::File { path, .. } => path == folder,
        _ => false,
    }
}

/// The `model_type` of a configuration.
fn kind(folder: &Path) -> Option<String> {
    let path = folder.join("config.json");
    let mut text = Vec::new();
    open_regular(&path).ok()?.take(MAX_CONFIG).read_to_end(&mut text).ok()?;
    check_json_values(&text, MOST_IN_CONFIG).ok()?;
    let config: Value = serde_json::from_slice(&text).ok()?;
    Some(config.get("model_type")?.as_str()?.to_owned())
}
