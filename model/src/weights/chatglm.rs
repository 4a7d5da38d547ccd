//! Tensor names of ChatGLM-6B.

use glm_kernels::Activation;

use super::{Kind, Loader, Manifest, scale_name};
use crate::checkpoint::Checkpoint;
use crate::config::{Config, Mlp};
use crate::error::Result;
use crate::layer::{Block, Weights};

const EMBEDDING: &str = "transformer.word_embeddings.weight";
const FINAL_NORM: &str = "transformer.final_layernorm";
const HEAD: &str = "lm_head.weight";

const ATTENTION_NORM: &str = "input_layernorm";
const MLP_NORM: &str = "post_attention_layernorm";
const QKV: &str = "attention.query_key_value";
const DENSE: &str = "attention.dense";
const UP: &str = "mlp.dense_h_to_4h";
const DOWN: &str = "mlp.dense_4h_to_h";

fn layer(index: usize, part: &str) -> String {
    format!("transformer.layers.{index}.{part}")
}

/// Rows and columns of each linear layer of a block.
fn shape(config: &Config, linear: &str) -> (usize, usize) {
    match linear {
        QKV => (config.qkv_rows(), config.hidden),
        DENSE => (config.hidden, config.attention_width()),
        UP => (config.inner, config.hidden),
        _ => (config.hidden, config.inner),
    }
}

/// Every tensor of the model. Where config.json allows the head to be tied to the embedding, a checkpoint may leave it out.
pub(crate) fn manifest(config: &Config, checkpoint: &Checkpoint) -> Manifest {
    let table = Kind::Matrix(config.vocab, config.hidden);
    let mut tensors: std::collections::BTreeMap<_, _> = [(EMBEDDING.to_owned(), table)].into();
    if !config.tied_head || checkpoint.get(HEAD).is_some() {
        tensors.insert(HEAD.to_owned(), table);
    }
    let norm = |name: String| {
        ["weight", "bias"].map(|part| (format!("{name}.{part}"), Kind::Vector(config.hidden)))
    };
    tensors.extend(norm(FINAL_NORM.to_owned()));
    for index in 0..config.layers {
        tensors.extend(norm(layer(index, ATTENTION_NORM)));
        tensors.extend(norm(layer(index, MLP_NORM)));
        for linear in [QKV, DENSE, UP, DOWN] {
            let (rows, cols) = shape(config, linear);
            let name = layer(index, linear);
            tensors.insert(format!("{name}.weight"), Kind::Matrix(rows, cols));
            tensors.insert(format!("{name}.bias"), Kind::Vector(rows));
        }
    }
    Manifest { tensors, ignored: ".rotary_emb.inv_freq", shareable: [EMBEDDING, HEAD] }
}

/// The head, if it is plain, the same as the embedding and config.json lets it be left out: it need not be stored twice.
pub(crate) fn duplicate(config: &Config, checkpoint: &Checkpoint) -> Option<&'static str> {
    let (head, embedding) = (checkpoint.get(HEAD)?, checkpoint.get(EMBEDDING)?);
    let plain = checkpoint.get(&scale_name(HEAD)).is_none();
    let same = head.dtype() == embedding.dtype() && head.bytes() == embedding.bytes();
    (config.tied_head && plain && same).then_some(HEAD)
}

/// Builds the layers.
pub(crate) fn load(config: &Config, loader: &mut Loader<'_>) -> Result<Weights> {
    let embedding = loader.matrix(EMBEDDING, config.vocab, config.hidden)?;
    let blocks = (0..config.layers).map(|index| block(config, loader, index));
    let blocks = blocks.collect::<Result<_>>()?;
    let head = match loader.checkpoint.get(HEAD) {
        Some(_) => loader.matrix(HEAD, config.vocab, config.hidden)?,
        None => embedding.clone(),
    };
    let final_norm = loader.norm(FINAL_NORM, config)?;
    Ok(Weights { embedding, blocks, final_norm, head: head.into() })
}

fn block(config: &Config, loader: &mut Loader<'_>, index: usize) -> Result<Block> {
    let Mlp::GeluTanh = config.mlp;
    let mut linear =
        |name, activation| loader.linear(&layer(index, name), shape(config, name), activation);
    Ok(Block {
        index,
        qkv: linear(QKV, Activation::None)?,
        dense: linear(DENSE, Activation::None)?,
        up: linear(UP, Activation::GeluTanh)?,
        down: linear(DOWN, Activation::None)?,
        attention_norm: loader.norm(&layer(index, ATTENTION_NORM), config)?,
        mlp_norm: loader.norm(&layer(index, MLP_NORM), config)?,
    })
}
