//! Continuous batching: one pass computes the next tokens of many answers.

mod admission;
mod pass;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::generate::decoding::Decoding;
use crate::generate::fair_queue::{Client, FairQueue};
use crate::generate::generation::{FinishReason, Request, check_prompt};
use crate::generate::prefix_cache::PrefixCache;
use crate::generate::sampling::SampledToken;
use crate::network::adapter::Adapter;
use crate::network::hook::CancelToken;
use crate::network::model::Model;
use crate::network::workspace::Workspace;

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
    /// The least share of the time that answers have for themselves while bidirectional prompts wait, from 0 to 0.9. After a pass with
    /// such a prompt, no other is computed until they have had it: with a quarter, for a third of the time of that pass.
    pub answer_share: f64,
    /// Most bytes of keys and values that are kept of answers that ended, for prompts with the same beginning. At most 256 answers
    /// are kept.
    pub cache_bytes: u64,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { max_sequences: 16, prompt_tokens: 64, answer_share: 0.25, cache_bytes: 0 }
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
    /// What the prompt begins with; by default the adapter of the model of the batch, if it has one.
    pub adapter: Option<Adapter>,
    /// Clients take turns, first the addresses and then the users of an address: of the submissions that wait, one of the address with
    /// the fewest answers is next. A client without answers does not wait for a place if its address has fewer answers than another, or
    /// another user of its address has more than one: an answer of those with the most is paused. A submission that waits for several
    /// places is overtaken by at most [`BatchOptions::max_sequences`] of those that need fewer, of clients without answers.
    pub client: Client,
}

impl Submission {
    /// One answer to `prompt`, in a context of the default size.
    pub fn new(prompt: Vec<u32>, request: Request) -> Self {
        let (context, adapter, client) = Default::default();
        Self { prompt, request, choices: 1, context, adapter, client }
    }

    /// The model with the adapter of the submission.
    fn model(&self, model: &Model) -> Result<Model> {
        model.with_adapter(self.adapter.as_ref().or(model.adapter()))
    }
}

/// Names a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What happened to a submission.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The submission does not wait any more: its prompt is computed next.
    Begun,
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
    /// Time of the longest pass: so long have answers waited for a token.
    pub longest_pass: Duration,
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
    queue: FairQueue<(Ticket, Submission)>,
    /// Answers that were paused, the oldest submission first.
    paused: Vec<Running>,
    /// In the order in which they began.
    running: Vec<Running>,
    cache: PrefixCache,
    /// Time that answers have for themselves before the next bidirectional prompt.
    reserved: Duration,
    tickets: u64,
    /// How many others have taken free places while a submission waits for more of them.
    overtaken: HashMap<Ticket, usize>,
    stats: BatchStats,
}

/// An answer that is computed.
struct Running {
    ticket: Ticket,
    client: Client,
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
    /// If an option is outside its range, or memory cannot be allocated.
    pub fn new(model: &Model, options: BatchOptions) -> Result<Self> {
        let numbers = [
            ("max sequences", options.max_sequences),
            ("prompt tokens of a pass", options.prompt_tokens),
        ];
        for (setting, value) in numbers {
            check(setting, value, usize::MAX)?;
        }
        if !(0.0..=0.9).contains(&options.answer_share) {
            let (range, found) = ("from 0 to 0.9".to_owned(), options.answer_share.to_string());
            return Err(Error::Setting { setting: "share of answers", range, found });
        }
        Ok(Self {
            workspace: model.workspace()?,
            model: model.clone(),
            queue: FairQueue::default(),
            paused: Vec::new(),
            running: Vec::new(),
            cache: PrefixCache::new(options.cache_bytes),
            reserved: Duration::ZERO,
            tickets: 0,
            overtaken: HashMap::new(),
            stats: BatchStats::default(),
            options,
        })
    }

    /// Adds a submission. It begins in one of the next passes.
    ///
    /// # Errors
    /// If the prompt or a parameter is invalid, the prompt exceeds the context, or the adapter belongs to another model.
    pub fn submit(&mut self, submission: Submission) -> Result<Ticket> {
        let Submission { prompt, request, choices, context, .. } = &submission;
        check("number of choices", *choices, self.options.max_sequences)?;
        request.sampling.validate()?;
        let vocab = self.model.config().vocab;
        if let Some(id) = prompt.iter().find(|&&id| id as usize >= vocab) {
            let problem = format!("id {id} is outside the vocabulary of {vocab} ids");
            return Err(Error::Ids(problem));
        }
        let model = submission.model(&self.model)?;
        check_prompt(&model, prompt, model.sequence(*context)?.capacity())?;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.queue.push(submission.client, (ticket, submission));
        Ok(ticket)
    }

    /// Removes a submission and frees its memory. It has no further events.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.queue.retain(|(other, _)| *other != ticket);
        self.overtaken.remove(&ticket);
        self.paused.retain(|other| other.ticket != ticket);
        self.running.retain(|other| other.ticket != ticket);
    }

    /// Ends one answer whose ids are not needed any more, for example because its text has a stop string. Its memory is freed, or kept
    /// by the cache, and it has no further events. Does nothing to an answer that has no ids yet, or has ended.
    pub fn stop(&mut self, ticket: Ticket, choice: usize) {
        for list in [&mut self.running, &mut self.paused] {
            let is_meant = |other: &Running| {
                (other.ticket, other.choice) == (ticket, choice) && other.answer.has_begun()
            };
            if let Some(index) = list.iter().position(is_meant) {
                self.cache.insert(list.remove(index).answer.into_sequence());
                return;
            }
        }
    }

    /// Whether there is nothing to compute.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.paused.is_empty() && self.queue.is_empty()
    }

    /// Writes the prompts in the cache that begin with the adapter of the model, or with none if it has none, to a file, which replaces an older one once it is complete. Only the user may read it, because it tells the
    /// prompts. Several processes may save to the same file; that of the last one remains.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `cancel` asks for it; another error if the file cannot be written, or the model is not causal: a
    /// bidirectional prompt has no beginnings to share. An older file is unchanged then.
    pub fn save_cache(&self, path: impl AsRef<Path>, cancel: &CancelToken) -> Result<()> {
        self.cache.save(&self.model, path.as_ref(), cancel)
    }

    /// Adds the sequences of a file that [`Batch::save_cache`] wrote to the cache, as far as its budget allows. Returns the tokens
    /// that were read.
    ///
    /// # Errors
    /// [`Error::Cache`] if the file is damaged, needs more memory than the cache may have, or belongs to another model, other types of
    /// activations or cache, or a processor whose results differ; another error if it cannot be read, is something else, or the memory
    /// is exhausted. The cache is unchanged then.
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
}

impl Running {
    /// Number of answers that it is, or will be once the prompt is computed.
    fn choices(&self) -> usize {
        self.forks.as_ref().map_or(1, |forks| forks.choices)
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
