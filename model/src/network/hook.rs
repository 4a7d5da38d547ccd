//! Options of a pass: cancellation, progress, hooks for activations, and a sink for logits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::network::chunk::Segment;
use crate::network::layer::LinearRole;

/// Stops a pass or a generation from another thread or a signal handler. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Requests cancellation.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Withdraws the request, so that the token can be used again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether cancellation was requested.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whoever sets the flag requests cancellation: what catches signals knows flags.
impl From<Arc<AtomicBool>> for CancelToken {
    fn from(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }
}

/// How a pass runs.
#[derive(Default)]
#[non_exhaustive]
pub struct RunOptions<'a> {
    /// Cancels the pass, which then returns [`Error::Cancelled`](crate::Error::Cancelled) and leaves all sequences unchanged.
    pub cancel: Option<&'a CancelToken>,
    /// Called after every layer with the completed fraction of the pass.
    pub progress: Option<&'a mut Progress<'a>>,
    /// Called with the activations at every [`HookPoint`].
    pub hook: Option<&'a mut Hook<'a>>,
    /// Called with the logits of each wanted token as soon as they are computed: chunk, index of the token in it, logits. They are
    /// not stored then, so the memory does not grow with the number of tokens.
    pub logits: Option<&'a mut LogitsSink<'a>>,
}

/// See [`RunOptions::progress`].
pub type Progress<'a> = dyn FnMut(f32) + Send + 'a;

/// See [`RunOptions::hook`].
///
/// It runs on the leader thread of the pass, inside its parallel region: [`for_each`](crate::for_each) and
/// [`for_each_row`](crate::for_each_row) use all threads of the pass.
pub type Hook<'a> = dyn FnMut(HookPoint, &HookRows<'_>) + Send + 'a;

/// See [`RunOptions::logits`].
pub type LogitsSink<'a> = dyn FnMut(usize, usize, &[f32]) + Send + 'a;

impl<'a> RunOptions<'a> {
    /// Sets [`RunOptions::cancel`].
    #[must_use]
    pub fn cancelled_by(mut self, cancel: &'a CancelToken) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Sets [`RunOptions::progress`].
    #[must_use]
    pub fn with_progress(mut self, progress: &'a mut Progress<'a>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Sets [`RunOptions::hook`].
    #[must_use]
    pub fn with_hook(mut self, hook: &'a mut Hook<'a>) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Sets [`RunOptions::logits`].
    #[must_use]
    pub fn with_logits(mut self, sink: &'a mut LogitsSink<'a>) -> Self {
        self.logits = Some(sink);
        self
    }
}

/// A point of the pass at which a [`Hook`] is called; layers count from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HookPoint {
    /// Output of the token embedding, `[rows, hidden]`.
    Embedding,
    /// Embedding plus learned position embeddings, in models that have them, `[rows, hidden]`.
    Positions,
    /// The input of a linear layer, `[rows, inputs]`, before it is quantized. The input of the head is [`HookPoint::FinalNorm`].
    /// It is shown once the linear layer is computed: that of [`LinearRole::Down`] after [`HookPoint::FeedForward`]. In the last
    /// layer, only [`LinearRole::Qkv`] and [`LinearRole::QueryUp`] see rows whose logits are not wanted. Those of experts, and of the
    /// matrices that are applied head by head, are not shown.
    Input(usize, LinearRole),
    /// The experts of each token in ascending order, then their weights, `[rows, 2 · experts of a token]`; in layers with experts.
    Experts(usize),
    /// Output of the attention, before its norm and the residual, `[rows, hidden]`.
    Attention(usize),
    /// Output of the feed-forward block, before its norm and the residual, `[rows, hidden]`.
    FeedForward(usize),
    /// Output of a layer, `[rows, hidden]`. In the last layer, and at all later points, only the rows whose logits are wanted.
    Layer(usize),
    /// Input of the head, `[rows, hidden]`.
    FinalNorm,
}

/// Rows of activations and the tokens that they belong to.
pub struct HookRows<'a> {
    values: &'a [f32],
    width: usize,
    rows: std::ops::Range<usize>,
    segments: &'a [Segment],
}

impl<'a> HookRows<'a> {
    /// `values` are the rows `rows` of the batch that `segments` describes.
    pub(crate) fn new(
        values: &'a [f32],
        rows: std::ops::Range<usize>,
        segments: &'a [Segment],
    ) -> Self {
        let width = values.len() / rows.len().max(1);
        Self { values, width, rows, segments }
    }

    /// `[rows, width]`
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The rows of each chunk: chunk, index of the first token in it, and `[tokens, width]`.
    pub fn chunks(&self) -> impl Iterator<Item = (usize, usize, &'a [f32])> {
        let segments = self.segments.iter().filter_map(|segment| segment.within(&self.rows));
        segments.map(|segment| {
            let first = segment.row - self.rows.start;
            let values = &self.values[first * self.width..][..segment.count * self.width];
            (segment.chunk, segment.token, values)
        })
    }
}
