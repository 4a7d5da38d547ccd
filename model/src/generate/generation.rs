//! Generation: prefill of the prompt, then decoding of the answer.

use std::time::Instant;

use crate::error::{Error, Result};
use crate::files::config::MaskKind;
use crate::generate::answering::AnswerGeneration;
use crate::generate::constraint::Constraint;
use crate::generate::decoding::{self, Decoding};
use crate::generate::draft::{Draft, DraftStats};
use crate::generate::sampling::{SampledToken, Sampling};
use crate::network::hook::{CancelToken, Progress, RunOptions};
use crate::network::model::Model;
use crate::network::placement::Placement;
use crate::network::sequence::Sequence;
use crate::text::chat::{AnswerParser, Template};
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
    /// Restricts the ids of the answer. Such an answer is generated without drafts.
    pub constraint: Option<Box<dyn Constraint>>,
    /// How many of the most probable ids are returned with each id; `None` returns no log probabilities.
    pub logprobs: Option<usize>,
}

impl Request {
    /// A request with the given sampling and no other limit than the context.
    pub fn new(sampling: Sampling) -> Self {
        let (cancel, draft) = (CancelToken::default(), Draft::default());
        let (max_new_tokens, stop_ids, constraint, logprobs) = Default::default();
        Self { sampling, max_new_tokens, stop_ids, cancel, draft, constraint, logprobs }
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
    answer: Decoding,
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
        sequence: Sequence,
        prompt: &[u32],
        request: Request,
    ) -> Result<Self> {
        let answer = Decoding::new(model, sequence, prompt, request)?;
        Ok(Self { model: model.clone(), answer })
    }

    /// Runs the prefill; `progress` is called with the completed fraction. After cancellation [`Generation::finish_reason`] is
    /// [`FinishReason::Cancelled`].
    ///
    /// # Errors
    /// If memory cannot be allocated, or the logits are not finite.
    pub fn read_prompt(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        if self.answer.has_begun() || self.answer.is_over() {
            return Ok(());
        }
        let cancel = self.answer.cancel();
        let mut progress = |fraction| progress(fraction);
        let options = RunOptions::default().cancelled_by(&cancel).with_progress(&mut progress);
        self.answer.plan(usize::MAX, false);
        self.pass(options)
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
        self.answer.prompt_tokens()
    }

    /// Tokens of the prompt that were reused from the sequence.
    pub fn kept(&self) -> usize {
        self.answer.kept()
    }

    /// Tokens that the context holds, prompt and answer together.
    pub fn context(&self) -> usize {
        self.answer.sequence().capacity()
    }

    /// Why the answer ended; `None` while it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.answer.finish_reason()
    }

    /// Statistics of drafts so far.
    pub fn draft_stats(&self) -> DraftStats {
        self.answer.draft_stats()
    }

    /// The sequence with the prompt and the returned ids, for reuse by the next prompt.
    pub fn into_sequence(self) -> Sequence {
        self.answer.into_sequence()
    }

    /// The next id with its log probabilities, or `None` at the end. [`Iterator::next`] returns the id alone.
    pub fn next_token(&mut self) -> Option<Result<SampledToken>> {
        if self.answer.is_over() { None } else { self.step().transpose() }
    }

    fn step(&mut self) -> Result<Option<SampledToken>> {
        if self.answer.limit().is_none() && self.answer.is_dry() {
            self.answer.problem()?;
            if self.answer.has_begun() {
                let cancel = self.answer.cancel();
                self.answer.plan(usize::MAX, true);
                self.pass(RunOptions::default().cancelled_by(&cancel))?;
            } else {
                self.read_prompt(&mut |_| {})?;
            }
        }
        Ok(self.answer.pop())
    }

    /// Runs the planned pass. Cancellation is a finish reason, not an error.
    fn pass(&mut self, options: RunOptions<'_>) -> Result<()> {
        let Self { model, answer } = self;
        let cancel = answer.cancel();
        let started = Instant::now();
        let done = model.with_workspace(|workspace| {
            let answers = std::iter::once(&mut *answer);
            let logits = match decoding::run(model, workspace, answers, options) {
                // There is no memory for the draft; there may be for the single token.
                Err(Error::KvBudget { .. } | Error::Memory { .. }) if answer.has_draft() => {
                    answer.drop_draft();
                    let options = RunOptions::default().cancelled_by(&cancel);
                    decoding::run(model, workspace, std::iter::once(&mut *answer), options)?
                }
                done => done?,
            };
            answer.take(logits.chunk(0), started.elapsed());
            Ok(())
        });
        match done {
            Err(Error::Cancelled) => answer.end(FinishReason::Cancelled),
            Err(error) => {
                answer.fail();
                return Err(error);
            }
            Ok(()) => {}
        }
        if answer.is_dry() { answer.problem() } else { Ok(()) }
    }
}

impl Iterator for Generation {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_token()?.map(|token| token.id))
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
    Placement::of(prompt, config.mask, &config.special)?;
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

impl<'t> TextGeneration<'t> {
    /// The same in parts, as `parser` finds them.
    pub fn answer(self, parser: AnswerParser) -> AnswerGeneration<'t> {
        AnswerGeneration::new(self, parser)
    }
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
