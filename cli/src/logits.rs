//! `glm logits`: what the model makes of ids, for comparisons.

use std::io::Write;

use anyhow::{Result, ensure};
use glm_model::{CancelToken, Error, Model, Stage, State};
use serde_json::json;

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
    out.write_all(&header(tokens, vocab))?;
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

/// The length of the JSON, and the JSON with blanks at its end so that the numbers begin on a multiple of 8.
fn header(tokens: usize, vocab: usize) -> Vec<u8> {
    let tensor = json!({
        "dtype": "F32",
        "shape": [tokens, vocab],
        "data_offsets": [0, tokens * vocab * 4],
    });
    let mut json = json!({ "logits": tensor }).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    [(json.len() as u64).to_le_bytes().as_slice(), &json].concat()
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn the_header_is_that_of_a_safetensors_file() {
        for tokens in [1, 12, 123] {
            let mut file = header(tokens, 5);
            assert_eq!(file.len() % 8, 0);
            file.resize(file.len() + tokens * 20, 0);
            let file = SafeTensors::deserialize(&file).unwrap();
            assert_eq!(file.tensor("logits").unwrap().shape(), [tokens, 5]);
        }
    }
}
