//! A network that is run layer by layer over all texts, while its matrices are replaced by quantized ones.

use std::ops::ControlFlow;

use glm_kernels::{Isa, parallel_region};

use super::Tensors;
use super::inputs::Inputs;
use super::texts::Calibration;
use crate::error::{Error, Result};
use crate::files::config::{Config, MaskKind};
use crate::files::prefix::{PrefixBytes, PrefixRows, StoredPrefix};
use crate::files::weights::{
    Load, StoredLinear, StoredMatrix, StoredNetwork, StoredNorm, StoredVector,
};
use crate::memory::{self, zeros};
use crate::network::activations::Activations;
use crate::network::adapter::Adapter;
use crate::network::chunk::Chunk;
use crate::network::hook::RunOptions;
use crate::network::kv::{KvFormat, KvPool};
use crate::network::layer::{
    Convert, Expert, FeedForward, Layer, Linear, LinearRole, Norm, NormRole, Weight, Weights,
};
use crate::network::pass::{Pass, Stage};
use crate::network::placement::Placement;
use crate::network::rope::Rotation;
use crate::network::sequence::Sequence;
use crate::network::workspace::{Workspace, tile};

/// Its sequences are those of no model.
const IDENTITY: u64 = 0;

/// What errors call the hidden states of the texts.
pub(super) const STATES: &str = "the states of the texts";

/// What errors call rows of inputs.
const INPUT_ROWS: &str = "the inputs of a matrix";

/// Rows of inputs that are added to the moments together. The moments are read and written once for them.
const INPUTS: usize = 2048;

pub(super) struct Layers<'a> {
    /// That of the model, with one layer.
    config: Config,
    /// The current layer, with the matrices that are quantized; behind the last, the final norm.
    weights: Weights,
    rotation: Rotation,
    isa: Isa,
    activations: Activations,
    workspace: Workspace,
    pool: KvPool,
    /// Keys and values of a trained prefix in all layers.
    prefix_rows: Option<PrefixRows>,
    /// Those of the current layer.
    prefix: Option<Adapter>,
    texts: &'a [Vec<u32>],
    /// The hidden states of each text before the current layer or its feed-forward block, `[tokens, hidden]`.
    states: Vec<Vec<f32>>,
    /// Inputs of a matrix that are not in the moments yet.
    inputs: Vec<f32>,
}

impl<'a> Layers<'a> {
    /// Without states, which must then be [computed](Self::embed), or [set](Self::states_mut) to those of another.
    pub(super) fn new(
        network: &StoredNetwork,
        config: &Config,
        prefix: Option<&StoredPrefix>,
        calibration: &'a Calibration,
        isa: Isa,
        activations: Activations,
        tensors: &dyn Tensors,
    ) -> Result<Self> {
        // Its weights are not kept: they may be copies.
        let compute = |prefix: &StoredPrefix| {
            let encoder =
                prefix.load(config, &|matrix| tensors.matrix(matrix), &|it| tensors.vector(it))?;
            parallel_region(|| encoder.all_rows(isa))
        };
        let prefix_rows = prefix.map(compute).transpose()?;
        let texts = calibration.texts();
        let longest = calibration.longest();
        let config = of_one_layer(config);
        let mut workspace =
            Workspace::new(IDENTITY, &config, tile(&config), network.ordered_inputs())?;
        workspace.fit_rows(&config, longest)?;
        let weights = Weights {
            embedding: Weight::empty(),
            positions: None,
            layers: Vec::new(),
            // Published checkpoints have it in their last file, which may not be there yet.
            final_norm: Norm { weight: Vec::new(), bias: None, eps: 0.0 },
            head: None,
        };
        Ok(Self {
            weights,
            rotation: Rotation::new(&config),
            isa,
            activations,
            workspace,
            pool: KvPool::new(&config, KvFormat::of(activations, &config), None)?,
            prefix_rows,
            prefix: None,
            texts,
            states: Vec::new(),
            inputs: Vec::new(),
            config,
        })
    }

    /// Computes the states before the first layer.
    ///
    /// # Errors
    /// If a table cannot be read, or memory cannot be allocated.
    pub(super) fn embed(&mut self, network: &StoredNetwork, tensors: &dyn Tensors) -> Result<()> {
        let hidden = self.config.hidden;
        let states = self.texts.iter().map(|ids| zeros(ids.len() * hidden, STATES));
        self.states = states.collect::<Result<_>>()?;
        let mut load = Load {
            config: &self.config,
            matrix: &mut |matrix| tensors.matrix(matrix),
            vector: &mut |vector| tensors.vector(vector),
        };
        self.weights.embedding = load.table(&network.embedding)?;
        if let Some([first, second]) = &network.positions {
            self.weights.positions = Some([load.table(first)?, load.table(second)?]);
        }
        self.each(&mut |pass, states, _| pass.embeddings(states), &mut |_, _| {
            ControlFlow::Continue(())
        })?;
        // They may be copies.
        self.weights.embedding = Weight::empty();
        self.weights.positions = None;
        Ok(())
    }

    /// Bytes of the states, of a pass, of inputs, and of a trained prefix.
    pub(super) fn bytes(
        config: &Config,
        prefix: Option<PrefixBytes>,
        calibration: &Calibration,
        activations: Activations,
    ) -> u64 {
        let PrefixBytes { positions, rows: prefix_rows, encoder } = prefix.unwrap_or_default();
        let config = of_one_layer(config);
        let longest = calibration.longest();
        let query_rank = config.latent.and_then(|latent| latent.query_rank).unwrap_or(0);
        let widest = config.hidden.max(config.intermediate_size).max(config.attention_width());
        let widest = widest.max(query_rank);
        let rows = (INPUTS + longest).min(calibration.tokens());
        let others = 4 * (calibration.tokens() * config.hidden + rows * widest) as u64
            + Workspace::bytes(&config, longest, 0)
            + KvFormat::of(activations, &config).bytes(&config, positions + longest)
            + KvFormat::of(activations, &config).bytes(&config, positions);
        // The encoder is dropped before the others are allocated, but for states of an earlier call.
        prefix_rows + others.max(encoder)
    }

    /// Goes to layer `index`, whose matrices must then be [replaced](Self::replace).
    ///
    /// # Errors
    /// If a norm or a bias cannot be read, or memory cannot be allocated.
    pub(super) fn enter(
        &mut self,
        index: usize,
        layer: &Layer<StoredLinear, StoredNorm>,
        tensors: &dyn Tensors,
    ) -> Result<()> {
        // Each is quantized before it is used.
        let matrix = &mut |_: &StoredMatrix| Ok(Weight::empty());
        let vector = &mut |vector: &StoredVector| tensors.vector(vector);
        let layer = layer.try_map(&mut Load { config: &self.config, matrix, vector })?;
        self.weights.layers = vec![layer];
        // Gives its pages back first.
        self.prefix = None;
        let Self { pool, config, isa, .. } = &*self;
        let prefix =
            |rows| parallel_region(|| Adapter::of_layer(IDENTITY, pool, config, *isa, rows, index));
        self.prefix = self.prefix_rows.as_ref().map(prefix).transpose()?;
        Ok(())
    }

    /// Adds the inputs of a matrix to `moments`. Those of [`LinearRole::Up`] come after the attention, which is added to the states.
    ///
    /// # Errors
    /// If memory cannot be allocated, or `progress`, which gets the part that is done, cancels.
    pub(super) fn inputs(
        &mut self,
        role: LinearRole,
        mut moments: Option<&mut Inputs>,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<()> {
        let count = self.texts.len();
        let is_kept = moments.is_some();
        if let Some(moments) = &moments {
            let (longest, all) = self
                .texts
                .iter()
                .map(Vec::len)
                .fold((0, 0), |(longest, all), n| (longest.max(n), all + n));
            let rows = (INPUTS + longest).min(all);
            memory::reserve(&mut self.inputs, rows * moments.len(), INPUT_ROWS)?;
        }
        self.each(
            &mut |pass, states, inputs| {
                let see = &mut |x: &[f32]| {
                    if is_kept {
                        inputs.extend_from_slice(x);
                    }
                };
                pass.stage(0, Stage::Input(role), states, see);
            },
            &mut |text, inputs| {
                let done = text + 1;
                if let Some(moments) = &mut moments
                    && (done == count || inputs.len() >= INPUTS * moments.len())
                {
                    moments.add(inputs);
                    inputs.clear();
                }
                progress(done as f32 / count as f32)
            },
        )
    }

    /// Adds the feed-forward block of the layer to the states.
    ///
    /// # Errors
    /// As [`Self::inputs`].
    pub(super) fn finish(
        &mut self,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<()> {
        let count = self.texts.len();
        let run: &mut Run<'_> = &mut |pass, states, _| {
            pass.stage(0, Stage::FeedForward, states, &mut |_| {});
        };
        self.each(run, &mut |text, _| progress((text + 1) as f32 / count as f32))
    }

    /// Goes to the head, behind the last layer.
    ///
    /// # Errors
    /// If the final norm cannot be read.
    pub(super) fn enter_head(&mut self, norm: &StoredNorm, tensors: &dyn Tensors) -> Result<()> {
        let matrix = &mut |_: &StoredMatrix| Ok(Weight::empty());
        let vector = &mut |vector: &StoredVector| tensors.vector(vector);
        self.weights.final_norm =
            Load { config: &self.config, matrix, vector }.norm(NormRole::Hidden, norm)?;
        Ok(())
    }

    /// Adds the inputs of the head.
    ///
    /// # Errors
    /// If `progress` cancels.
    pub(super) fn head_inputs(
        &mut self,
        moments: &mut Inputs,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<()> {
        let count = self.states.len();
        for (text, states) in self.states.iter().enumerate() {
            let more = states.len().saturating_sub(self.inputs.len());
            memory::reserve(&mut self.inputs, more, INPUT_ROWS)?;
            self.inputs.resize(states.len(), 0.0);
            self.weights.final_norm.forward(self.isa, states, &mut self.inputs);
            moments.add(&self.inputs);
            if progress((text + 1) as f32 / count as f32).is_break() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Gives the current layer a matrix.
    pub(super) fn replace(&mut self, role: LinearRole, weight: Weight) {
        let linear = self.weights.layers.first_mut().and_then(|layer| layer.linear_mut(role));
        if let Some(linear) = linear {
            linear.weight = weight;
        }
    }

    /// Gives the current layer the matrices of an expert, or of that which all tokens have.
    pub(super) fn replace_expert(&mut self, index: Option<usize>, weights: Expert<Weight>) {
        let layer = self.weights.layers.first_mut().map(|layer| &mut layer.feed_forward);
        let Some(FeedForward::Sparse { experts, shared, .. }) = layer else { return };
        let expert = match index {
            Some(index) => experts.get_mut(index),
            None => shared.as_mut(),
        };
        if let Some(Expert { gate, up, down }) = expert {
            (gate.weight, up.weight, down.weight) = (weights.gate, weights.up, weights.down);
        }
    }

    /// The router of the current layer, if it has one.
    pub(super) fn router(&self) -> Option<&Linear> {
        match &self.weights.layers.first()?.feed_forward {
            FeedForward::Sparse { router, .. } => Some(router),
            FeedForward::Dense { .. } => None,
        }
    }

    /// Adds the attention to the states; returns the inputs of the feed-forward block of all texts, `[tokens, hidden]`.
    ///
    /// # Errors
    /// As [`Self::inputs`].
    pub(super) fn feed_forward_inputs(
        &mut self,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Vec<f32>> {
        let count = self.texts.len();
        let tokens: usize = self.texts.iter().map(Vec::len).sum();
        let mut kept = memory::room(tokens * self.config.hidden, INPUT_ROWS)?;
        let run: &mut Run<'_> = &mut |pass, states, _| {
            let see = &mut |x: &[f32]| kept.extend_from_slice(x);
            pass.stage(0, Stage::Input(LinearRole::Up), states, see);
        };
        self.each(run, &mut |text, _| progress((text + 1) as f32 / count as f32))?;
        Ok(kept)
    }

    /// The states of the texts.
    pub(super) fn states_mut(&mut self) -> &mut Vec<Vec<f32>> {
        &mut self.states
    }

    /// Normalizes states as the head gets them.
    pub(super) fn normalize(&self, states: &[f32], normed: &mut [f32]) {
        self.weights.final_norm.forward(self.isa, states, normed);
    }

    /// Calls `run` with a pass over each text, its states, and the buffer of inputs. `then` gets the number of the text and the
    /// inputs, outside of the parallel region, and can cancel.
    fn each(
        &mut self,
        run: &mut Run<'_>,
        then: &mut dyn FnMut(usize, &mut Vec<f32>) -> ControlFlow<()>,
    ) -> Result<()> {
        let Self {
            config,
            weights,
            rotation,
            isa,
            activations,
            workspace,
            pool,
            prefix,
            texts,
            states,
            inputs,
            ..
        } = self;
        for (index, (ids, states)) in texts.iter().zip(states).enumerate() {
            let mut sequence = Sequence::new(IDENTITY, pool, prefix.as_ref(), ids.len());
            sequence.reserve(ids.len())?;
            workspace.placements.clear();
            workspace.placements.push(match (config.mask, config.special.sop) {
                // Only random ids need no `sop`.
                (MaskKind::Prefix(_), None) => Placement::with_context(ids.len()),
                (mask, _) => Placement::of(ids, mask, &config.special)?,
            });
            let mut pass = Pass {
                config,
                weights,
                rotation,
                isa: *isa,
                activations: *activations,
                chunks: &mut [Chunk::none(&mut sequence, ids)],
                workspace,
                options: RunOptions::default(),
            };
            parallel_region(|| run(&mut pass, states, inputs));
            if then(index, inputs).is_break() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }
}

/// Gets a pass over a text, its states, and a buffer for inputs.
type Run<'r> = dyn FnMut(&mut Pass<'_, '_, '_>, &mut [f32], &mut Vec<f32>) + Send + 'r;

/// Only one layer is in memory at a time, and its keys and values.
fn of_one_layer(config: &Config) -> Config {
    Config { layers: 1, ..config.clone() }
}

#[cfg(test)]
mod tests;
