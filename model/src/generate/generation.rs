//! Generation: a prompt is read, then ids are drawn one after the other.

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

/// What is asked of a [`Generation`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request {
    /// How ids are chosen.
    pub sampling: Sampling,
    /// Most ids of the answer; without it, as many as the context holds.
    pub max_new_tokens: Option<usize>,
    /// Ids that end the answer. They are given out, as its last.
    pub stop_ids: Vec<u32>,
    /// Ends the answer, or the reading of the prompt, early.
    pub cancel: CancelToken,
    /// Whether ids are drafted and verified several at a time. The answer is the same, to the last bit.
    pub draft: Draft,
}

impl Request {
    /// An answer whose ids `sampling` chooses, with no other limit than the context.
    pub fn new(sampling: Sampling) -> Self {
        let (cancel, draft) = (CancelToken::default(), Draft::default());
        Self { sampling, max_new_tokens: None, stop_ids: Vec::new(), cancel, draft }
    }

    /// An answer drawn as the model's authors draw it, up to one of the model's end-of-answer ids.
    pub fn chat(model: &Model, seed: u64) -> Self {
        let stop_ids = model.config().special.ends.clone();
        Self { stop_ids, ..Self::new(Sampling { seed, ..model.sampling().clone() }) }
    }

    /// Ends the answer where conversations of this form end, too.
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
    /// With one of the ids, or one of the strings, that end an answer.
    Stop,
    /// It has as many ids as were asked for.
    Length,
    /// The context is full.
    Context,
    /// It was cancelled, while the prompt was read or later.
    Cancelled,
}

impl FinishReason {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The ids of an answer, each computed when it is asked for. Owns its sequence, and can be sent to another thread.
///
/// A stop id is given out and is the last. After an error, or once [`Generation::finish_reason`] says why it ended, nothing
/// follows.
pub struct Generation {
    model: Model,
    sequence: Sequence,
    sampler: Sampler,
    request: Request,
    drafter: Option<Drafter>,
    /// What is fed next: what is left of the prompt, or the id that was drawn last and its draft.
    next: Vec<u32>,
    /// Whether the prompt has been read.
    has_begun: bool,
    /// Ids that were drawn and not given out yet.
    drawn: VecDeque<u32>,
    prompt_tokens: usize,
    kept: usize,
    /// Ids that were given out.
    count: usize,
    finish: Option<FinishReason>,
    failed: bool,
}

impl Generation {
    /// The answer of `model` to `prompt`, which is read when [`Generation::read_prompt`] or the first id asks for it.
    ///
    /// Of the tokens in `sequence`, the beginning that `prompt` shares with them is kept and not read again, where the model
    /// allows that (see [`Model::reusable`]); the answer is the same, to the last bit. To keep a sequence as it is, pass a
    /// [`Sequence::fork`] of it.
    ///
    /// # Errors
    /// If the prompt is not one that can be answered (see [`check_prompt`]), a number of the request is outside its range, or the
    /// sequence belongs to another model.
    pub fn new(
        model: &Model,
        mut sequence: Sequence,
        prompt: &[u32],
        request: Request,
    ) -> Result<Self> {
        let sampler = Sampler::new(&request.sampling, model.config().vocab, prompt)?;
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
            failed: false,
        })
    }

    /// Reads the prompt now; `progress` is told the fraction that is read. If the request is cancelled meanwhile,
    /// [`Generation::finish_reason`] says so.
    ///
    /// # Errors
    /// If there is no memory, or the logits are not finite.
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

    /// The answer as text, given out piece by piece as `stream` does.
    pub fn text(self, stream: TextStream<'_>) -> TextGeneration<'_> {
        TextGeneration { generation: self, stream, ids: Vec::new(), over: false }
    }

    /// The model that answers.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Tokens of the prompt that were in the sequence already and not read again.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Why the answer ended, once it did.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// How many drafted ids were verified and accepted so far.
    pub fn draft_stats(&self) -> DraftStats {
        self.drafter.as_ref().map(Drafter::stats).unwrap_or_default()
    }

    /// The sequence with the prompt and the ids that were given out, for the next prompt.
    pub fn into_sequence(mut self) -> Sequence {
        self.sequence.truncate(self.prompt_tokens + self.count);
        self.sequence
    }

    /// Why no further id may follow.
    fn limit(&self) -> Option<FinishReason> {
        if self.request.cancel.is_cancelled() {
            return Some(FinishReason::Cancelled);
        }
        if self.request.max_new_tokens.is_some_and(|most| self.count >= most) {
            return Some(FinishReason::Length);
        }
        let given = self.prompt_tokens + self.count;
        // The id drawn last need not fit.
        (given > self.sequence.capacity()).then_some(FinishReason::Context)
    }

    /// Draws at least one more id.
    fn draw(&mut self) -> Result<()> {
        // Drafts are tokens that fit in the context beside those given out, and end where the answer must end.
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
        let done = model.with_workspace(|workspace| {
            let options = RunOptions::default().cancelled_by(&request.cancel);
            let logits = model.run(workspace, &mut [Chunk::all(sequence, next)], options)?;
            for (logits, draft) in logits.chunk(0).zip(next[1..].iter().map(Some).chain([None])) {
                let id = sampler.choose(logits)?;
                drawn.push_back(id);
                if draft != Some(&id) || request.stop_ids.contains(&id) {
                    break;
                }
            }
            Ok(())
        });
        sequence.truncate(before + drawn.len().max(1));
        if let Some(drafter) = drafter {
            drafter.verified(drafted, drawn.make_contiguous(), started.elapsed());
        }
        self.settle(done)
    }

    /// Remembers how reading or drawing ended; cancelling is no error.
    fn settle(&mut self, done: Result<()>) -> Result<()> {
        self.next.clear();
        self.next.extend(self.drawn.back());
        match done {
            Err(Error::Cancelled) => self.finish = Some(FinishReason::Cancelled),
            Err(_) => self.failed = true,
            Ok(()) => return Ok(()),
        }
        done.or_else(|error| match error {
            Error::Cancelled => Ok(()),
            error => Err(error),
        })
    }

    /// The next id, if one may follow.
    fn step(&mut self) -> Result<Option<u32>> {
        self.finish = self.limit();
        if self.finish.is_none() && self.drawn.is_empty() {
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

/// Checks that an answer may follow `prompt` in a context of `capacity` tokens, and that there is room for one id.
///
/// # Errors
/// If not, saying why.
pub fn check_prompt(model: &Model, prompt: &[u32], capacity: usize) -> Result<()> {
    let config = model.config();
    if let (MaskKind::Prefix(_), Some(sop)) = (config.mask, config.special.sop)
        && !prompt.contains(&sop)
    {
        let problem =
            format!("the prompt has no start of an answer (sop, {sop}), so none can follow");
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

/// The text of an answer, in pieces of whole characters.
pub struct TextGeneration<'t> {
    generation: Generation,
    stream: TextStream<'t>,
    ids: Vec<u32>,
    over: bool,
}

impl TextGeneration<'_> {
    /// The ids so far, with the stop id if that is how the answer ended.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Why the answer ended, once it did.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        if self.stream.stopped() {
            return Some(FinishReason::Stop);
        }
        self.generation.finish_reason()
    }

    /// The ids that this is the text of.
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

    /// Whether a stop string has cut the text off, so that ids and text differ.
    pub fn is_cut(&self) -> bool {
        self.stream.stopped()
    }

    /// The next id into the stream; what is held back if there is none.
    fn step(&mut self) -> Result<String> {
        match self.generation.next() {
            Some(id) => {
                let id = id?;
                self.ids.push(id);
                // An answer need not fail over an id without a text.
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
