//! A cache of sequences whose beginnings later prompts may share.

mod file;
mod part;

use std::collections::HashMap;

use glm_kernels::KEYS;

use crate::limits::run::MAX_SEQUENCES;
use crate::network::model::Model;
use crate::network::sequence::Sequence;

/// Sequences that ended, least recently used first. The pages that they share count once.
pub(crate) struct PrefixCache {
    budget: u64,
    sequences: Vec<Sequence>,
    /// How many of the sequences have each page.
    pages: HashMap<usize, usize>,
}

impl PrefixCache {
    /// A cache of at most `budget` bytes of pages.
    pub(crate) fn new(budget: u64) -> Self {
        Self { budget, sequences: Vec::new(), pages: HashMap::new() }
    }

    /// Bytes of the pages of all sequences.
    pub(crate) fn bytes(&self) -> u64 {
        self.pages.len() as u64 * self.sequences.first().map_or(0, Sequence::page_bytes)
    }

    /// Number of tokens at the beginning of `prompt` that a sequence of the cache has, with the adapter of `model`.
    pub(crate) fn reusable(&self, model: &Model, prompt: &[u32]) -> usize {
        self.sequences.iter().map(|other| common(model, prompt, other)).max().unwrap_or(0)
    }

    /// The sequence with the longest beginning of `prompt`, and the length of this beginning. The sequence becomes the most recently
    /// used one. `None` if no sequence has any of it.
    pub(crate) fn find(&mut self, model: &Model, prompt: &[u32]) -> Option<(usize, &Sequence)> {
        let found = self.sequences.iter().map(|other| common(model, prompt, other)).enumerate();
        let (index, len) = found.max_by_key(|&(_, len)| len).filter(|&(_, len)| len > 0)?;
        self.sequences[index..].rotate_left(1);
        self.sequences.last().map(|found| (len, found))
    }

    /// Adds a sequence, or as much of its beginning as the budget allows, and removes others until the budget is kept.
    pub(crate) fn insert(&mut self, mut sequence: Sequence) {
        let pages = self.budget / sequence.page_bytes().max(1);
        let positions = usize::try_from(pages).unwrap_or(usize::MAX).saturating_mul(KEYS);
        sequence.truncate(positions.saturating_sub(sequence.prefix()));
        if sequence.is_empty() {
            return;
        }
        // A sequence that begins another one adds nothing to it.
        if let Some(index) = self.sequences.iter().position(|other| begins(&sequence, other)) {
            let longer = self.sequences.remove(index);
            self.sequences.push(longer);
            return;
        }
        while let Some(index) = self.sequences.iter().position(|other| begins(other, &sequence)) {
            self.remove(index);
        }
        sequence.pages().into_iter().for_each(|page| *self.pages.entry(page).or_default() += 1);
        self.sequences.push(sequence);
        while (self.bytes() > self.budget || self.sequences.len() > MAX_SEQUENCES) && self.evict() {
        }
    }

    /// Removes the least recently used sequence. Returns `false` if there is none.
    pub(crate) fn evict(&mut self) -> bool {
        if self.sequences.is_empty() {
            return false;
        }
        self.remove(0);
        true
    }

    fn remove(&mut self, index: usize) {
        for page in self.sequences.remove(index).pages() {
            if let Some(count) = self.pages.get_mut(&page) {
                *count -= 1;
                if *count == 0 {
                    self.pages.remove(&page);
                }
            }
        }
    }
}

/// Number of tokens at the beginning of `prompt` that `other` has, behind the adapter of `model`.
fn common(model: &Model, prompt: &[u32], other: &Sequence) -> usize {
    if model.begins(other) { model.reusable(prompt, other) } else { 0 }
}

/// Whether `long` begins with everything that `short` has.
fn begins(short: &Sequence, long: &Sequence) -> bool {
    short.adapter() == long.adapter() && long.ids().starts_with(short.ids())
}
