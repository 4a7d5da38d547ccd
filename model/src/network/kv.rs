//! The paged KV cache of all sequences of a model: pages of 128 positions from one pool with a budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use glm_kernels::{
    Attention, Cached, HeadRows, Int4, Isa, KEYS, KvCache, KvPage, KvShape, Mask, OutOfMemory,
    Partials, Values,
};
use half::f16;

use crate::error::{Error, Result};
use crate::files::config::Config;
use crate::limits::run::KEPT_BYTES;
use crate::network::activations::Activations;

/// Element type of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvFormat {
    /// Single precision; for comparison with other implementations.
    F32,
    /// Half precision; half of the memory.
    F16,
    /// 16-bit integers of the rotated heads, with one scale per head and token; as large as [`KvFormat::F16`], and more exact. Latent attention
    /// is faster with it on x86-64.
    Int16,
    /// 8-bit integers of the rotated heads, with one scale per head and token; about a quarter of the memory.
    Int8,
    /// As [`KvFormat::Int8`], with integers of 5 bits for keys and 4 bits for values, and a minimum; keys are differences from a mean.
    /// About a sixth of the memory.
    Int4,
}

impl KvFormat {
    /// The default of a model with these activations.
    pub(crate) fn of(activations: Activations, config: &Config) -> Self {
        match activations {
            Activations::F32 => Self::F32,
            Activations::Int8 if config.latent.is_some() => Self::Int16,
            Activations::Int8 => Self::F16,
        }
    }

    /// Bytes of the keys and values of a token.
    pub(crate) fn bytes_per_token(self, config: &Config) -> u64 {
        (self.page_bytes(shape(config)) / KEYS) as u64
    }

    /// Bytes of the keys and values of a sequence of `tokens` tokens.
    pub(crate) fn bytes(self, config: &Config, tokens: usize) -> u64 {
        tokens.div_ceil(KEYS) as u64 * self.page_bytes(shape(config)) as u64
    }

    /// Bytes of a page.
    pub(crate) fn page_bytes(self, shape: KvShape) -> usize {
        match self {
            Self::F32 => shape.page_bytes::<f32>(),
            Self::F16 => shape.page_bytes::<f16>(),
            Self::Int16 => shape.page_bytes::<i16>(),
            Self::Int8 => shape.page_bytes::<i8>(),
            Self::Int4 => shape.page_bytes::<Int4>(),
        }
    }
}

/// Dimensions of the KV cache of a model.
pub(crate) fn shape(config: &Config) -> KvShape {
    KvShape {
        layers: config.layers,
        heads: config.kv_heads,
        head_size: config.head_size,
        values: config.latent.map_or(Values::Own, |latent| Values::Keys(latent.rank)),
    }
}

/// Elements of an output of attention of one head, before the last matrix of latent attention.
pub(crate) fn value_size(config: &Config) -> usize {
    shape(config).value_size()
}

/// The memory for the KV caches of all sequences of a model. Clones share the pool.
///
/// A sequence allocates a page for every 128 positions on first use and returns its pages when it is dropped or truncated. A page
/// that several sequences share counts once.
#[derive(Clone)]
pub struct KvPool(Arc<Pool>);

struct Pool {
    shape: KvShape,
    format: KvFormat,
    page_bytes: usize,
    /// Most pages in use at the same time; `None` if unlimited.
    budget: Option<usize>,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    /// Pages in use by sequences.
    used: usize,
    /// Free pages. Only the list of the pool's format is used.
    free: Free,
}

#[derive(Default)]
struct Free {
    f32: Vec<KvPage<f32>>,
    f16: Vec<KvPage<f16>>,
    int16: Vec<KvPage<i16>>,
    int8: Vec<KvPage<i8>>,
    int4: Vec<KvPage<Int4>>,
}

/// Keys and values of one sequence.
pub(crate) enum SequenceCache {
    F32(KvCache<f32>),
    F16(KvCache<f16>),
    Int16(KvCache<i16>),
    Int8(KvCache<i8>),
    Int4(KvCache<Int4>),
}

/// Evaluates `$do` with the typed cache, and optionally with the list of free pages of that type.
macro_rules! with_cache {
    ($cache:expr, $c:ident => $do:expr) => {
        match $cache {
            SequenceCache::F32($c) => $do,
            SequenceCache::F16($c) => $do,
            SequenceCache::Int16($c) => $do,
            SequenceCache::Int8($c) => $do,
            SequenceCache::Int4($c) => $do,
        }
    };
    ($cache:expr, $free:expr, ($c:ident, $f:ident) => $do:expr) => {
        match $cache {
            SequenceCache::F32($c) => {
                let $f = &mut $free.f32;
                $do
            }
            SequenceCache::F16($c) => {
                let $f = &mut $free.f16;
                $do
            }
            SequenceCache::Int16($c) => {
                let $f = &mut $free.int16;
                $do
            }
            SequenceCache::Int8($c) => {
                let $f = &mut $free.int8;
                $do
            }
            SequenceCache::Int4($c) => {
                let $f = &mut $free.int4;
                $do
            }
        }
    };
}

impl KvPool {
    /// A pool of at most `budget` bytes of pages; without a budget, only the memory of the machine limits it.
    ///
    /// # Errors
    /// If the budget is less than one page.
    pub(crate) fn new(config: &Config, format: KvFormat, budget: Option<u64>) -> Result<Self> {
        let shape = shape(config);
        let page_bytes = format.page_bytes(shape);
        let pages = budget.map(|bytes| bytes / page_bytes.max(1) as u64);
        if pages == Some(0) {
            return Err(Error::Setting {
                setting: "the limit of keys and values",
                range: format!("at least {page_bytes} bytes, of {KEYS} tokens"),
                found: format!("{} bytes", budget.unwrap_or_default()),
            });
        }
        let budget = pages.map(|pages| usize::try_from(pages).unwrap_or(usize::MAX));
        Ok(Self(Arc::new(Pool { shape, format, page_bytes, budget, pages: Mutex::default() })))
    }

    /// Bytes of a page: keys and values of 128 positions in all layers.
    pub fn page_bytes(&self) -> u64 {
        self.0.page_bytes as u64
    }

    /// Bytes of the pages in use.
    pub fn used_bytes(&self) -> u64 {
        (self.lock().used * self.0.page_bytes) as u64
    }

    /// Bytes of pages that can still be allocated; `None` without a budget.
    pub fn free_bytes(&self) -> Option<u64> {
        let used = self.lock().used;
        self.0.budget.map(|budget| ((budget - used) * self.0.page_bytes) as u64)
    }

    /// A cache without pages.
    pub(crate) fn cache(&self) -> SequenceCache {
        let shape = self.0.shape;
        match self.0.format {
            KvFormat::F32 => SequenceCache::F32(KvCache::new(shape)),
            KvFormat::F16 => SequenceCache::F16(KvCache::new(shape)),
            KvFormat::Int16 => SequenceCache::Int16(KvCache::new(shape)),
            KvFormat::Int8 => SequenceCache::Int8(KvCache::new(shape)),
            KvFormat::Int4 => SequenceCache::Int4(KvCache::new(shape)),
        }
    }

    /// Grows `cache`, which has `len` positions, to `needed` positions. If another sequence shares the page of the next position,
    /// that page is copied (copy-on-write).
    ///
    /// # Errors
    /// If the budget or the memory is exhausted. The caller then returns the surplus pages by [`KvPool::trim`].
    pub(crate) fn reserve(
        &self,
        cache: &mut SequenceCache,
        len: usize,
        needed: usize,
    ) -> Result<()> {
        let mut pages = self.lock();
        let Pages { used, free } = &mut *pages;
        with_cache!(cache, free, (cache, free) => self.0.reserve(cache, len, needed, used, free))
    }

    /// Returns all pages of `cache` to the pool but those of its first `len` positions.
    pub(crate) fn trim(&self, cache: &mut SequenceCache, len: usize) {
        let mut pages = self.lock();
        let Pages { used, free } = &mut *pages;
        with_cache!(cache, free, (cache, free) => {
            cache.truncate(len.div_ceil(KEYS), |page| self.0.release(page, used, free));
        });
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        // The state is consistent after every statement, so a poisoned lock can be used.
        self.0.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn reserve<E: Cached>(
        &self,
        cache: &mut KvCache<E>,
        len: usize,
        needed: usize,
        used: &mut usize,
        free: &mut Vec<KvPage<E>>,
    ) -> Result<()> {
        let pages = needed.div_ceil(KEYS);
        let next = len / KEYS;
        let shared = next < cache.pages().min(pages) && cache.is_shared(next);
        let more = pages.saturating_sub(cache.pages()) + usize::from(shared);
        if let Some(budget) = self.budget
            && *used + more > budget
        {
            let bytes = |pages: usize| (pages * self.page_bytes) as u64;
            return Err(Error::KvBudget {
                needed: bytes(more),
                free: bytes(budget - *used),
                budget: bytes(budget),
            });
        }
        let mut take = || -> Result<KvPage<E>> {
            let page = free.pop().map_or_else(|| KvPage::new(self.shape), Ok);
            let page = page.map_err(|OutOfMemory| Error::Memory {
                capacity: needed,
                bytes: (pages * self.page_bytes) as u64,
            })?;
            *used += 1;
            Ok(page)
        };
        if shared {
            let page = take()?;
            if let Some(old) = cache.replace(next, page) {
                self.release(old, used, free);
            }
            return self.reserve(cache, len, needed, used, free);
        }
        while cache.pages() < pages {
            cache.push(take()?);
        }
        Ok(())
    }

    fn release<E: Cached>(&self, page: KvPage<E>, used: &mut usize, free: &mut Vec<KvPage<E>>) {
        *used -= 1;
        if (free.len() + 1) * self.page_bytes <= KEPT_BYTES {
            free.push(page);
        }
    }
}

impl SequenceCache {
    /// A cache that shares the pages of the first `len` positions.
    pub(crate) fn fork(&self, len: usize) -> Self {
        let pages = len.div_ceil(KEYS);
        match self {
            Self::F32(cache) => Self::F32(cache.fork(pages)),
            Self::F16(cache) => Self::F16(cache.fork(pages)),
            Self::Int16(cache) => Self::Int16(cache.fork(pages)),
            Self::Int8(cache) => Self::Int8(cache.fork(pages)),
            Self::Int4(cache) => Self::Int4(cache.fork(pages)),
        }
    }

    /// A number for each page, which is the same in all caches that share it.
    pub(crate) fn page_numbers(&self) -> Vec<usize> {
        with_cache!(self, cache => cache.page_numbers().collect())
    }

    /// The bytes of page `index`, in two parts.
    pub(crate) fn page(&self, index: usize) -> [&[u8]; 2] {
        with_cache!(self, cache => cache.page_bytes(index))
    }

    /// As [`SequenceCache::page`], to be written; `None` if another sequence shares the page.
    pub(crate) fn page_mut(&mut self, index: usize) -> Option<[&mut [u8]; 2]> {
        with_cache!(self, cache => cache.page_bytes_mut(index))
    }

    /// Bytes of its pages, including shared ones.
    pub(crate) fn bytes(&self, page_bytes: u64) -> u64 {
        with_cache!(self, cache => cache.pages() as u64 * page_bytes)
    }

    /// Stores keys and values in `layer`, from `position` on.
    pub(crate) fn store(&mut self, isa: Isa, layer: usize, position: usize, rows: HeadRows<'_>) {
        with_cache!(self, cache => cache.store(isa, layer, position, rows));
    }

    /// Writes the attention of the queries to `out`, `[queries, heads, value size]`.
    pub(crate) fn attend(
        &self,
        isa: Isa,
        layer: usize,
        of: Queries<'_>,
        partials: &mut Partials,
        out: &mut [f32],
    ) {
        let Queries { queries, heads, position, mask, scale } = of;
        with_cache!(self, cache => {
            let attention = Attention { queries, heads, cache, layer, position, mask, scale };
            attention.forward(isa, partials, out);
        });
    }
}

/// Queries of consecutive tokens of one sequence; `position` is that of the first.
pub(crate) struct Queries<'a> {
    /// `[queries, heads, head size]`
    pub(crate) queries: &'a [f32],
    pub(crate) heads: usize,
    pub(crate) position: usize,
    pub(crate) mask: Mask,
    /// Multiplies the scores.
    pub(crate) scale: f32,
}
