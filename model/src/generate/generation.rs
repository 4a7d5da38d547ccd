//! Generation: prefill of the prompt, then decoding of the answer.

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::files::config::MaskKind;
use crate::generate::draft::{Draft, DraftStats, Drafter};
use crate::generate::sampling::{Sampler, Sampling};
use crate::network::chunk::Chunk;
use crate::network::hook::{CancelToken, Progress, RunOptions};
use crate::network::model::Model;
use crate::network::sequence::Sequence;
use crate::text::chat::Template;
use crate::text::stream::TextStream;
use crate::text::tokenizer::Tokenizer;

/// Parameters of a [`Generation`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// Sampling parameters.
    pub sampling: Sampling,
    /// Most ids of the answer; by default, until the context is full.
    pub max_new_tokens: Option<usize>,
    /// Ids that end the answer. The stop id is returned as its last id.
    pub stop_ids: Vec<u32>,
    /// Cancels the prefill or the answer.
    pub cancel: CancelToken,
    /// Length of drafts. They do not change the answer.
    pub draft: Draft,
}

impl Request {
    /// A request with the given sampling and no other limit than the context.
    pub fn new(sampling: Sampling) -> Self {
        let (cancel, draft) = (CancelToken::default(), Draft::default());
        Self { sampling, max_new_tokens: None, stop_ids: Vec::new(), cancel, draft }
    }

    /// A request with the default sampling and the stop ids of the model.
    pub fn chat(model: &Model, seed: u64) -> Self {
        let stop_ids = model.config().special.ends.clone();
        Self { stop_ids, ..Self::new(Sampling { seed, ..model.sampling().clone() }) }
    }

    /// Adds the stop ids of a chat template.
    #[must_use]
    pub fn ending_as(mut self, template: &Template, tokenizer: &Tokenizer) -> Self {
        self.stop_ids.extend(template.stop_ids(tokenizer));
        self.stop_ids.sort_unstable();
        self.stop_ids.dedup();
        self
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// A stop id or a stop string.
    Stop,
    /// The requested number of ids was reached.
    Length,
    /// The context is full.
    Context,
    /// It was cancelled, during the prefill or later.
    Cancelled,
}

impl FinishReason {
    /// The name, in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
            Self::Cancelled => "cancelled",
        }
    }
}

/// An iterator over the ids of an answer, which computes them on demand. It owns its sequence and can be sent to another thread.
///
/// It ends after a stop id, after an error, and once [`Generation::finish_reason`] is set.
pub struct Generation {
    model: Model,
    sequence: Sequence,
    sampler: Sampler,
    request: Request,
    drafter: Option<Drafter>,
    /// Input of the next pass: the rest of the prompt, or the last sampled id and its draft.
    next: Vec<u32>,
    /// Whether the prefill is done.
    has_begun: bool,
    /// Sampled ids that were not returned yet.
    drawn: VecDeque<u32>,
    prompt_tokens: usize,
    kept: usize,
    /// Number of returned ids.
    count: usize,
    finish: Option<FinishReason>,
    /// An error that follows the ids in `drawn`.
    pending: Option<Error>,
    failed: bool,
}

impl Generation {
    /// An answer of `model` to `prompt`. The prefill runs in [`Generation::read_prompt`] or with the first id.
    ///
    /// The common prefix of `prompt` and the tokens in `sequence` is reused, if the model allows it (see [`Model::reusable`]). The
    /// other tokens of `sequence` are removed. This does not change the answer. To preserve a sequence, pass a [`Sequence::fork`].
    ///
    /// # Errors
    /// If the prompt is invalid (see [`check_prompt`]), a parameter of the request is outside its range, or the sequence belongs to
    /// another model.
    pub fn new(
        model: &Model,
        mut sequence: Sequence,
        prompt: &[u32],
        request: Request,
    ) -> Result<Self> {
        let sampler = Sampler::new(&request.sampling, model.config().vocab, prompt)?;
        model.check_sequence(&sequence)?;
        check_prompt(model, prompt, sequence.capacity())?;
        let kept = model.reusable(prompt, &sequence);
        sequence.truncate(kept);
        Ok(Self {
            model: model.clone(),
            sequence,
            sampler,
            drafter: Drafter::new(request.draft, prompt),
            request,
            next: prompt[kept..].to_vec(),
            has_begun: false,
            drawn: VecDeque::new(),
            prompt_tokens: prompt.len(),
            kept,
            count: 0,
            finish: None,
            pending: None,
            failed: false,
        })
    }

    /// Runs the prefill; `progress` is called with the completed fraction. After cancellation [`Generation::finish_reason`] is
    /// [`FinishReason::Cancelled`].
    ///
    /// # Errors
    /// If memory cannot be allocated, or the logits are not finite.
    pub fn read_prompt(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        if self.has_begun || self.finish.is_some() || self.failed {
            return Ok(());
        }
        let Self { model, sequence, sampler, next, drawn, request, .. } = self;
        let read = model.with_workspace(|workspace| {
            let chunk = Chunk::last(sequence, next);
            let mut progress = |fraction| progress(fraction);
            let options =
                RunOptions::default().cancelled_by(&request.cancel).with_progress(&mut progress);
            let logits = model.run(workspace, &mut [chunk], options)?;
            drawn.push_back(sampler.choose(logits.last(0))?);
            Ok(())
        });
        self.has_begun = true;
        if let (Some(drafter), Some(&id)) = (&mut self.drafter, self.drawn.back()) {
            drafter.begin(id);
        }
        self.settle(read)
    }

    /// The answer as text, decoded by `stream`.
    pub fn text(self, stream: TextStream<'_>) -> TextGeneration<'_> {
        TextGeneration { generation: self, stream, ids: Vec::new(), over: false }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens of the prompt that were reused from the sequence.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Tokens that the context holds, prompt and answer together.
    pub fn context(&self) -> usize {
        self.sequence.capacity()
    }

    /// Why the answer ended; `None` while it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Statistics of drafts so far.
    pub fn draft_stats(&self) -> DraftStats {
        self.drafter.as_ref().map(Drafter::stats).unwrap_or_default()
    }

    /// The sequence with the prompt and the returned ids, for reuse by the next prompt.
    pub fn into_sequence(mut self) -> Sequence {
        self.sequence.truncate(self.prompt_tokens + self.count);
        self.sequence
    }

    /// The limit that prevents a further id, if any.
    fn limit(&self) -> Option<FinishReason> {
        if self.request.cancel.is_cancelled() {
            return Some(FinishReason::Cancelled);
        }
        if self.request.max_new_tokens.is_some_and(|most| self.count >= most) {
            return Some(FinishReason::Length);
        }
        let given = self.prompt_tokens + self.count;
        // The last id is only returned, not fed, so it may exceed the context by one.
        (given > self.sequence.capacity()).then_some(FinishReason::Context)
    }

    /// Runs a decode pass, which samples at least one id.
    fn draw(&mut self) -> Result<()> {
        // A draft must fit in the context and must not exceed the requested number of ids.
        let given = self.prompt_tokens + self.count;
        let fit = self.sequence.capacity() - given;
        let most = self.request.max_new_tokens.map_or(fit, |most| fit.min(most - self.count - 1));
        let Self { model, sequence, sampler, next, drawn, request, drafter, .. } = self;
        let before = sequence.len();
        if let Some(drafter) = drafter {
            next.extend_from_slice(drafter.propose(most));
        }
        let drafted = next.len() - 1;
        let started = std::time::Instant::now();
        let mut pass = |next: &[u32]| {
            model.with_workspace(|workspace| {
                let options = RunOptions::default().cancelled_by(&request.cancel);
                let logits = model.run(workspace, &mut [Chunk::all(sequence, next)], options)?;
                for (logits, draft) in logits.chunk(0).zip(next[1..].iter().map(Some).chain([None]))
                {
                    let id = sampler.choose(logits)?;
                    drawn.push_back(id);
                    if draft != Some(&id) || request.stop_ids.contains(&id) {
                        break;
                    }
                }
                Ok(())
            })
        };
        let done = match pass(next) {
            // There is no memory for the draft; there may be for the single token.
            Err(Error::KvBudget { .. } | Error::Memory { .. }) if drafted > 0 => pass(&next[..1]),
            done => done,
        };
        sequence.truncate(before + drawn.len().max(1));
        if let Some(drafter) = drafter
            && !drawn.is_empty()
        {
            drafter.verified(drafted, drawn.make_contiguous(), started.elapsed());
        }
        self.settle(done)
    }

    /// Stores the outcome of a pass. Cancellation is a finish reason, not an error. An error after some ids were sampled is
    /// returned after them.
    fn settle(&mut self, done: Result<()>) -> Result<()> {
        self.next.clear();
        self.next.extend(self.drawn.back());
        match done {
            Err(Error::Cancelled) => {
                self.finish = Some(FinishReason::Cancelled);
                Ok(())
            }
            Err(error) if !self.drawn.is_empty() => {
                self.pending = Some(error);
                Ok(())
            }
            other => {
                self.failed = other.is_err();
                other
            }
        }
    }

    /// The next id, or `None` at the end.
    fn step(&mut self) -> Result<Option<u32>> {
        self.finish = self.limit();
        if self.finish.is_none() && self.drawn.is_empty() {
            if let Some(error) = self.pending.take() {
                self.failed = true;
                return Err(error);
            }
            if self.has_begun { self.draw()? } else { self.read_prompt(&mut |_| {})? }
        }
        if self.finish.is_some() {
            return Ok(None);
        }
        let Some(id) = self.drawn.pop_front() else { return Ok(None) };
        self.count += 1;
        if self.request.stop_ids.contains(&id) {
            self.finish = Some(FinishReason::Stop);
        }
        Ok(Some(id))
    }
}

impl Iterator for Generation {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() || self.failed { None } else { self.step().transpose() }
    }
}

/// Checks that `prompt` can be answered in a context of `capacity` tokens with at least one id.
///
/// # Errors
/// If not, with the reason.
pub fn check_prompt(model: &Model, prompt: &[u32], capacity: usize) -> Result<()> {
    let config = model.config();
    if let (MaskKind::Prefix(_), Some(sop)) = (config.mask, config.special.sop)
        && !prompt.contains(&sop)
    {
        let problem = format!("the prompt has no start of an answer (sop, {sop})");
        return Err(Error::Ids(problem));
    }
    if prompt.is_empty() {
        return Err(Error::Ids("the prompt is empty".to_owned()));
    }
    if prompt.len() >= capacity {
        let (needed, max) = (prompt.len() + 1, config.max_context);
        return Err(Error::ContextFull { needed, capacity, max });
    }
    Ok(())
}

/// An iterator over the text of an answer, in pieces of whole characters.
pub struct TextGeneration<'t> {
    generation: Generation,
    stream: TextStream<'t>,
    ids: Vec<u32>,
    over: bool,
}

impl TextGeneration<'_> {
    /// The ids so far, including the stop id.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Why the answer ended; `None` while it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        if self.stream.stopped() {
            return Some(FinishReason::Stop);
        }
        self.generation.finish_reason()
    }

    /// The underlying generation.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// See [`Generation::read_prompt`].
    ///
    /// # Errors
    /// As there.
    pub fn read_prompt(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        self.generation.read_prompt(progress)
    }

    /// See [`Generation::into_sequence`].
    pub fn into_sequence(self) -> Sequence {
        self.generation.into_sequence()
    }

    /// Whether a stop string ended the text, so that the ids contain more than the text.
    pub fn is_cut(&self) -> bool {
        self.stream.stopped()
    }

    /// Decodes the next id; at the end, returns the text that the stream has buffered.
    fn step(&mut self) -> Result<String> {
        match self.generation.next() {
            Some(id) => {
                let id = id?;
                self.ids.push(id);
                // Ids without a text, such as padding of the vocabulary, are skipped.
                let known = self.stream.knows(id);
                let piece = if known { self.stream.push(id)? } else { String::new() };
                self.over = self.stream.stopped();
                Ok(piece)
            }
            None => {
                self.over = true;
                Ok(self.stream.finish())
            }
        }
    }
}

impl Iterator for TextGeneration<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match self.step() {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Some(Ok(piece)),
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
