//! A pass: which tokens it computes, how it is run, and what is reported of it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use super::{Batch, Event, Running, Submission, Ticket};
use crate::error::{Error, Result};
use crate::generate::decoding::{self, guarded};
use crate::network::chunk::Logits;
use crate::network::hook::RunOptions;
use crate::network::model::Model;
use crate::network::workspace::tile;

/// Most sequences that still use drafts. A draft takes rows of a pass from the other sequences.
const DRAFTING: usize = 2;

impl Batch {
    /// Computes the next tokens of all answers that run, begins others, and reports what happened. Does nothing if it is idle.
    ///
    /// An error of one submission, or a panic of its constraint, is its [`Event::Failed`]. The others are not affected. If the model
    /// itself panics, all submissions fail that had a part in this pass.
    ///
    /// # Panics
    /// If `events` does, or if the model panics and there is no memory for a new workspace.
    pub fn pass(&mut self, events: &mut dyn FnMut(Ticket, Event)) {
        self.begin(events);
        self.end_early(events);
        if self.running.is_empty() {
            return;
        }
        let reserves = self.plan();
        let started = Instant::now();
        self.compute(events);
        let time = started.elapsed();
        self.reserved = match reserves {
            true => time.mul_f64(self.options.answer_share / (1.0 - self.options.answer_share)),
            false => self.reserved.saturating_sub(time),
        };
        self.stats.passes += 1;
        self.stats.last_pass = time;
        self.stats.longest_pass = self.stats.longest_pass.max(time);
        self.stats.busy += time;
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

    /// Plans the rows of a pass: one for each answer, and tokens of prompts. Prompts take turns. Returns whether answers wait for a
    /// bidirectional prompt.
    fn plan(&mut self) -> bool {
        let are_answers = self.running.iter().any(|other| other.answer.prefill() == 0);
        let may_draft = self.running.len() <= DRAFTING;
        let is_causal = self.model.is_causal();
        let mut left = match are_answers {
            false => tile(self.model.config()),
            true if is_causal || self.reserved.is_zero() => self.options.prompt_tokens,
            true => 0,
        };
        let mut reserves = false;
        let mut order: Vec<_> = (0..self.running.len()).collect();
        order.sort_by_key(|&index| self.running[index].served);
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
                reserves = are_answers && !is_causal;
            }
        }
        reserves
    }

    /// Runs the planned pass. If memory is short, empties the cache and pauses answers.
    fn compute(&mut self, events: &mut dyn FnMut(Ticket, Event)) {
        while self.running.iter().any(|running| !running.answer.rests()) {
            let ran = catch_unwind(AssertUnwindSafe(|| self.run()));
            let failed = match ran {
                Ok(Ok(())) => break,
                Ok(Err(Error::KvBudget { .. } | Error::Memory { .. }))
                    if self.drop_drafts() || self.cache.evict() || self.release() =>
                {
                    continue;
                }
                Ok(Err(error)) => self.blame(error),
                Err(panic) => {
                    // It may have left anything in the workspace. Sequences are as long as before.
                    let Ok(workspace) = self.model.workspace() else { resume_unwind(panic) };
                    self.workspace = workspace;
                    let planned = self.running.iter().filter(|running| !running.answer.rests());
                    planned.map(|other| (other.ticket, Error::Panicked("the model"))).collect()
                }
            };
            self.fail(failed, events);
        }
        self.workspace.shrink(self.model.config());
    }

    /// Runs the planned pass and samples ids.
    fn run(&mut self) -> Result<()> {
        let Self { model, workspace, running, .. } = self;
        let started = Instant::now();
        let planned = running.iter_mut().map(|running| &mut running.answer);
        let planned = planned.filter(|answer| !answer.rests());
        let logits = decoding::run(model, workspace, planned, RunOptions::default())?;
        let time = started.elapsed();
        let planned: Vec<_> = running.iter_mut().filter(|other| !other.answer.rests()).collect();
        let prompts: usize = planned.iter().map(|running| running.answer.planned_prompt()).sum();
        self.stats.prompt_tokens += prompts as u64;
        let take =
            |(index, running): (usize, &mut Running)| running.take(model, logits, index, time);
        // Each looks at all ids of the vocabulary, which takes a millisecond or more.
        let forked: Vec<_> = match planned.len() {
            0 | 1 => planned.into_iter().enumerate().map(take).collect(),
            _ => model.install(|| planned.into_par_iter().enumerate().map(take).collect()),
        };
        running.extend(forked.into_iter().flatten());
        Ok(())
    }

    /// Gives up the drafts of the planned pass, which have a page to themselves perhaps. Returns `false` if there are none.
    fn drop_drafts(&mut self) -> bool {
        let has_drafts = self.running.iter().any(|running| running.answer.has_draft());
        self.running.iter_mut().for_each(|running| running.answer.drop_draft());
        has_drafts
    }

    /// Whose error it is that the planned pass has failed with: that of the submissions that the model refuses, or else of all.
    fn blame(&mut self, error: Error) -> BTreeMap<Ticket, Error> {
        let Self { model, running, .. } = self;
        let planned = running.iter_mut().filter(|running| !running.answer.rests());
        let refused = planned.filter_map(|running| {
            let error = running.answer.check(model).err()?;
            Some((running.ticket, error))
        });
        let mut failed: BTreeMap<_, _> = refused.collect();
        if failed.is_empty() {
            let planned = running.iter().filter(|running| !running.answer.rests());
            // Each is told of a file that was changed.
            let reason = || model.check_files().err().unwrap_or(Error::Failed);
            failed.extend(planned.map(|running| (running.ticket, reason())));
            if let Some(mut first) = failed.first_entry() {
                first.insert(error);
            }
        }
        failed
    }

    /// Removes submissions that have failed.
    fn fail(&mut self, failed: BTreeMap<Ticket, Error>, events: &mut dyn FnMut(Ticket, Event)) {
        for list in [&mut self.running, &mut self.paused] {
            list.retain(|running| !failed.contains_key(&running.ticket));
        }
        failed.into_iter().for_each(|(ticket, error)| events(ticket, Event::Failed(error)));
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
            // An answer that has all its ids is whole, whatever would have become of the next.
            if answer.finish_reason().is_none()
                && answer.is_dry()
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
    /// Takes the logits of the planned pass. Returns the further answers to the same prompt, which begin now.
    fn take(
        &mut self,
        model: &Model,
        logits: Logits<'_>,
        index: usize,
        time: Duration,
    ) -> Vec<Self> {
        let forks = self.forks.take_if(|_| self.answer.samples());
        let forks = forks.map_or(Ok(Vec::new()), |submission| {
            let fork = |choice| self.fork(model, &submission, choice, logits.chunk(index), time);
            guarded("the beginning of an answer", || (1..submission.choices).map(fork).collect())
        });
        self.answer.take(logits.chunk(index), time);
        forks.unwrap_or_else(|error| {
            self.answer.abandon(error);
            Vec::new()
        })
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
