//! What can be observed while a pass runs, and how it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::network::chunk::Segment;
use crate::network::layer::LinearRole;

/// Stops a pass or an answer from another thread, or from a signal handler. A clone is the same token.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks whoever holds a clone to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Withdraws the request, so that the token can be used again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether stopping was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a pass runs.
#[derive(Default)]
#[non_exhaustive]
pub struct RunOptions<'a> {
    /// Stops the pass; it then returns [`Error::Cancelled`](crate::Error::Cancelled) and all sequences are as before.
    pub cancel: Option<&'a CancelToken>,
    /// Told the fraction of the pass that is done, after every layer.
    pub progress: Option<&'a mut Progress<'a>>,
    /// Shown the activations.
    pub hook: Option<&'a mut Hook<'a>>,
    /// Given the logits of each wanted token as soon as they are computed: chunk, index of the token in it, logits. They are
    /// not kept then, so that memory does not grow with their number.
    pub logits: Option<&'a mut LogitsSink<'a>>,
}

/// See [`RunOptions::progress`].
pub type Progress<'a> = dyn FnMut(f32) + Send + 'a;

/// See [`RunOptions::hook`].
///
/// It runs on the thread that leads the pass, inside its parallel region: work that it spreads with
/// [`for_each`](crate::for_each) or [`for_each_row`](crate::for_each_row) is done by all threads of the pass.
pub type Hook<'a> = dyn FnMut(HookPoint, &HookRows<'_>) + Send + 'a;

/// See [`RunOptions::logits`].
pub type LogitsSink<'a> = dyn FnMut(usize, usize, &[f32]) + Send + 'a;

impl<'a> RunOptions<'a> {
    /// Stops at `cancel`.
    #[must_use]
    pub fn cancelled_by(mut self, cancel: &'a CancelToken) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Reports to `progress`.
    #[must_use]
    pub fn with_progress(mut self, progress: &'a mut Progress<'a>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Shows activations to `hook`.
    #[must_use]
    pub fn with_hook(mut self, hook: &'a mut Hook<'a>) -> Self {
        self.hook = Some(hook);
        self
    }

    /// Passes logits to `sink`.
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
    /// The embedded tokens, `[rows, hidden]`.
    Embedding,
    /// The embedded tokens with their learned positions, where a model has those, `[rows, hidden]`.
    Positions,
    /// The input of a linear layer, `[rows, inputs]`, before it is quantized. That of the head is [`HookPoint::FinalNorm`].
    Input(usize, LinearRole),
    /// Output of the attention, before a norm and the residual, `[rows, hidden]`.
    Attention(usize),
    /// Output of the feed-forward part, before a norm and the residual, `[rows, hidden]`.
    FeedForward(usize),
    /// Output of a layer, `[rows, hidden]`. In the last layer, as at every later point, only rows whose logits are wanted.
    Layer(usize),
    /// Input of the head, `[rows, hidden]`.
    FinalNorm,
}

/// Rows of activations, and which tokens they belong to.
pub struct HookRows<'a> {
    values: &'a [f32],
    width: usize,
    rows: std::ops::Range<usize>,
    segments: &'a [Segment],
}

impl<'a> HookRows<'a> {
    /// `values` are rows `rows` of those that `segments` describe.
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
        let parts = self.segments.iter().filter_map(|segment| segment.within(&self.rows));
        parts.map(|part| {
            let first = part.row - self.rows.start;
            let values = &self.values[first * self.width..][..part.count * self.width];
            (part.chunk, part.token, values)
        })
    }
}
