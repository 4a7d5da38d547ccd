//! One conversation's memory with a model, and the answers it generates: the one place where ids and logits meet.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::files::config::{Config, MaskKind, SpecialIds};
use crate::generate::sampling::{Sampler, Sampling};
use crate::network::layer::Stage;
use crate::network::model::Model;
use crate::network::state::State;
use crate::text::chat::Template;
use crate::text::stream::TextStream;
use crate::text::tokenizer::Tokenizer;

/// Tokens that a context holds where nothing else is asked for. Some models were made for a million, whose keys and values
/// would take more memory than most machines have.
pub const DEFAULT_CONTEXT: usize = 32_768;

/// Stops an answer from another thread, or from a signal handler. A clone is the same token.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Asks whoever holds a clone to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Takes the asking back, so that the token can be used again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Breaks off where it was asked.
    pub fn flow(&self) -> ControlFlow<()> {
        if self.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether it was asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Model {
    /// Checks that a tokenizer belongs to this model: that both mean the same by the special ids.
    ///
    /// # Errors
    /// If they differ, naming the ids.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let Config { vocab, special: model, .. } = self.config();
        let text = &tokenizer.special().ids;
        let other = |problem: String| {
            Err(Error::Ids(format!("the tokenizer is another model's: {problem}")))
        };
        if tokenizer.vocab_size() > *vocab {
            return other(format!("it has {} ids, and the model {vocab}", tokenizer.vocab_size()));
        }
        let ids = |special: &SpecialIds| [("sop", special.sop)].into_iter().chain(special.blanks());
        // A model that says nothing of an id leaves it to the tokenizer.
        let mut pairs = ids(model).zip(ids(text)).filter(|((_, id), _)| id.is_some());
        match pairs.find(|((_, model), (_, text))| model != text) {
            None => Ok(()),
            Some(((name, model), (_, text))) => {
                let shown = |id: Option<u32>| id.map_or("missing".to_owned(), |id| id.to_string());
                other(format!("{name} is {} in it, and {} in the model", shown(text), shown(model)))
            }
        }
    }
}

/// What is asked of [`Session::generate`].
#[derive(Debug, Clone)]
pub struct Request {
    /// How ids are chosen.
    pub sampling: Sampling,
    /// Most ids of the answer; without it, as many as the context holds.
    pub max_new_tokens: Option<usize>,
    /// Ids that end the answer. They are given out, as its last.
    pub stop_ids: Vec<u32>,
    /// Stops the answer, or the reading of the prompt, early.
    pub cancel: CancelToken,
}

impl Request {
    /// An answer drawn as the model's authors draw it, up to one of the model's end-of-answer ids.
    pub fn chat(model: &Model, seed: u64) -> Self {
        Self {
            sampling: Sampling { seed, ..model.sampling().clone() },
            max_new_tokens: None,
            stop_ids: model.config().special.ends.clone(),
            cancel: CancelToken::default(),
        }
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
pub enum Finish {
    /// With one of the ids, or one of the strings, that end an answer.
    Stop,
    /// It has as many ids as were asked for.
    Length,
    /// The context is full.
    Context,
    /// It was cancelled.
    Cancelled,
}

impl Finish {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Context => "context",
            Finish::Cancelled => "cancelled",
        }
    }
}

/// A model and the memory of one conversation with it. Sessions of one model share its weights.
pub struct Session {
    pub(crate) model: Model,
    pub(crate) state: State,
}

impl Session {
    /// A session whose context holds `context` tokens; without it, as many as the model was made for, up to
    /// [`DEFAULT_CONTEXT`].
    ///
    /// # Errors
    /// If `context` is 0 or more than the model was made for.
    pub fn new(model: &Model, context: Option<usize>) -> Result<Self> {
        let most = model.config().max_context.min(DEFAULT_CONTEXT);
        let state = model.state(context.unwrap_or(most))?;
        Ok(Self { model: model.clone(), state })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens that the context holds.
    pub fn context(&self) -> usize {
        self.state.capacity()
    }

    /// Reads `prompt` and returns the answer, an iterator of ids that computes each when it is asked for it.
    ///
    /// Of what was in the session before, the beginning that `prompt` shares with it is kept and not read again, where the
    /// model allows that (see [`Model::reusable`]); the answer is the same, to the last bit.
    ///
    /// # Errors
    /// If the prompt is not one that can be answered, does not leave room for one id, a number of the request is outside its
    /// range, or the reading was cancelled.
    pub fn generate(&mut self, prompt: &[u32], request: &Request) -> Result<Answer<'_>> {
        self.generate_with_progress(prompt, request, &mut |_| {})
    }

    /// As [`Session::generate`]; `progress` is told the fraction of the prompt that is read.
    ///
    /// # Errors
    /// As [`Session::generate`].
    pub fn generate_with_progress(
        &mut self,
        prompt: &[u32],
        request: &Request,
        progress: &mut (dyn FnMut(f32) + Send),
    ) -> Result<Answer<'_>> {
        let sampler = Sampler::new(&request.sampling, self.model.config().vocab, prompt)?;
        self.check_prompt(prompt)?;
        let config = self.model.config();
        let kept = self.model.reusable(prompt, &self.state);
        self.state.truncate(kept);
        let rest = &prompt[kept..];
        let layers = config.layers;
        let mut watch = |stage, first: usize, rows: &[f32]| {
            if let Stage::Layer(layer) = stage {
                let tokens = first + rows.len() / config.hidden;
                let layer = layer as f32 + tokens as f32 / rest.len() as f32;
                progress(layer / layers as f32);
            }
            request.cancel.flow()
        };
        self.model.prefill_observed(rest, &mut self.state, &mut watch)?;
        let last = rest.len() - 1;
        Ok(Answer {
            session: self,
            sampler,
            request: request.clone(),
            kept,
            last,
            given: None,
            count: 0,
            finish: None,
            failed: false,
        })
    }

    /// Checks that an answer may follow `prompt`, and that there is room for it.
    pub(crate) fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        let config = self.model.config();
        if let (MaskKind::Prefix(_), Some(sop)) = (config.mask, config.special.sop)
            && !prompt.contains(&sop)
        {
            let problem =
                format!("the prompt has no start of an answer (sop, {sop}), so none can follow");
            return Err(Error::Ids(problem));
        }
        if prompt.len() >= self.state.capacity() {
            let (needed, capacity) = (prompt.len() + 1, self.state.capacity());
            return Err(Error::ContextFull {
                needed,
                capacity,
                max: self.model.config().max_context,
            });
        }
        Ok(())
    }
}

/// The ids of an answer, each computed when it is asked for.
///
/// A stop id is given out and is the last. After an error, or once [`Answer::finish`] says why it ended, nothing follows.
pub struct Answer<'s> {
    session: &'s mut Session,
    sampler: Sampler,
    request: Request,
    kept: usize,
    /// Which of the tokens last fed has the logits of the next id.
    last: usize,
    /// The id that was given out and not fed yet.
    given: Option<u32>,
    count: usize,
    finish: Option<Finish>,
    failed: bool,
}

impl<'s> Answer<'s> {
    /// The answer as text, given out piece by piece as `stream` does.
    pub fn text(self, stream: TextStream<'_>) -> TextAnswer<'s, '_> {
        TextAnswer { answer: self, stream, ids: Vec::new(), over: false }
    }

    /// Tokens of the prompt that were in the session already and not read again.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Why the answer ended, once it did.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// Why no further id may follow.
    fn limit(&self) -> Option<Finish> {
        if self.request.cancel.is_cancelled() {
            return Some(Finish::Cancelled);
        }
        if self.request.max_new_tokens.is_some_and(|most| self.count >= most) {
            return Some(Finish::Length);
        }
        (self.session.state.len() >= self.session.state.capacity()).then_some(Finish::Context)
    }

    fn step(&mut self) -> Result<u32> {
        let Session { model, state } = &mut *self.session;
        if let Some(id) = self.given.take() {
            model.forward(&[id], state)?;
            self.last = 0;
        }
        self.sampler.choose(model.logits(self.last, state))
    }
}

impl Iterator for Answer<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() || self.failed {
            return None;
        }
        self.finish = self.limit();
        if self.finish.is_some() {
            return None;
        }
        let step = self.step();
        match &step {
            Ok(id) => {
                self.given = Some(*id);
                self.count += 1;
                if self.request.stop_ids.contains(id) {
                    self.finish = Some(Finish::Stop);
                }
            }
            Err(_) => self.failed = true,
        }
        Some(step)
    }
}

/// The text of an answer, in pieces of whole characters.
pub struct TextAnswer<'s, 't> {
    answer: Answer<'s>,
    stream: TextStream<'t>,
    ids: Vec<u32>,
    over: bool,
}

impl TextAnswer<'_, '_> {
    /// The ids so far, with the stop id if that is how the answer ended.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Why the answer ended, once it did.
    pub fn finish(&self) -> Option<Finish> {
        if self.stream.stopped() { Some(Finish::Stop) } else { self.answer.finish() }
    }

    /// Whether a stop string has cut the text off, so that ids and text differ.
    pub fn is_cut(&self) -> bool {
        self.stream.stopped()
    }

    /// The next id into the stream; what is held back if there is none.
    fn step(&mut self) -> Result<String> {
        match self.answer.next() {
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

impl Iterator for TextAnswer<'_, '_> {
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
