//! The state of one answer between passes. [`Generation`](crate::Generation) runs a single answer, and [`Batch`](crate::Batch) runs
//! many in each pass.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files::config::MaskKind;
use crate::generate::constraint::{Constraint, IdSet};
use crate::generate::draft::{DraftStats, Drafter};
use crate::generate::generation::{FinishReason, Request, check_prompt};
use crate::generate::sampling::{SampledToken, Sampler};
use crate::network::chunk::{Chunk, Logits};
use crate::network::hook::{CancelToken, RunOptions};
use crate::network::model::Model;
use crate::network::sequence::Sequence;
use crate::network::workspace::Workspace;

/// A sequence, the ids that it takes next, and the ids that were sampled.
///
/// A pass over it has three steps: [`Decoding::plan`], [`run`], [`Decoding::take`].
pub(crate) struct Decoding {
    sequence: Sequence,
    sampler: Sampler,
    request: Request,
    drafter: Option<Drafter>,
    /// Ids that the sequence does not have yet: of the prompt, or the last sampled id and its draft.
    next: Vec<u32>,
    /// Ids of `next` in the planned pass.
    planned: usize,
    /// Ids of `next` that are a draft.
    drafted: usize,
    /// The ids that may follow, if the constraint of the request restricts them.
    allowed: Option<IdSet>,
    /// Prompt and sampled ids.
    ids: Vec<u32>,
    prompt_tokens: usize,
    /// Whether the first id was sampled.
    has_begun: bool,
    is_announced: bool,
    /// Sampled ids that were not returned yet.
    drawn: VecDeque<SampledToken>,
    kept: usize,
    /// Number of returned ids.
    count: usize,
    finish: Option<FinishReason>,
    /// An error that follows the ids in `drawn`.
    pending: Option<Error>,
    failed: bool,
    /// Whether the prompt must be in a pass of its own, because its tokens attend to later ones.
    is_bidirectional: bool,
}

impl Decoding {
    /// # Errors
    /// As [`Generation::new`](crate::Generation::new).
    pub(crate) fn new(
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
        let draft = request.constraint.is_none().then(|| Drafter::new(request.draft, prompt));
        Ok(Self {
            sequence,
            sampler,
            drafter: draft.flatten(),
            allowed: None,
            request,
            next: prompt[kept..].to_vec(),
            planned: 0,
            drafted: 0,
            ids: prompt.to_vec(),
            prompt_tokens: prompt.len(),
            has_begun: false,
            is_announced: false,
            drawn: VecDeque::new(),
            kept,
            count: 0,
            finish: None,
            pending: None,
            failed: false,
            is_bidirectional: model.config().mask != MaskKind::Causal,
        })
    }

    pub(crate) fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    pub(crate) fn cancel(&self) -> CancelToken {
        self.request.cancel.clone()
    }

    pub(crate) fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(crate) fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    pub(crate) fn draft_stats(&self) -> DraftStats {
        self.drafter.as_ref().map(Drafter::stats).unwrap_or_default()
    }

    /// Whether nothing more is returned.
    pub(crate) fn is_over(&self) -> bool {
        self.finish.is_some() || self.failed
    }

    /// Whether a pass is needed for the next id.
    pub(crate) fn is_dry(&self) -> bool {
        self.drawn.is_empty()
    }

    /// The sequence with the prompt and the returned ids.
    pub(crate) fn into_sequence(mut self) -> Sequence {
        self.sequence.truncate(self.prompt_tokens + self.count);
        self.sequence
    }

    pub(crate) fn end(&mut self, reason: FinishReason) {
        self.finish = Some(reason);
    }

    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// The limit that prevents a further id, if any. It ends the answer.
    pub(crate) fn limit(&mut self) -> Option<FinishReason> {
        let given = self.prompt_tokens + self.count;
        self.finish = if self.request.cancel.is_cancelled() {
            Some(FinishReason::Cancelled)
        } else if self.request.max_new_tokens.is_some_and(|most| self.count >= most) {
            Some(FinishReason::Length)
        } else {
            // The last id is only returned, not fed, so it may exceed the context by one.
            (given > self.sequence.capacity()).then_some(FinishReason::Context)
        };
        self.finish
    }

    /// The error that follows the returned ids.
    ///
    /// # Errors
    /// With that error, if there is one.
    pub(crate) fn problem(&mut self) -> Result<()> {
        let Some(error) = self.pending.take() else { return Ok(()) };
        self.failed = true;
        Err(error)
    }

    /// Returns the next sampled id. After a stop id or a limit, the answer is over.
    pub(crate) fn pop(&mut self) -> Option<SampledToken> {
        if self.is_over() {
            return None;
        }
        let token = self.drawn.pop_front()?;
        self.count += 1;
        if self.request.stop_ids.contains(&token.id) {
            self.finish = Some(FinishReason::Stop);
        }
        Some(token)
    }

    /// Ids of the prompt, or of an answer whose tokens were released, that a pass has to compute before an id can be sampled.
    pub(crate) fn prefill(&self) -> usize {
        let is_answer = self.has_begun && self.next.len() == 1 + self.drafted;
        if is_answer { 0 } else { self.next.len() }
    }

    /// Chooses the ids of the next pass: at most `most` of the prompt, unless it must be in one piece; or the last id and a draft,
    /// if `may_draft`. Returns their number.
    pub(crate) fn plan(&mut self, most: usize, may_draft: bool) -> usize {
        self.drop_draft();
        let prefill = self.prefill();
        let is_whole = self.is_bidirectional && self.sequence.is_empty();
        self.planned = match prefill {
            0 => 1,
            // Ids of an answer are never context, so the published positions of the prompt stay.
            _ if is_whole => self.prompt_tokens,
            _ => prefill.min(most),
        };
        if prefill == 0
            && may_draft
            && let Some(drafter) = &mut self.drafter
        {
            // A draft must fit in the context and must not exceed the requested number of ids.
            let given = self.prompt_tokens + self.count;
            let fit = self.sequence.capacity() - given;
            let most = self.request.max_new_tokens;
            let most = most.map_or(fit, |most| fit.min(most - self.count - 1));
            self.next.extend_from_slice(drafter.propose(most));
            self.drafted = self.next.len() - 1;
            self.planned = self.next.len();
        }
        self.planned
    }

    pub(crate) fn has_draft(&self) -> bool {
        self.drafted > 0
    }

    pub(crate) fn drop_draft(&mut self) {
        self.next.truncate(self.next.len() - self.drafted);
        (self.planned, self.drafted) = (self.planned.min(self.next.len()), 0);
    }

    /// Tokens of a prompt, or of an answer that is computed again, in the planned pass.
    pub(crate) fn planned_prompt(&self) -> usize {
        if self.prefill() > 0 { self.planned } else { 0 }
    }

    /// Checks what the planned pass would add to the sequence.
    ///
    /// # Errors
    /// If the model refuses it.
    pub(crate) fn check(&mut self, model: &Model) -> Result<()> {
        model.placement(&self.split().0).map(drop)
    }

    /// Whether the planned pass samples an id.
    pub(crate) fn samples(&self) -> bool {
        self.planned == self.next.len()
    }

    /// The planned pass, and the constraint of the id that it samples. The logits of its last token are wanted if it samples an id;
    /// with a draft, those of every token.
    fn split(&mut self) -> (Chunk<'_>, Option<Mask<'_>>) {
        let samples = self.samples();
        let Self { sequence, next, planned, drafted, request, allowed, pending, .. } = self;
        let ids = &next[..*planned];
        let chunk = match (samples, *drafted) {
            (false, _) => Chunk::none(sequence, ids),
            (true, 0) => Chunk::last(sequence, ids),
            (true, _) => Chunk::all(sequence, ids),
        };
        let constraint = request.constraint.as_deref_mut().filter(|_| samples);
        (chunk, constraint.map(|constraint| Mask { constraint, allowed, pending }))
    }

    /// Takes the logits of the planned pass, which took `time`, and samples ids. An error after some ids were sampled is returned
    /// after them, by [`Decoding::problem`].
    pub(crate) fn take<'l>(&mut self, logits: impl Iterator<Item = &'l [f32]>, time: Duration) {
        if !self.samples() {
            self.next.drain(..self.planned);
            self.planned = 0;
            return;
        }
        let taken = guarded("the sampling of an answer", || {
            self.sample_all(logits, time);
            Ok(())
        });
        if let Err(error) = taken {
            self.abandon(error);
        }
    }

    /// Gives an answer up whose state may be inconsistent: the error is the next that [`Decoding::problem`] returns.
    pub(crate) fn abandon(&mut self, error: Error) {
        self.drawn.clear();
        self.next.clear();
        (self.planned, self.drafted, self.has_begun) = (0, 0, true);
        self.pending = Some(error);
    }

    fn sample_all<'l>(&mut self, logits: impl Iterator<Item = &'l [f32]>, time: Duration) {
        let before = self.sequence.len() - self.drafted;
        let (first, was_answer) = (self.drawn.len(), self.prefill() == 0);
        let drafts = self.next.split_off(self.next.len() - self.drafted);
        for (logits, draft) in logits.zip(drafts.iter().map(Some).chain([None])) {
            if self.pending.is_some() {
                break;
            }
            match self.sample(logits) {
                Ok(id) if draft == Some(&id) && !self.request.stop_ids.contains(&id) => {}
                Ok(_) => break,
                Err(error) => {
                    self.pending = Some(error);
                    break;
                }
            }
        }
        let sampled = self.drawn.len() - first;
        self.sequence.truncate(before + sampled.saturating_sub(1));
        let drawn: Vec<_> = self.drawn.iter().skip(first).map(|token| token.id).collect();
        if let Some(drafter) = &mut self.drafter {
            match drawn[..] {
                [id] if !self.has_begun => drafter.begin(id),
                _ if was_answer && sampled > 0 => drafter.verified(self.drafted, &drawn, time),
                // The answer was computed again; its ids are known.
                _ => drawn.iter().for_each(|&id| drafter.begin(id)),
            }
        }
        self.ids.extend_from_slice(&drawn);
        self.next.clear();
        self.next.extend(drawn.last());
        (self.planned, self.drafted, self.has_begun) = (0, 0, true);
    }

    fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let Self { sampler, request, allowed, drawn, .. } = self;
        let token = sampler.sample(logits, allowed.as_ref(), request.logprobs)?;
        let id = token.id;
        drawn.push_back(token);
        match &mut request.constraint {
            Some(constraint) if !request.stop_ids.contains(&id) => constraint.accept(id)?,
            _ => {}
        }
        Ok(id)
    }

    /// Another answer to the same prompt, whose last `logits` are given.
    ///
    /// # Errors
    /// As [`Decoding::new`].
    pub(crate) fn fork<'l>(
        &self,
        model: &Model,
        request: Request,
        logits: impl Iterator<Item = &'l [f32]>,
        time: Duration,
    ) -> Result<Self> {
        let prompt = &self.ids[..self.prompt_tokens];
        let mut fork = Self::new(model, self.sequence.fork(0), prompt, request)?;
        fork.sequence = self.sequence.fork(prompt.len());
        fork.next.drain(..prompt.len() - 1);
        (fork.planned, fork.allowed) = (1, self.allowed.clone());
        fork.take(logits, time);
        Ok(fork)
    }

    /// Takes no part in the next pass.
    pub(crate) fn rest(&mut self) {
        self.drop_draft();
        self.planned = 0;
    }

    /// Whether it takes no part in the planned pass.
    pub(crate) fn rests(&self) -> bool {
        self.planned == 0
    }

    /// Prompt and sampled ids.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Whether the prompt was computed since the last call.
    pub(crate) fn announce(&mut self) -> bool {
        self.has_begun && !std::mem::replace(&mut self.is_announced, true)
    }

    /// Whether [`Decoding::release`] would free memory.
    pub(crate) fn has_pages(&self) -> bool {
        !self.sequence.is_empty()
    }

    /// Returns the pages of the sequence. Its tokens are computed again by the next passes.
    pub(crate) fn release(&mut self) {
        self.drop_draft();
        self.sequence.clear();
        self.next.clone_from(&self.ids);
        self.planned = 0;
        if !self.has_begun {
            self.kept = 0;
        }
    }
}

/// The constraint of an answer, and where the ids that it allows are stored.
struct Mask<'a> {
    constraint: &'a mut dyn Constraint,
    allowed: &'a mut Option<IdSet>,
    pending: &'a mut Option<Error>,
}

impl Mask<'_> {
    fn compute(self, vocab: usize) {
        let mut allowed = self.allowed.take().unwrap_or_else(|| IdSet::new(vocab));
        allowed.clear();
        match guarded("the constraint of an answer", || self.constraint.allowed(&mut allowed)) {
            Ok(true) => *self.allowed = Some(allowed),
            Ok(false) => {}
            Err(error) => *self.pending = Some(error),
        }
    }
}

/// Does work that belongs to one answer. A panic is an error of this answer, which names `what` has failed.
pub(crate) fn guarded<R>(what: &'static str, work: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Error::Panicked(what)))
}

/// Runs the planned pass of every answer. The ids that constraints allow are determined meanwhile, by one more thread. For an answer
/// that takes some 100 µs, and each further answer makes the pass of a real model a millisecond or more longer, so the thread ends
/// first, however many answers there are. If the threads of the pass did it, they would all wait for each other at the next layer.
///
/// # Errors
/// As [`Model::run`].
pub(crate) fn run<'w, 'd>(
    model: &Model,
    workspace: &'w mut Workspace,
    answers: impl Iterator<Item = &'d mut Decoding>,
    options: RunOptions<'_>,
) -> Result<Logits<'w>> {
    let (mut chunks, masks): (Vec<_>, Vec<_>) = answers.map(Decoding::split).unzip();
    let masks: Vec<_> = masks.into_iter().flatten().collect();
    if masks.is_empty() {
        return model.run(workspace, &mut chunks, options);
    }
    let vocab = model.config().vocab;
    let masks = Mutex::new(masks);
    let compute = || {
        if let Ok(mut masks) = masks.lock() {
            masks.drain(..).for_each(|mask| mask.compute(vocab));
        }
    };
    std::thread::scope(|scope| {
        // If there is no thread, they are computed first.
        if std::thread::Builder::new().spawn_scoped(scope, compute).is_err() {
            compute();
        }
        model.run(workspace, &mut chunks, options)
    })
}
