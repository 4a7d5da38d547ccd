//! Which answers run: those that were paused, then those that wait, as far as places and memory allow.

use std::collections::HashSet;

use super::{Batch, Event, Running, Submission, Ticket};
use crate::error::Result;
use crate::generate::decoding::{Decoding, guarded};
use crate::generate::fair_queue::{Client, Shares};
use crate::generate::prefix_cache::PrefixCache;
use crate::network::model::Model;
use crate::network::sequence::Sequence;

/// A submission waits for another one that computes at least this many tokens of its beginning.
const WORTH_WAITING: usize = 32;

impl Batch {
    /// Begins as many submissions as there is room for.
    pub(super) fn begin(&mut self, events: &mut dyn FnMut(Ticket, Event)) {
        self.resume();
        // Addresses whose next submission has to wait for places, and how many each of these submissions needs.
        let (mut blocked, mut needs) = (HashSet::new(), Vec::new());
        while let Some(index) = self.next_to_begin(&blocked) {
            let &(ticket, ref submission) = self.queue.get(index);
            let (client, choices, len) =
                (submission.client, submission.choices, submission.prompt.len());
            // If there are no places, it stays the next one. Few others may take those that it waits for, or an answer with many choices would
            // never begin.
            let overtakes = !needs.is_empty() && self.may_overtake(choices, &needs);
            let giving = match overtakes {
                true => Some(Vec::new()),
                false => self.giving(client, choices, !blocked.is_empty()),
            };
            let Some(giving) = giving else {
                blocked.insert(client.address);
                needs.push((ticket, choices));
                continue;
            };
            let beginning = self.beginning(index);
            if !self.has_room(len - beginning.as_ref().map_or(0, Sequence::len)) {
                return;
            }
            let (_, (ticket, submission)) = self.queue.take(index);
            self.overtaken.remove(&ticket);
            let start = || self.start(ticket, submission, beginning);
            match guarded("the beginning of an answer", start) {
                Ok(running) => {
                    events(ticket, Event::Begun);
                    if overtakes {
                        let waiting = needs.iter().map(|&(ticket, _)| ticket);
                        waiting.for_each(|other| *self.overtaken.entry(other).or_default() += 1);
                    }
                    self.give_way(giving);
                    self.running.push(running);
                }
                Err(error) => events(ticket, Event::Failed(error)),
            }
        }
    }

    /// Whether a submission with this many choices may take free places although others wait for as many as each of them `needs`.
    fn may_overtake(&self, choices: usize, needs: &[(Ticket, usize)]) -> bool {
        let most = self.options.max_sequences;
        let lets_pass = |&(ticket, needed): &(Ticket, usize)| {
            choices < needed && self.overtaken.get(&ticket).is_none_or(|&count| count < most)
        };
        choices <= most.saturating_sub(self.answers()) && needs.iter().all(lets_pass)
    }

    /// Continues paused answers, the oldest first.
    fn resume(&mut self) {
        while let Some(first) = self.paused.first() {
            let (choices, tokens) = (first.choices(), first.answer.prefill());
            if self.answers() + choices > self.options.max_sequences {
                return;
            }
            if !self.has_room(tokens) {
                self.paused[0].gave_way = false;
                return;
            }
            let mut resumed = self.paused.remove(0);
            (resumed.served, resumed.gave_way) = (self.stats.passes, false);
            self.running.push(resumed);
        }
    }

    /// Index of the submission that begins next, of an address that is not blocked.
    fn next_to_begin(&self, blocked: &HashSet<u64>) -> Option<usize> {
        // Nothing begins before an answer that lost its memory has it again, or it might never get it.
        if self.paused.iter().any(|paused| !paused.gave_way) {
            return None;
        }
        let Self { queue, running, cache, model, .. } = self;
        let answers = self.shares();
        let may_begin = |client: Client, (_, waits): &(Ticket, Submission)| {
            let takes_free = self.paused.is_empty() && blocked.is_empty();
            (takes_free || answers.of(client) == 0)
                && !blocked.contains(&client.address)
                && !is_being_computed(model, cache, running, waits)
        };
        queue.next(&answers, may_begin)
    }

    /// Number of answers that run, or will once their prompt is computed.
    fn answers(&self) -> usize {
        self.running.iter().map(Running::choices).sum()
    }

    /// The answers of each client that began.
    fn shares(&self) -> Shares {
        let all = self.running.iter().chain(&self.paused);
        all.map(|other| (other.client, other.choices())).collect()
    }

    /// Indices of the answers that give their places to `choices` more of a client; `None` if it has to wait. A client without answers may
    /// take places of those who keep as many. With `own`, only places of its address are taken.
    fn giving(&self, client: Client, choices: usize, own: bool) -> Option<Vec<usize>> {
        let free = match own {
            true => 0,
            false => self.options.max_sequences.saturating_sub(self.answers()),
        };
        let lacking = choices.saturating_sub(free);
        if lacking == 0 {
            return Some(Vec::new());
        }
        let answers = self.shares();
        if answers.of(client) > 0 {
            return None;
        }
        // One that needs several places to continue might never have them.
        let is_movable = |other: &Running| {
            other.forks.is_none() && (!own || other.client.address == client.address)
        };
        let movable = self.running.iter().enumerate().filter(|(_, other)| is_movable(other));
        let (indices, held): (Vec<_>, Vec<_>) =
            movable.map(|(index, other)| (index, other.client)).unzip();
        let giving = answers.giving(client, choices, &held, lacking)?;
        Some(giving.into_iter().map(|index| indices[index]).collect())
    }

    /// Pauses the answers that give their places.
    fn give_way(&mut self, mut giving: Vec<usize>) {
        giving.sort_unstable();
        for index in giving.into_iter().rev() {
            let mut paused = self.running.remove(index);
            paused.gave_way = true;
            paused.answer.rest();
            self.pause(paused);
        }
    }

    fn pause(&mut self, paused: Running) {
        let order = |running: &Running| (running.ticket, running.choice);
        let at = self.paused.partition_point(|other| order(other) < order(&paused));
        self.paused.insert(at, paused);
    }

    /// Frees the memory of an answer: of a paused one, or of the one that began last, unless no other runs.
    pub(super) fn release(&mut self) -> bool {
        if let Some(paused) = self.paused.iter_mut().rev().find(|other| other.answer.has_pages()) {
            paused.gave_way = false;
            paused.answer.release();
            return true;
        }
        if self.running.len() < 2 {
            return false;
        }
        let Some(mut newest) = self.running.pop() else { return false };
        newest.answer.release();
        self.pause(newest);
        true
    }

    /// Whether there is memory for `tokens` more tokens and one page for each answer that runs, if necessary without the cache. A
    /// single answer must try.
    fn has_room(&mut self, tokens: usize) -> bool {
        loop {
            let Some(free) = self.model.kv_pool().free_bytes() else { return true };
            let page = self.model.kv_pool().page_bytes();
            let pages = tokens.div_ceil(glm_kernels::KEYS) + 1 + self.answers();
            if pages as u64 * page <= free || self.running.is_empty() {
                return true;
            }
            if !self.cache.evict() {
                return false;
            }
        }
    }

    /// A sequence with the beginning of a prompt that waits, as far as others have computed it.
    fn beginning(&mut self, index: usize) -> Option<Sequence> {
        let Self { model, queue, cache, running, .. } = self;
        let submission = &queue.get(index).1;
        let (model, prompt) = (submission.model(model).ok()?, &submission.prompt);
        let running = running.iter().map(|other| other.answer.sequence());
        let running = running.filter(|other| model.begins(other));
        let running = running.map(|other| (model.reusable(prompt, other), other));
        let found = running.chain(cache.find(&model, prompt)).max_by_key(|&(len, _)| len);
        found.filter(|&(len, _)| len > 0).map(|(len, found)| found.fork(len))
    }

    fn start(
        &self,
        ticket: Ticket,
        submission: Submission,
        beginning: Option<Sequence>,
    ) -> Result<Running> {
        let empty = submission.model(&self.model)?.sequence(submission.context)?;
        let capacity = empty.capacity();
        let sequence = beginning.map_or(empty, |beginning| beginning.with_capacity(capacity));
        let request = submission.request.clone();
        let answer = Decoding::new(&self.model, sequence, &submission.prompt, request)?;
        let client = submission.client;
        let forks = (submission.choices > 1).then(|| Box::new(submission));
        let served = self.stats.passes;
        Ok(Running { ticket, client, choice: 0, answer, forks, served, gave_way: false })
    }
}

/// Whether a running answer computes more of the beginning of a prompt than can be reused now.
fn is_being_computed(
    model: &Model,
    cache: &PrefixCache,
    running: &[Running],
    submission: &Submission,
) -> bool {
    let Ok(model) = &submission.model(model) else { return false };
    let prompt = &submission.prompt;
    let running: Vec<_> =
        running.iter().filter(|other| model.begins(other.answer.sequence())).collect();
    let computed = |other: &&Running| model.reusable(prompt, other.answer.sequence());
    let planned = |other: &&Running| model.shareable(prompt, other.answer.ids());
    let unfinished = running.iter().filter(|other| other.answer.prefill() > 0);
    let later = unfinished.map(planned).max().unwrap_or(0);
    if later < WORTH_WAITING {
        return false;
    }
    let now = running.iter().map(computed).max().unwrap_or(0).max(cache.reusable(model, prompt));
    later >= now + WORTH_WAITING
}
