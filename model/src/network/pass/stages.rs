//! One layer in stages, for calibration: each matrix is quantized with the inputs that it has behind the quantized ones before it.

use std::ops::Range;

use super::{Pass, tiles};
use crate::network::chunk::Cursor;
use crate::network::layer::{Attention, LinearRole};

/// A part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The input of a matrix is shown. That of [`LinearRole::Up`] needs the attention, which is then added to the states.
    Input(LinearRole),
    /// The feed-forward block is added to the states.
    FeedForward,
}

impl Pass<'_, '_, '_> {
    /// The states before the first layer, `[tokens, hidden]`, of the only chunk.
    pub(crate) fn embeddings(&mut self, states: &mut [f32]) {
        let hidden = self.config.hidden;
        self.each_batch(|pass, rows, first| {
            pass.embed(rows);
            states[first * hidden..][..rows * hidden]
                .copy_from_slice(&pass.workspace.x[..rows * hidden]);
        });
    }

    /// Runs a stage of layer `index` for the only chunk, whose sequence must be new. `states`: `[tokens, hidden]`. `see` gets the inputs
    /// of some rows, `[rows, inputs]`.
    pub(crate) fn stage(
        &mut self,
        index: usize,
        stage: Stage,
        states: &mut [f32],
        see: &mut dyn FnMut(&[f32]),
    ) {
        let hidden = self.config.hidden;
        self.each_batch(|pass, rows, first| {
            let states = &mut states[first * hidden..][..rows * hidden];
            pass.workspace.x[..rows * hidden].copy_from_slice(states);
            pass.stage_of_batch(index, stage, rows, see);
            states.copy_from_slice(&pass.workspace.x[..rows * hidden]);
        });
    }

    fn stage_of_batch(
        &mut self,
        index: usize,
        stage: Stage,
        rows: usize,
        see: &mut dyn FnMut(&[f32]),
    ) {
        let (layer, tile) = (&self.weights.layers[index], self.workspace.tile);
        let (hidden, width) = (self.config.hidden, self.config.attention_width());
        let normed = |pass: &mut Self, rows: Range<usize>, see: &mut dyn FnMut(&[f32])| {
            let norm = match stage {
                Stage::Input(LinearRole::Qkv) => &layer.attention_norm,
                _ => &layer.feed_forward_norm,
            };
            let normed = &mut pass.workspace.normed[..rows.len() * hidden];
            let x = &pass.workspace.x[rows.start * hidden..rows.end * hidden];
            norm.forward(pass.isa, x, normed);
            see(normed);
        };
        if matches!(stage, Stage::Input(LinearRole::AttentionOutput | LinearRole::Up)) {
            for rows in tiles(rows, tile) {
                self.project(index, layer, rows);
            }
        }
        for rows in tiles(rows, tile) {
            match stage {
                Stage::Input(LinearRole::Qkv) => normed(self, rows, see),
                Stage::Input(LinearRole::QueryUp) => {
                    if let Attention::Latent(latent) = &layer.attention {
                        self.first_projection(index, layer, &rows);
                        see(self.query_inputs(latent, rows.len()));
                    }
                }
                Stage::Input(LinearRole::AttentionOutput) => {
                    self.attention(index, layer, rows.clone());
                    see(&self.workspace.wide[..rows.len() * width]);
                }
                Stage::Input(LinearRole::Up) => {
                    self.attend(index, layer, rows.clone());
                    normed(self, rows, see);
                }
                Stage::Input(LinearRole::Down) => see(self.activated(index, layer, &rows)),
                Stage::FeedForward => self.feed_forward(index, layer, rows),
                // They have no input of all tokens, or one of each head.
                Stage::Input(_) => {}
            }
        }
    }

    /// Calls `work` with the number of rows of each batch, and its first token.
    fn each_batch(&mut self, mut work: impl FnMut(&mut Self, usize, usize)) {
        let (mut cursor, mut first, tile) = (Cursor::default(), 0, self.workspace.tile);
        loop {
            let rows = self.plan(&mut cursor, tile);
            if rows == 0 {
                return;
            }
            self.rotate();
            work(self, rows, first);
            first += rows;
        }
    }
}
