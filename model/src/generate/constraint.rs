//! Restrictions of the ids of an answer, such as a grammar.

use std::fmt;

use crate::error::Result;

/// Decides which ids may follow the ids of an answer.
pub trait Constraint: fmt::Debug + Send {
    /// Inserts the ids that may follow into `allowed`, which is empty. Returns `false` if every id may follow; `allowed` is not used
    /// then. It may run on another thread while the model computes.
    ///
    /// # Errors
    /// If the ids cannot be determined, for example because a limit of time or memory is exceeded.
    fn allowed(&mut self, allowed: &mut IdSet) -> Result<bool>;

    /// Takes an id that was sampled. It is not called for ids that end the answer.
    ///
    /// # Errors
    /// If the id may not follow.
    fn accept(&mut self, id: u32) -> Result<()>;

    /// A copy in the same state.
    fn boxed_clone(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        (**self).boxed_clone()
    }
}

/// A set of ids of a vocabulary, a bit for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdSet(Vec<u32>);

impl IdSet {
    /// An empty set of ids below `vocab`.
    pub fn new(vocab: usize) -> Self {
        Self(vec![0; vocab.div_ceil(32)])
    }

    /// Whether the set has the id.
    pub fn contains(&self, id: u32) -> bool {
        self.0.get(id as usize / 32).is_some_and(|bits| bits >> (id % 32) & 1 == 1)
    }

    /// Inserts an id. Does nothing if the id is outside the vocabulary.
    pub fn insert(&mut self, id: u32) {
        if let Some(bits) = self.0.get_mut(id as usize / 32) {
            *bits |= 1 << (id % 32);
        }
    }

    /// Removes all ids.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }

    /// Bit `i % 32` of word `i / 32` is id `i`.
    pub fn words_mut(&mut self) -> &mut [u32] {
        &mut self.0
    }
}
