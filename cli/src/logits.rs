//! `glm logits`: what the model makes of ids, for comparisons.

use std::io::Write;

use anyhow::{Result, ensure};
use glm_model::{CancelToken, Dtype, Error, Model, SafetensorsLayout, Stage, State, TensorSpec};

use crate::args::Logits;
use crate::interrupt::{self, Again};
use crate::{file, open, progress};

/// Tokens whose logits are in memory at a time.
const TILE: usize = 16;

pub fn run(args: &Logits) -> Result<()> {
    let ids = &args.ids.0;
    ensure!(!ids.is_empty(), "--ids is an empty list");
    file::check(&args.out)?;
    let model = open::model(&args.model, None)?;
    let most = model.config().max_context;
    ensure!(ids.len() <= most, "--ids has {} ids, and the context holds {most}", ids.len());
    let cancel = interrupt::token(Again::Exits)?;
    let mut state = model.state(ids.len())?;
    forward(&model, ids, &mut state, &cancel)?;
    file::replace(&args.out, |out| write(&model, ids.len(), &mut state, &cancel, out))
}

fn forward(model: &Model, ids: &[u32], state: &mut State, cancel: &CancelToken) -> Result<()> {
    let bar = progress::reading(ids.len());
    let layers = model.config().layers as f32;
    let mut watch = |stage, _, _: &[f32]| {
        if let Stage::Layer(layer) = stage {
            progress::set(&bar, layer as f32 / layers);
        }
        cancel.flow()
    };
    let done = model.forward_observed(ids, state, &mut watch);
    bar.finish_and_clear();
    Ok(done?)
}

/// Writes a safetensors file with the logits of all tokens.
fn write(
    model: &Model,
    tokens: usize,
    state: &mut State,
    cancel: &CancelToken,
    out: &mut impl Write,
) -> Result<()> {
    let vocab = model.config().vocab;
    let tensor = TensorSpec::new("logits", Dtype::F32, [tokens, vocab]);
    out.write_all(SafetensorsLayout::new(&[tensor], &[]).header())?;
    let mut logits = vec![0.0; TILE.min(tokens) * vocab];
    for first in (0..tokens).step_by(TILE) {
        ensure!(!cancel.is_cancelled(), Error::Cancelled);
        let last = tokens.min(first + TILE);
        let logits = &mut logits[..(last - first) * vocab];
        model.logits_into(first..last, state, logits);
        logits.iter().try_for_each(|logit| out.write_all(&logit.to_le_bytes()))?;
    }
    Ok(())
}
