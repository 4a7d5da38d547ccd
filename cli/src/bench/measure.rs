//! Runs the model and takes the time.

use std::time::Instant;

use anyhow::Result;
use glm_model::{
    CancelToken, Chunk, Draft, DraftStats, Error, Generation, Request, RunOptions, Sampling,
    Sequence, Workspace,
};
use indicatif::ProgressBar;

use super::lengths::{DEPTH, LOOKUP_TOKENS};
use super::limit::Limits;
use super::measurement::{Measurement, Test};
use crate::messages;

/// Passes that verify a draft, in a round.
const DRAFT_PASSES: usize = 4;

/// The first of the ordinary ids. Which ones are used makes no difference, but for experts: equal tokens choose the same ones.
const ID: u32 = 5;

pub struct Runner<'a> {
    pub limits: Limits<'a>,
    pub workspace: Workspace,
    pub rounds: usize,
    pub cancel: CancelToken,
    /// Says what is being measured.
    pub progress: &'a ProgressBar,
}

impl Runner<'_> {
    /// Measures the limits of the machine again, see [`Limits::update`].
    pub fn update_limits(&mut self) {
        self.progress.set_message(messages::bench_limits());
        self.limits.update();
    }

    /// Reads a prompt.
    pub fn prompt(&mut self, tokens: usize, sequence: &mut Sequence) -> Result<Measurement> {
        let ids = self.ids(tokens);
        self.measure(Test::Prompt(tokens), |runner| {
            sequence.clear();
            let seconds = runner.pass(&mut [Chunk::last(sequence, &ids)])?;
            Ok(tokens as f64 / seconds)
        })
    }

    /// Generates after `depth` tokens.
    pub fn decode(&mut self, depth: usize, sequence: &mut Sequence) -> Result<Measurement> {
        let start = self.begin(depth, sequence)?;
        self.measure(Test::Decode(depth), |runner| {
            runner.generate(start, std::slice::from_mut(sequence))
        })
    }

    /// Generates tokens of several sequences together, for each of `counts`, and compares that with one sequence.
    pub fn sequences(
        &mut self,
        counts: &[usize],
        show: &mut dyn FnMut(Measurement) -> Result<()>,
    ) -> Result<()> {
        if counts.is_empty() {
            return Ok(());
        }
        let capacity = DEPTH + 1 + self.limits.tokens;
        let mut first = self.limits.model.sequence(Some(capacity))?;
        let start = self.begin(DEPTH, &mut first)?;
        let together = |runner: &mut Self, count: usize| {
            let mut sequences: Vec<_> = (0..count).map(|_| first.fork(start)).collect();
            runner.measure(Test::Sequences(count), |runner| runner.generate(start, &mut sequences))
        };
        let one = together(self, 1)?;
        counts.iter().try_for_each(|&count| show(together(self, count)?.relative_to(&one)))
    }

    /// Compares passes of several tokens of one sequence with passes of one: the cost of verifying a draft.
    pub fn drafts(
        &mut self,
        counts: &[usize],
        show: &mut dyn FnMut(Measurement) -> Result<()>,
    ) -> Result<()> {
        let Some(most) = counts.iter().max() else { return Ok(()) };
        let mut sequence = self.limits.model.sequence(Some(DEPTH + 1 + most))?;
        let start = self.begin(DEPTH, &mut sequence)?;
        let mut verify = |runner: &mut Self, count: usize| {
            let ids: Vec<_> = (0..count).map(|index| runner.plain(index)).collect();
            runner.measure(Test::Verify(count), |runner| {
                let mut seconds = 0.0;
                for _ in 0..DRAFT_PASSES {
                    sequence.truncate(start);
                    seconds += runner.pass(&mut [Chunk::all(&mut sequence, &ids)])?;
                }
                Ok((DRAFT_PASSES * count) as f64 / seconds)
            })
        };
        let one = verify(self, 1)?;
        counts.iter().try_for_each(|&count| show(verify(self, count)?.relative_to(&one)))
    }

    /// Greedy answers to a repetitive prompt, with prompt lookup and without. How much is accepted depends on the model and the
    /// text.
    pub fn lookup(&mut self) -> Result<Measurement> {
        let model = self.limits.model;
        let special = &model.config().special;
        let mut prompt: Vec<_> = (0..LOOKUP_TOKENS as u32 / 2).map(|i| ID + i % 16).collect();
        prompt.extend(special.gmask.or(special.mask));
        prompt.extend(special.sop);
        let cancel = self.cancel.clone();
        let generate = |draft: Draft| -> Result<(f64, DraftStats)> {
            let mut request = Request::new(Sampling::greedy());
            (request.max_new_tokens, request.draft) = (Some(LOOKUP_TOKENS), draft);
            request.cancel = cancel.clone();
            let sequence = model.sequence(Some(2 * LOOKUP_TOKENS))?;
            let mut answer = Generation::new(model, sequence, &prompt, request)?;
            answer.read_prompt(&mut |_| {})?;
            let started = Instant::now();
            let ids = answer.by_ref().collect::<Result<Vec<_>, _>>()?;
            Ok((ids.len() as f64 / started.elapsed().as_secs_f64(), answer.draft_stats()))
        };
        // In turn, so that both see the same machine.
        let (mut without, mut drafts) = (Vec::new(), DraftStats::default());
        let with = self.measure(Test::Lookup(LOOKUP_TOKENS), |_| {
            without.push(generate(Draft::Off)?.0);
            let (rate, drafted) = generate(Draft::Auto)?;
            drafts = drafted;
            Ok(rate)
        })?;
        // Without the round that warms up.
        without.remove(0);
        let without = Measurement::new(Test::Lookup(LOOKUP_TOKENS), without);
        Ok(Measurement { drafts: Some(drafts), ..with.relative_to(&without) })
    }

    /// Runs a round to warm up, then as many as are measured; `round` returns tokens a second.
    fn measure(
        &mut self,
        test: Test,
        mut round: impl FnMut(&mut Self) -> Result<f64>,
    ) -> Result<Measurement> {
        let what = test.description();
        self.progress.set_message(messages::bench_warm_up(&what));
        round(self)?;
        let rounds = self.rounds;
        let rates = (1..=rounds).map(|number| {
            self.progress.set_message(messages::bench_round(&what, number, rounds));
            round(self)
        });
        let rates = rates.collect::<Result<Vec<_>>>()?;
        Ok(Measurement { limit: self.limits.of(test), ..Measurement::new(test, rates) })
    }

    /// Feeds `depth` tokens and the start of an answer to a sequence; returns its length. What the sequence has of them is kept if
    /// the model can reuse it.
    fn begin(&mut self, depth: usize, sequence: &mut Sequence) -> Result<usize> {
        self.progress.set_message(messages::bench_fill(depth));
        let model = self.limits.model;
        let mut ids = self.ids(depth.max(1));
        // For models that read all tokens in front of it in both directions.
        ids.extend(model.config().special.sop);
        let kept = model.reusable(&ids, sequence);
        sequence.truncate(kept);
        self.pass(&mut [Chunk::none(sequence, &ids[kept..])])?;
        Ok(sequence.len())
    }

    /// Generates tokens of sequences that are `start` tokens long; returns tokens a second, of all together.
    fn generate(&mut self, start: usize, sequences: &mut [Sequence]) -> Result<f64> {
        sequences.iter_mut().for_each(|sequence| sequence.truncate(start));
        let mut seconds = 0.0;
        for step in 0..self.limits.tokens {
            // Each sequence has its own text.
            let index = |sequence| step + sequence * self.limits.tokens;
            let ids: Vec<_> = (0..sequences.len()).map(|at| [self.plain(index(at))]).collect();
            let chunks = sequences.iter_mut().zip(&ids).map(|(it, id)| Chunk::last(it, id));
            seconds += self.pass(&mut chunks.collect::<Vec<_>>())?;
        }
        Ok((sequences.len() * self.limits.tokens) as f64 / seconds)
    }

    /// Runs a pass and returns its time in seconds.
    fn pass(&mut self, chunks: &mut [Chunk<'_>]) -> Result<f64> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        let started = Instant::now();
        let options = RunOptions::default().cancelled_by(&self.cancel);
        self.limits.model.run(&mut self.workspace, chunks, options)?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Ids of a prompt. The last is a blank if the model needs one to answer.
    fn ids(&self, n: usize) -> Vec<u32> {
        let special = &self.limits.model.config().special;
        let mut ids: Vec<_> = (0..n).map(|index| self.plain(index)).collect();
        if let Some(last) = ids.last_mut() {
            *last = special.gmask.or(special.mask).unwrap_or(*last);
        }
        ids
    }

    /// The id at this index of a text of ordinary ids.
    fn plain(&self, index: usize) -> u32 {
        let vocab = self.limits.model.config().vocab;
        (ID as usize + index * 7 % (vocab / 2).max(1)).min(vocab - 1) as u32
    }
}
