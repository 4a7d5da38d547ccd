//! A network that is run layer by layer over all texts, while its matrices are replaced by quantized ones.

use std::ops::ControlFlow;

use glm_kernels::{Isa, parallel_region};

use super::moments::Moments;
use super::texts::Calibration;
use crate::error::{Error, Result};
use crate::files::config::Config;
use crate::files::weights::{self, StoredNetwork};
use crate::network::activations::Activations;
use crate::network::chunk::Chunk;
use crate::network::hook::RunOptions;
use crate::network::kv::{KvFormat, KvPool};
use crate::network::layer::{LinearRole, Weight, Weights};
use crate::network::pass::{Pass, Stage};
use crate::network::placement::Placement;
use crate::network::rope::Rotation;
use crate::network::sequence::Sequence;
use crate::network::workspace::{TILE, Workspace};

/// The type of the activations behind quantized matrices: that of models by default.
const ACTIVATIONS: Activations = Activations::Int8;

/// Its sequences are those of no model.
const IDENTITY: u64 = 0;

pub(super) struct Layers<'a> {
    config: &'a Config,
    weights: Weights,
    rotation: Rotation,
    isa: Isa,
    workspace: Workspace,
    pool: KvPool,
    texts: &'a [Vec<u32>],
    /// The hidden states of each text before the current layer or its feed-forward block, `[tokens, hidden]`.
    states: Vec<Vec<f32>>,
    /// The inputs of a matrix for one text.
    inputs: Vec<f32>,
}

impl<'a> Layers<'a> {
    pub(super) fn new(
        network: &StoredNetwork,
        config: &'a Config,
        calibration: &'a Calibration,
        isa: Isa,
    ) -> Result<Self> {
        let texts = calibration.texts();
        if let Some(id) = texts.iter().flatten().find(|&&id| id as usize >= config.vocab) {
            let problem = format!("id {id} is outside the vocabulary of {} ids", config.vocab);
            return Err(Error::Ids(problem));
        }
        let longest = calibration.longest();
        config.check_capacity(longest)?;
        let mut workspace = Workspace::new(IDENTITY, config, TILE)?;
        workspace.fit_rows(config, longest)?;
        let mut layers = Self {
            config,
            weights: weights::load(network, config, &mut |_, _| {})?,
            rotation: Rotation::new(config),
            isa,
            workspace,
            pool: KvPool::new(config, KvFormat::of(ACTIVATIONS), None)?,
            texts,
            states: texts.iter().map(|ids| vec![0.0; ids.len() * config.hidden]).collect(),
            inputs: Vec::new(),
        };
        layers.each(&mut |pass, states, _| pass.embeddings(states), &mut |_, _| {
            ControlFlow::Continue(())
        })?;
        Ok(layers)
    }

    /// Bytes of the states, and of a pass.
    pub(super) fn bytes(config: &Config, calibration: &Calibration) -> u64 {
        let longest = calibration.longest();
        let widest = config.hidden.max(config.intermediate_size) as u64;
        let of_a_text = KvFormat::of(ACTIVATIONS).bytes_per_token(config) + 4 * widest;
        4 * (calibration.tokens() * config.hidden) as u64
            + Workspace::bytes(config, longest)
            + of_a_text * longest as u64
    }

    /// Adds the inputs of a matrix to `moments`. Those of [`LinearRole::Up`] come after the attention, which is added to the states.
    ///
    /// # Errors
    /// If memory cannot be allocated, or `progress`, which gets the part that is done, cancels.
    pub(super) fn inputs(
        &mut self,
        index: usize,
        role: LinearRole,
        mut moments: Option<&mut Moments>,
        progress: &mut dyn FnMut(f32) -> ControlFlow<()>,
    ) -> Result<()> {
        let count = self.texts.len() as f32;
        self.each(
            &mut |pass, states, inputs| {
                pass.stage(index, Stage::Input(role), states, &mut |x| inputs.extend_from_slice(x));
            },
            &mut |text, inputs| {
                if let Some(moments) = &mut moments {
                    moments.add(inputs);
                }
                progress((text + 1) as f32 / count)
            },
        )
    }

    /// Adds the feed-forward block of a layer to the states.
    pub(super) fn finish(&mut self, index: usize) -> Result<()> {
        let run: &mut Run<'_> = &mut |pass, states, _| {
            pass.stage(index, Stage::FeedForward, states, &mut |_| {});
        };
        self.each(run, &mut |_, _| ControlFlow::Continue(()))
    }

    /// Adds the inputs of the head.
    pub(super) fn head_inputs(&mut self, moments: &mut Moments) {
        for states in &self.states {
            self.inputs.resize(states.len(), 0.0);
            self.weights.final_norm.forward(self.isa, states, &mut self.inputs);
            moments.add(&self.inputs);
        }
    }

    pub(super) fn replace(&mut self, index: usize, role: LinearRole, weight: Weight) {
        if let Some(linear) = self.weights.layers[index].linear_mut(role) {
            linear.weight = weight;
        }
    }

    /// Calls `run` with a pass over each text, its states, and an empty buffer for inputs. `then` gets the number of the text and the
    /// inputs, outside of the parallel region, and can cancel.
    fn each(
        &mut self,
        run: &mut Run<'_>,
        then: &mut dyn FnMut(usize, &[f32]) -> ControlFlow<()>,
    ) -> Result<()> {
        let Self { config, weights, rotation, isa, workspace, pool, texts, states, inputs } = self;
        for (index, (ids, states)) in texts.iter().zip(states).enumerate() {
            let mut sequence = Sequence::new(IDENTITY, pool, ids.len());
            sequence.reserve(ids.len())?;
            workspace.placements.clear();
            workspace.placements.push(Placement::of(ids, config.mask, &config.special)?);
            let mut pass = Pass {
                config,
                weights,
                rotation,
                isa: *isa,
                activations: ACTIVATIONS,
                chunks: &mut [Chunk::none(&mut sequence, ids)],
                workspace,
                options: RunOptions::default(),
            };
            inputs.clear();
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
