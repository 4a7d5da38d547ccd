//! A cache of sequences whose beginnings later prompts may share.

mod file;

use std::collections::HashSet;

use crate::network::model::Model;
use crate::network::sequence::Sequence;

/// Most sequences. Every search compares a prompt with all of them.
const MAX_SEQUENCES: usize = 256;

/// Sequences that ended, least recently used first. The pages that they share count once.
pub(crate) struct PrefixCache {
    budget: u64,
    sequences: Vec<Sequence>,
    /// Bytes of the pages of all sequences.
    bytes: u64,
}

impl PrefixCache {
    /// A cache of at most `budget` bytes of pages.
    pub(crate) fn new(budget: u64) -> Self {
        Self { budget, sequences: Vec::new(), bytes: 0 }
    }

    /// Bytes of the pages of all sequences.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn count_bytes(&mut self) {
        let pages: HashSet<_> = self.sequences.iter().flat_map(Sequence::pages).collect();
        let page = self.sequences.first().map_or(0, Sequence::page_bytes);
        self.bytes = pages.len() as u64 * page;
    }

    /// Number of tokens at the beginning of `prompt` that a sequence of the cache has.
    pub(crate) fn reusable(&self, model: &Model, prompt: &[u32]) -> usize {
        self.sequences.iter().map(|other| model.reusable(prompt, other)).max().unwrap_or(0)
    }

    /// As [`PrefixCache::reusable`]; the sequence becomes the most recently used one.
    pub(crate) fn touch(&mut self, model: &Model, prompt: &[u32]) -> usize {
        let found = self.sequences.iter().map(|other| model.reusable(prompt, other)).enumerate();
        let Some((index, len)) = found.max_by_key(|&(_, len)| len).filter(|&(_, len)| len > 0)
        else {
            return 0;
        };
        self.sequences[index..].rotate_left(1);
        len
    }

    /// A fork of the sequence with the longest beginning of `prompt`, with this beginning. `None` if no sequence has any of it.
    pub(crate) fn fork(&mut self, model: &Model, prompt: &[u32]) -> Option<Sequence> {
        let len = self.touch(model, prompt);
        self.sequences.last().filter(|_| len > 0).map(|used| used.fork(len))
    }

    /// Adds a sequence, and removes others until the budget is kept.
    pub(crate) fn insert(&mut self, sequence: Sequence) {
        if self.budget == 0 || sequence.is_empty() {
            return;
        }
        // A sequence that begins another one adds nothing to it.
        if let Some(index) = self.sequences.iter().position(|s| s.ids().starts_with(sequence.ids()))
        {
            let longer = self.sequences.remove(index);
            self.sequences.push(longer);
            return;
        }
        self.sequences.retain(|other| !sequence.ids().starts_with(other.ids()));
        self.sequences.push(sequence);
        self.count_bytes();
        while (self.bytes > self.budget || self.sequences.len() > MAX_SEQUENCES) && self.evict() {}
    }

    /// Removes the least recently used sequence. Returns `false` if there is none.
    pub(crate) fn evict(&mut self) -> bool {
        if self.sequences.is_empty() {
            return false;
        }
        self.sequences.remove(0);
        self.count_bytes();
        true
    }
}
