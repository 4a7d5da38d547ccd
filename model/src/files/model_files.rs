//! A model on the disk, opened once: for its inventory and for its weights.

use std::path::PathBuf;

use crate::error::Result;
use crate::files::checkpoint::Checkpoint;
use crate::files::config::Config;
use crate::files::inventory::Inventory;
use crate::files::model_path::ModelPath;
use crate::files::peft;
use crate::files::prefix::StoredPrefix;
use crate::files::weights::{Resolved, StoredNetwork, resolve};

/// The files of a model: the configuration and every tensor, found and checked. No weights are loaded yet.
///
/// ```no_run
/// use glm_model::{Model, ModelFiles, Options};
///
/// let files = ModelFiles::open("chatglm-6b")?;
/// println!("{} bytes are copied into memory", files.inventory().copied_bytes);
/// let model = Model::load(&files, &Options::default(), &mut |_, _| {})?;
/// # Ok::<(), glm_model::Error>(())
/// ```
pub struct ModelFiles {
    inventory: Inventory,
    pub(crate) network: StoredNetwork,
    pub(crate) prefix: Option<StoredPrefix>,
    /// The folder of the adapter that lies beside the model.
    pub(crate) adapter: Option<PathBuf>,
}

impl ModelFiles {
    /// Opens the model in a folder: `config.json` and weights as published or as `glm quantize` writes them. Only the headers of the
    /// files are read, whatever the size of the model.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the weights are not those that `config.json` describes.
    pub fn open(dir: impl Into<ModelPath>) -> Result<Self> {
        let dir = dir.into();
        let config = Config::open(dir.clone())?;
        let adapter = peft::beside(dir.path())?;
        Ok(Self { adapter, ..Self::new(config, &Checkpoint::open(dir.path())?)? })
    }

    /// Finds the tensors of the model `config` in `checkpoint`.
    ///
    /// # Errors
    /// If the tensors are not those of `config`.
    pub fn new(config: Config, checkpoint: &Checkpoint) -> Result<Self> {
        let resolved = resolve(&config, checkpoint)?;
        let inventory = Inventory::new(config, &resolved, checkpoint.metadata());
        let Resolved { network, prefix, .. } = resolved;
        Ok(Self { inventory, network, prefix, adapter: None })
    }

    /// Sizes and kinds.
    pub fn config(&self) -> &Config {
        &self.inventory.config
    }

    /// The matrices, and what they take.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }
}
