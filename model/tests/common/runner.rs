//! A model and one sequence, for tests that call `Model::run` directly.

#![allow(dead_code, reason = "each test file uses its part")]

use glm_model::{Chunk, Model, RunOptions, Sequence, Workspace};

/// The default value of `T`, changed by a closure.
pub fn with<T: Default>(change: impl FnOnce(&mut T)) -> T {
    let mut value = T::default();
    change(&mut value);
    value
}

/// A model and one sequence.
pub struct Runner {
    pub model: Model,
    pub sequence: Sequence,
    pub workspace: Workspace,
}

impl Runner {
    /// A sequence of `capacity` tokens, or of the context size of the model.
    pub fn new(model: &Model, capacity: usize) -> Self {
        let capacity = capacity.min(model.config().max_context);
        let (sequence, workspace) = (model.sequence(Some(capacity)), model.workspace());
        Self { model: model.clone(), sequence: sequence.unwrap(), workspace: workspace.unwrap() }
    }

    /// Feeds `ids`; returns the logits of all tokens.
    pub fn all(&mut self, ids: &[u32]) -> Vec<f32> {
        let mut chunks = [Chunk::all(&mut self.sequence, ids)];
        let logits = self.model.run(&mut self.workspace, &mut chunks, RunOptions::default());
        logits.unwrap().chunk(0).flatten().copied().collect()
    }

    /// Feeds `ids`; returns the logits of the last token.
    pub fn last(&mut self, ids: &[u32]) -> Vec<f32> {
        let mut chunks = [Chunk::last(&mut self.sequence, ids)];
        let logits = self.model.run(&mut self.workspace, &mut chunks, RunOptions::default());
        logits.unwrap().last(0).to_vec()
    }
}

pub fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}
