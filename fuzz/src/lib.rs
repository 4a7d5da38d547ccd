//! What the targets share: tiny models of any contents, valid files and changes of them, tokenizers, and JSON.

#[allow(dead_code, reason = "the tests of the program use the rest")]
#[path = "../../cli/tests/common/causal.rs"]
mod causal;
mod experts;
#[allow(dead_code, reason = "the tests of the model use the rest")]
#[path = "../../model/tests/common/forge.rs"]
mod forge;
mod json;
mod tiny;
mod valid;
#[path = "../../model/tests/common/gguf.rs"]
mod writer;

pub use causal::Family;
pub use experts::TinyExperts;
pub use json::{Json, Word};
pub use tiny::{Number, Stored, Tiny, safetensors};
pub use valid::{Files, byte_level, changed, gguf, pieces, torch_archive};

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use glm_model::{Chunk, Model, Options, Result, RunOptions, Tokenizer};
use tempfile::TempDir;

static GLM4: LazyLock<TempDir> = LazyLock::new(|| Family::Glm4.folder());

/// The folder of a causal model with a tokenizer of GLM-4, or the one that the variable names.
fn folder(variable: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| GLM4.path().into(), PathBuf::from)
}

/// The tokenizer in the folder `GLM_TOKENIZER`, by default a tiny one of GLM-4.
pub fn tokenizer() -> Tokenizer {
    Tokenizer::open(folder("GLM_TOKENIZER")).expect("a tokenizer")
}

/// The causal model in the folder `GLM_MODEL`, by default a tiny one.
pub fn model() -> Model {
    Model::open(folder("GLM_MODEL"), &one_thread()).expect("a model")
}

/// A model of the tests of `glm-model`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/models").join(name)
}

/// Options of a model that starts no more threads than it must: many are opened in a second.
pub fn one_thread() -> Options {
    let mut options = Options::default();
    options.threads = Some(1);
    options
}

/// The logits of the last of some ids.
///
/// # Errors
/// Those of the pass.
pub fn logits(model: &Model, ids: &[u32]) -> Result<Vec<f32>> {
    let (mut sequence, mut workspace) = (model.sequence(None)?, model.workspace()?);
    let mut chunks = [Chunk::last(&mut sequence, ids)];
    Ok(model.run(&mut workspace, &mut chunks, RunOptions::default())?.last(0).to_vec())
}
