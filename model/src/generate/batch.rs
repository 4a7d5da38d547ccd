//! Continuous batching: one pass computes the next tokens of many answers.

mod admission;
mod queue;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::generate::decoding::{self, Decoding};
use crate::generate::generation::{FinishReason, Request, check_prompt};
use crate::generate::prefix_cache::PrefixCache;
use crate::generate::sampling::SampledToken;
use crate::network::hook::RunOptions;
use crate::network::model::Model;
use crate::network::workspace::{TILE, Workspace};
use queue::Queue;

/// Most sequences that still use drafts. A draft takes rows of a pass from the other sequences.
const DRAFTING: usize = 2;

/// Parameters of a [`Batch`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BatchOptions {
    /// Most answers that are computed at the same time.
    pub max_sequences: usize,
    /// Most tokens of prompts in a pass that also computes answers. More of them let prompts end sooner, and answers wait longer for
    /// each token: about this number divided by the speed of prompts in tokens per second. A bidirectional prompt is always in one
    /// pass, for which answers wait: its whole length divided by that speed. No pass has two of them.
    pub prompt_tokens: usize,
    /// Most bytes of keys and values that are kept of answers that ended, for prompts with the same beginning. At most 256 answers
    /// are kept.
    pub cache_bytes: u64,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { max_sequences: 16, prompt_tokens: 64, cache_bytes: 0 }
    }
}

/// A prompt to be answered.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Submission {
    /// Ids of the prompt.
    pub prompt: Vec<u32>,
    /// How it is answered.
    pub request: Request,
    /// Number of answers. They share the prompt, and answer `i` adds `i` to the seed.
    pub choices: usize,
    /// Size of the context in tokens, as in [`Model::sequence`].
    pub context: Option<usize>,
    /// Clients take turns: of the submissions that wait, one of the client with the fewest answers is next. A client without answers
    /// does not wait for a place: one of the client with the most answers is paused.
    pub client: u64,
}

impl Submission {
    /// One answer to `prompt`, in a context of the default size.
    pub fn new(prompt: Vec<u32>, request: Request) -> Self {
        Self { prompt, request, choices: 1, context: None, client: 0 }
    }
}

/// Names a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What happened to a submission.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The prompt was computed. `cached` of its tokens were reused from other sequences.
    Started {
        /// Tokens of the prompt that were not computed.
        cached: usize,
    },
    /// The next id of an answer. A stop id is the last one.
    Token {
        /// Index of the answer.
        choice: usize,
        /// The id.
        token: SampledToken,
    },
    /// An answer ended. The last one ends the submission.
    Finished {
        /// Index of the answer.
        choice: usize,
        /// Why it ended.
        reason: FinishReason,
    },
    /// The submission failed, with all its answers.
    Failed(Error),
}

/// The state and the work of a [`Batch`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct BatchStats {
    /// Answers that are computed, including those whose prompt is.
    pub running: usize,
    /// Submissions that wait.
    pub waiting: usize,
    /// Answers that began and wait, because others need their memory or, if these belong to another client, their place.
    pub paused: usize,
    /// Bytes of keys and values that the cache keeps.
    pub cache_bytes: u64,
    /// Passes so far.
    pub passes: u64,
    /// Tokens of prompts that were computed, and of answers that were computed again.
    pub prompt_tokens: u64,
    /// Tokens of prompts that were reused.
    pub cached_tokens: u64,
    /// Ids of answers.
    pub answer_tokens: u64,
    /// Time of all passes.
    pub busy: Duration,
    /// Time of the last pass.
    pub last_pass: Duration,
}

/// Computes many answers at the same time.
///
/// Each [`Batch::pass`] takes the next id of every answer, and some tokens of prompts. The ids of an answer do not depend on the other
/// answers: they are those of a [`Generation`](crate::Generation) with the same prompt and request.
///
/// Keys and values of a prompt, or of its beginning, that another sequence has computed are reused as [`Model::reusable`] allows. If
/// the memory for keys and values is exhausted, the cache is emptied first. Then the answer that began last is paused and computed
/// again later. A submission fails only if it does not fit alone.
pub struct Batch {
    model: Model,
    workspace: Workspace,
    options: BatchOptions,
    queue: Queue,
    /// Answers that were paused, the oldest submission first.
    paused: Vec<Running>,
    /// In the order in which they began.
    running: Vec<Running>,
    cache: PrefixCache,
    tickets: u64,
    stats: BatchStats,
}

/// An answer that is computed.
struct Running {
    ticket: Ticket,
    client: u64,
    choice: usize,
    answer: Decoding,
    /// Further answers to the same prompt. They begin once it is computed.
    forks: Option<Box<Submission>>,
    /// The pass in which tokens of its prompt were computed last.
    served: u64,
    /// Whether it was paused for another client and may continue as soon as there is a place.
    gave_way: bool,
}

impl Batch {
    /// A batch without submissions.
    ///
    /// # Errors
    /// If an option is 0 that must not be, or memory cannot be allocated.
    pub fn new(model: &Model, options: BatchOptions) -> Result<Self> {
        let numbers = [
            ("max sequences", options.max_sequences),
            ("prompt tokens of a pass", options.prompt_tokens),
        ];
        for (setting, value) in numbers {
            check(setting, value, usize::MAX)?;
        }
        Ok(Self {
            workspace: model.workspace()?,
            model: model.clone(),
            queue: Queue::default(),
            paused: Vec::new(),
            running: Vec::new(),
            cache: PrefixCache::new(options.cache_bytes),
            tickets: 0,
            stats: BatchStats::default(),
            options,
        })
    }

    /// Adds a submission. It begins in one of the next passes.
    ///
    /// # Errors
    /// If the prompt or a parameter is invalid, or the prompt exceeds the context.
    pub fn submit(&mut self, submission: Submission) -> Result<Ticket> {
        let Submission { prompt, request, choices, context, .. } = &submission;
        check("number of choices", *choices, self.options.max_sequences)?;
        request.sampling.validate()?;
        let vocab = self.model.config().vocab;
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocab) {
            let problem = format!("id {id} is outside the vocabulary of {vocab} ids");
            return Err(Error::Ids(problem));
        }
        check_prompt(&self.model, prompt, self.model.sequence(*context)?.capacity())?;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.queue.push(ticket, submission);
        Ok(ticket)
    }

    /// Removes a submission and frees its memory. It has no further events.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.queue.remove(ticket);
        self.paused.retain(|other| other.ticket != ticket);
        self.running.retain(|other| other.ticket != ticket);
    }

    /// Whether there is nothing to compute.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.paused.is_empty() && self.queue.len() == 0
    }

    /// Writes the cache to a file, which replaces an older one at once. Only the user may read it, because it tells the prompts.
    ///
    /// # Errors
    /// If the file cannot be written, or the model is not causal: a bidirectional prompt has no beginnings to share.
    pub fn save_cache(&self, path: impl AsRef<Path>) -> Result<()> {
        self.cache.save(&self.model, path.as_ref())
    }

    /// Adds the sequences of a file that [`Batch::save_cache`] wrote to the cache, as far as its budget allows. Returns the tokens
    /// that were read.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or belongs to another model, other types of activations or cache, or a processor whose
    /// results differ. The cache is unchanged then.
    pub fn load_cache(&mut self, path: impl AsRef<Path>) -> Result<usize> {
        self.cache.load(&self.model, path.as_ref())
    }

    /// Statistics.
    pub fn stats(&self) -> BatchStats {
        BatchStats {
            running: self.running.len(),
            waiting: self.queue.len(),
            paused: self.paused.len(),
            cache_bytes: self.cache.bytes(),
            ..self.stats
        }
    }

    /// Computes the next tokens of all answers that run, begins others, and reports what happened. Does nothing if it is idle.
    ///
    /// An error of one submission is its [`Event::Failed`]. The others are not affected.
    pub fn pass(&mut self, events: &mut dyn FnMut(Ticket, Event)) {
        self.begin(events);
        self.end_early(events);
        if self.running.is_empty() {
            return;
        }
        self.plan();
        let started = Instant::now();
        self.compute(events);
        self.stats.passes += 1;
        self.stats.last_pass = started.elapsed();
        self.stats.busy += started.elapsed();
        self.report(events);
    }

    /// Ends the answers that need no further pass: they were cancelled through their token, or have no ids.
    fn end_early(&mut self, events: &mut dyn FnMut(Ticket, Event)) {
        for list in [&mut self.running, &mut self.paused] {
            list.retain_mut(|running| {
                let reason = running.answer.limit();
                let Some(reason) = reason else { return true };
                for choice in running.choice..running.choice + running.choices() {
                    events(running.ticket, Event::Finished { choice, reason });
                }
                false
            });
        }
    }

    /// Plans the rows of a pass: one for each answer, and tokens of prompts. Prompts take turns.
    fn plan(&mut self) {
        let answering = self.running.iter().filter(|other| other.answer.prefill() == 0).count();
        let may_draft = self.running.len() <= DRAFTING;
        let mut left = if answering == 0 { TILE } else { self.options.prompt_tokens };
        let mut order: Vec<_> = (0..self.running.len()).collect();
        order.sort_by_key(|&index| self.running[index].served);
        let is_causal = self.model.is_causal();
        for index in order {
            let Running { answer, served, .. } = &mut self.running[index];
            if answer.prefill() == 0 {
                answer.plan(0, may_draft);
            } else if left == 0 {
                answer.rest();
            } else {
                let planned = answer.plan(left, false);
                *served = self.stats.passes + 1;
                // A bidirectional prompt has the pass for itself and the answers.
                left = if is_causal { left - planned } else { 0 };
                self.stats.prompt_tokens += planned as u64;
            }
        }
    }

    /// Runs the planned pass. If memory is short, empties the cache and pauses answers.
    fn compute(&mut self, events: &mut dyn FnMut(Ticket, Event)) {
        loop {
            let Self { model, workspace, running, .. } = self;
            let started = Instant::now();
            let planned =
                running.iter_mut().map(|running| &mut running.answer).filter(|a| !a.rests());
            let logits = decoding::run(model, workspace, planned, RunOptions::default());
            let error = match logits {
                Ok(logits) => {
                    let time = started.elapsed();
                    let mut forked = Vec::new();
                    let planned = running.iter_mut().filter(|running| !running.answer.rests());
                    for (index, running) in planned.enumerate() {
                        if running.answer.samples()
                            && let Some(submission) = running.forks.take()
                        {
                            // Those whose parameters are invalid were refused by `submit`.
                            forked.extend((1..submission.choices).filter_map(|choice| {
                                let logits = logits.chunk(index);
                                running.fork(model, &submission, choice, logits, time).ok()
                            }));
                        }
                        running.answer.take(logits.chunk(index), time);
                    }
                    running.extend(forked);
                    break;
                }
                Err(error) => error,
            };
            match error {
                Error::KvBudget { .. } | Error::Memory { .. } => {
                    if self.cache.evict() {
                        continue;
                    }
                    if self.release() {
                        continue;
                    }
                    self.fail_all(events, error);
                }
                error => self.fail_all(events, error),
            }
            return;
        }
        self.workspace.shrink(self.model.config());
    }

    fn fail_all(&mut self, events: &mut dyn FnMut(Ticket, Event), error: Error) {
        let mut error = Some(error);
        let mut tickets: Vec<_> =
            std::mem::take(&mut self.running).iter().map(|r| r.ticket).collect();
        tickets.dedup();
        self.paused.retain(|running| !tickets.contains(&running.ticket));
        for ticket in tickets {
            events(ticket, Event::Failed(error.take().unwrap_or(Error::Failed)));
        }
    }

    /// Reports what was sampled, and moves the sequences of answers that ended into the cache.
    fn report(&mut self, events: &mut dyn FnMut(Ticket, Event)) {
        let mut failed = Vec::new();
        let mut still = Vec::with_capacity(self.running.len());
        for mut running in std::mem::take(&mut self.running) {
            let Running { ticket, choice, ref mut answer, .. } = running;
            if failed.contains(&ticket) {
                continue;
            }
            if !answer.has_begun() {
                still.push(running);
                continue;
            }
            if answer.announce() && choice == 0 {
                let cached = answer.kept();
                self.stats.cached_tokens += cached as u64;
                events(ticket, Event::Started { cached });
            }
            while answer.limit().is_none()
                && let Some(token) = answer.pop()
            {
                self.stats.answer_tokens += 1;
                events(ticket, Event::Token { choice, token });
                if answer.is_over() {
                    break;
                }
            }
            if answer.is_dry()
                && let Err(error) = answer.problem()
            {
                failed.push(ticket);
                events(ticket, Event::Failed(error));
                continue;
            }
            match answer.finish_reason() {
                Some(reason) => {
                    events(ticket, Event::Finished { choice, reason });
                    self.cache.insert(running.answer.into_sequence());
                }
                None => still.push(running),
            }
        }
        still.retain(|running| !failed.contains(&running.ticket));
        self.paused.retain(|running| !failed.contains(&running.ticket));
        self.running = still;
    }
}

impl Running {
    /// Number of answers that it is, or will be once the prompt is computed.
    fn choices(&self) -> usize {
        self.forks.as_ref().map_or(1, |forks| forks.choices)
    }

    /// Answer `choice` to the same prompt, whose last `logits` are given.
    fn fork<'l>(
        &self,
        model: &Model,
        submission: &Submission,
        choice: usize,
        logits: impl Iterator<Item = &'l [f32]>,
        time: Duration,
    ) -> Result<Self> {
        let mut request = submission.request.clone();
        request.sampling.seed = request.sampling.seed.wrapping_add(choice as u64);
        let answer = self.answer.fork(model, request, logits, time)?;
        Ok(Self {
            ticket: self.ticket,
            client: self.client,
            choice,
            answer,
            forks: None,
            served: self.served,
            gave_way: false,
        })
    }
}

fn check(setting: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    let range =
        if most == usize::MAX { "at least 1".to_owned() } else { format!("from 1 to {most}") };
    Err(Error::Setting { setting, range, found: value.to_string() })
}
