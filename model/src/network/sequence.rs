//! A sequence of tokens and its KV cache.

use glm_kernels::KEYS;

use crate::error::Result;
use crate::network::adapter::Adapter;
use crate::network::kv::{KvPool, SequenceCache};
use crate::network::placement::Placement;

/// Token ids, their positions, and their KV cache. With an adapter, it is computed with the updates of that, or the cache begins with the
/// positions of its prefix.
///
/// It allocates memory from the pool of its model as it grows, and returns it when it is truncated or dropped. Created by
/// [`Model::sequence`](crate::Model::sequence); extended by [`Model::run`](crate::Model::run).
pub struct Sequence {
    /// Identity of its model.
    pub(crate) model: u64,
    pub(crate) pool: KvPool,
    /// What the cache begins with, or is computed with.
    adapter: Option<Adapter>,
    /// The prefix of the adapter, then the tokens.
    pub(crate) cache: SequenceCache,
    /// Positions of the tokens; `None` while it is empty.
    pub(crate) placement: Option<Placement>,
    /// The tokens in the cache.
    pub(crate) ids: Vec<u32>,
    capacity: usize,
}

impl Sequence {
    /// An empty sequence of up to `capacity` tokens.
    pub(crate) fn new(
        model: u64,
        pool: &KvPool,
        adapter: Option<&Adapter>,
        capacity: usize,
    ) -> Self {
        let (pool, adapter) = (pool.clone(), adapter.cloned());
        let prefix = adapter.as_ref().and_then(Adapter::cache);
        let cache = prefix.unwrap_or_else(|| pool.cache());
        Self { model, pool, adapter, cache, placement: None, ids: Vec::new(), capacity }
    }

    /// Number of tokens in the cache.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it has no tokens yet.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The tokens in the cache.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// What it begins with, or is computed with.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// Positions of the cache before the first token.
    pub(crate) fn prefix(&self) -> usize {
        self.adapter.as_ref().map_or(0, Adapter::tokens)
    }

    /// Positions of the cache that are in use: the prefix and the tokens.
    pub(crate) fn positions(&self) -> usize {
        self.prefix() + self.ids.len()
    }

    /// Most tokens that it can hold: its context size.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of its KV cache, including pages shared with other sequences.
    pub fn kv_bytes(&self) -> u64 {
        self.cache.bytes(self.pool.page_bytes())
    }

    /// Removes all tokens and returns their memory to the pool.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Removes all tokens but the first `len` and returns the memory of the others to the pool. A bidirectional context cannot be
    /// shortened: if `len` is less than the context, all tokens are removed.
    pub fn truncate(&mut self, len: usize) {
        self.ids.truncate(self.kept(len));
        if self.ids.is_empty() {
            self.placement = None;
        }
        self.trim();
    }

    /// A sequence with the first `len` tokens of this one, without computing them again. The two share the pages of this prefix.
    /// The last page is copied when one of them writes to it. As with [`Sequence::truncate`], a bidirectional context is kept
    /// entirely or not at all.
    #[must_use]
    pub fn fork(&self, len: usize) -> Self {
        let len = self.kept(len);
        if len == 0 {
            return Self::new(self.model, &self.pool, self.adapter(), self.capacity);
        }
        Self {
            model: self.model,
            pool: self.pool.clone(),
            adapter: self.adapter.clone(),
            cache: self.cache.fork(self.prefix() + len),
            placement: self.placement,
            ids: self.ids[..len].to_vec(),
            capacity: self.capacity,
        }
    }

    /// Appends tokens of a causal model whose keys and values are known: `fill` writes each page from the next position on. That must be
    /// the first of a page, or that behind the prefix, whose page is then written entirely.
    ///
    /// # Errors
    /// Those of `fill`, or if the budget of the pool or the memory is exhausted. The sequence is unchanged then.
    pub(crate) fn restore(
        &mut self,
        ids: &[u32],
        mut fill: impl FnMut([&mut [u8]; 2]) -> Result<()>,
    ) -> Result<()> {
        debug_assert!(self.ids.is_empty() || self.positions().is_multiple_of(KEYS));
        let first = self.positions() / KEYS;
        let filled = self.reserve(ids.len()).and_then(|()| {
            let pages = first..(self.positions() + ids.len()).div_ceil(KEYS);
            // Pages that were just allocated or copied are not shared.
            for page in pages {
                self.cache.page_mut(page).map_or(Ok(()), &mut fill)?;
            }
            Ok(())
        });
        if filled.is_ok() {
            self.ids.extend_from_slice(ids);
            self.placement = Some(Placement::CAUSAL);
        }
        self.trim();
        filled
    }

    /// The bytes of page `index`, in two parts.
    pub(crate) fn page(&self, index: usize) -> [&[u8]; 2] {
        self.cache.page(index)
    }

    /// The same sequence with another context size, which must not be less than its length.
    pub(crate) fn with_capacity(mut self, capacity: usize) -> Self {
        debug_assert!(self.ids.len() <= capacity);
        self.capacity = capacity;
        self
    }

    /// The pages of its KV cache. A page that another sequence shares has the same number there.
    pub(crate) fn pages(&self) -> Vec<usize> {
        self.cache.page_numbers()
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(&self) -> u64 {
        self.pool.page_bytes()
    }

    /// Number of tokens that remain if at most `len` are kept.
    fn kept(&self, len: usize) -> usize {
        let keeps = self.placement.is_some_and(|placement| placement.context() <= len);
        if keeps { len.min(self.ids.len()) } else { 0 }
    }

    /// Allocates memory for `more` tokens; [`Sequence::trim`] undoes it.
    ///
    /// # Errors
    /// If the budget of the pool or the memory is exhausted.
    pub(crate) fn reserve(&mut self, more: usize) -> Result<()> {
        let len = self.positions();
        self.ids.reserve(more.next_multiple_of(KEYS));
        self.pool.reserve(&mut self.cache, len, len + more)
    }

    /// Returns pages without tokens to the pool.
    pub(crate) fn trim(&mut self) {
        let positions = self.positions();
        let prefix = self.adapter.as_ref().filter(|_| self.ids.is_empty());
        match prefix.and_then(Adapter::cache) {
            // Its own copy of the last page of the prefix is not needed any more.
            Some(prefix) => {
                self.pool.trim(&mut self.cache, 0);
                self.cache = prefix;
            }
            None => self.pool.trim(&mut self.cache, positions),
        }
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.pool.trim(&mut self.cache, 0);
    }
}
