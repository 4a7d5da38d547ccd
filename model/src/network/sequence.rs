//! One sequence of tokens and what the network remembers of it.

use glm_kernels::KEYS;

use crate::error::Result;
use crate::network::kv::{KvPool, SequenceCache};
use crate::network::placement::Placement;

/// Token ids, their positions, and their keys and values.
///
/// It takes memory as it grows, from the pool of its model, and returns it when it is truncated or dropped. Made by
/// [`Model::sequence`](crate::Model::sequence); grows by [`Model::run`](crate::Model::run).
pub struct Sequence {
    /// The identity of the model it belongs to.
    pub(crate) model: u64,
    pub(crate) pool: KvPool,
    pub(crate) cache: SequenceCache,
    /// Positions of the tokens; `None` before the prompt.
    pub(crate) placement: Option<Placement>,
    /// The tokens in the cache.
    pub(crate) ids: Vec<u32>,
    capacity: usize,
}

impl Sequence {
    /// An empty sequence of up to `capacity` tokens.
    pub(crate) fn new(model: u64, pool: &KvPool, capacity: usize) -> Self {
        let cache = pool.cache();
        Self { model, pool: pool.clone(), cache, placement: None, ids: Vec::new(), capacity }
    }

    /// Tokens in the cache.
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

    /// Most tokens that it may hold: its context.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of its keys and values, those it shares with other sequences included.
    pub fn kv_bytes(&self) -> u64 {
        self.cache.bytes(self.pool.page_bytes())
    }

    /// Removes all tokens and returns their memory to the pool.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Removes all tokens but the first `len` and returns the memory of the others. A bidirectional context cannot be
    /// shortened: if `len` is less than the context, nothing is left.
    pub fn truncate(&mut self, len: usize) {
        self.ids.truncate(self.kept(len));
        if self.ids.is_empty() {
            self.placement = None;
        }
        self.trim();
    }

    /// A sequence that begins with the first `len` tokens of this one, without computing them again. Both share the memory of
    /// that beginning until one of them writes to its last page, which is then copied. As with [`Sequence::truncate`], of a
    /// bidirectional context all or nothing is kept.
    #[must_use]
    pub fn fork(&self, len: usize) -> Self {
        let len = self.kept(len);
        Self {
            model: self.model,
            pool: self.pool.clone(),
            cache: self.cache.fork(len),
            placement: self.placement.filter(|_| len > 0),
            ids: self.ids[..len].to_vec(),
            capacity: self.capacity,
        }
    }

    /// How many tokens are left if at most `len` are to be kept.
    fn kept(&self, len: usize) -> usize {
        let keeps = self.placement.is_some_and(|placement| placement.context() <= len);
        if keeps { len.min(self.ids.len()) } else { 0 }
    }

    /// Takes memory for `more` tokens; [`Sequence::trim`] undoes it.
    ///
    /// # Errors
    /// If the pool or the machine has no memory for them.
    pub(crate) fn reserve(&mut self, more: usize) -> Result<()> {
        let needed = self.ids.len() + more;
        self.ids.reserve(more.next_multiple_of(KEYS));
        self.pool.reserve(&mut self.cache, self.ids.len(), needed)
    }

    /// Returns pages that hold no token.
    pub(crate) fn trim(&mut self) {
        self.pool.trim(&mut self.cache, self.ids.len());
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.pool.trim(&mut self.cache, 0);
    }
}
