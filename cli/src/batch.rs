//! `glm batch`: answers the requests in a file, as OpenAI's batch API does.
//!
//! ```text
//! input      lines of requests, read twice
//! request    a line to a question, answers to a line
//! work       the requests that are answered at the same time
//! output     lines of answers, which can be gone on with
//! failed     answers that are tried again by the next run
//! ```

mod failed;
mod input;
mod output;
mod request;
mod work;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use glm_model::{BatchOptions, CancelToken, Error};
use indicatif::ProgressBar;
use same_file::Handle;

use self::failed::Failed;
use self::input::{Hash, Input};
use self::output::{Output, id};
use self::request::Request;
use self::work::{Answered, Work};
use crate::api::model::ApiModel;
use crate::args;
use crate::interrupt::{self, Again, Termination};
use crate::messages;
use crate::open;
use crate::output::note;
use crate::progress;
use crate::units::seconds;

/// Tokens of prompts in a pass that also computes answers. More than in a server, where answers must not wait.
const PROMPT_TOKENS: usize = 256;

/// Requests in memory for each answer that is computed: while some are answered, others wait.
const WINDOW: usize = 2;

pub fn run(args: &args::Batch) -> Result<()> {
    ensure!(!is_same(&args.input, &args.output), messages::output_is_input(args.output.display()));
    output::check(&args.output)?;
    let input = Input::open(&args.input, args.shard)?;
    let stop = Stop { token: interrupt::token(Again::Exits)?, end: Termination::catch()? };
    let model = ApiModel::open(&args.model, &args.api, args.max_sequences)?;
    let names = input.names(&key(args, &model));
    let mut done = vec![false; input.len()];
    let output = Output::open(&args.output, args.restart, &names, &mut done)?;
    let answered = done.iter().filter(|&&done| done).count();
    note(&open::summary(&args.model, model.model()));
    if answered > 0 {
        note(&messages::batch_resumes(answered, input.len()));
    }
    let mut options = BatchOptions::default();
    options.max_sequences = args.max_sequences;
    options.prompt_tokens = PROMPT_TOKENS;
    options.cache_bytes = args.api.cache_memory;
    // Nobody waits for a single token.
    options.answer_share = 0.0;
    let work = Work::new(&model, glm_model::Batch::new(model.model(), options)?);
    let bar = progress::requests(input.len() as u64);
    bar.set_position(answered as u64);
    // The time that is left does not depend on what was there before.
    bar.reset_eta();
    let mut run = Run {
        names,
        done,
        output,
        order: args.order.then_some(0),
        held: BTreeMap::new(),
        failed: Failed::default(),
        written: 0,
        wrong: 0,
        bar,
    };
    let started = Instant::now();
    let ended = run.answer(&input, &model, work, args.max_sequences * WINDOW, &stop);
    run.bar.finish_and_clear();
    // Answers are kept whatever happened.
    run.output.finish()?;
    match ended {
        Ok(tokens) => {
            let time = started.elapsed();
            let speed = format!("{:.1}", tokens as f64 / time.as_secs_f64().max(1e-6));
            note(&messages::batch_done(run.written, run.wrong, tokens, seconds(time), speed));
            let failed = run.failed.count();
            ensure!(failed == 0, messages::batch_failed(failed));
            Ok(())
        }
        Err(error) => {
            if matches!(run.output, Output::File { .. }) {
                note(&messages::batch_goes_on(answered + run.written, input.len()));
            }
            Err(error)
        }
    }
}

/// Whether input and output are the same file, perhaps under two names.
fn is_same(input: &Path, output: &Path) -> bool {
    // A terminal or a device can be both.
    let handle = |path: &Path, standard: fn() -> io::Result<Handle>| match path.to_str() {
        Some("-") => standard().ok(),
        _ if path.is_file() => Handle::from_path(path).ok(),
        _ => None,
    };
    let is_file =
        |handle: &Handle| handle.as_file().metadata().is_ok_and(|metadata| metadata.is_file());
    let input = handle(input, Handle::stdin).filter(is_file);
    input.is_some() && input == handle(output, Handle::stdout)
}

/// What answers depend on beside the request.
fn key(args: &args::Batch, model: &ApiModel) -> Vec<u8> {
    let args::Api { template, special_tokens_in_text, alias, thinking, .. } = &args.api;
    let flags = (template, special_tokens_in_text, model.context(), alias);
    let mut key = model.model().fingerprint().to_vec();
    key.extend(format!("{flags:?}").into_bytes());
    // Without the flag, the key is that of files that were written before there was one.
    if let Some(think) = thinking.think {
        key.extend(format!("think {think}").into_bytes());
    }
    for (name, adapter) in model.adapters() {
        key.extend(name.as_bytes());
        key.extend(adapter.fingerprint());
    }
    key
}

/// What ends the command early.
struct Stop {
    token: CancelToken,
    end: Termination,
}

impl Stop {
    /// # Errors
    /// If the command is to end.
    fn check(&self) -> Result<()> {
        match self.token.is_cancelled() || self.end.is_requested() {
            true => Err(Error::Cancelled.into()),
            false => Ok(()),
        }
    }
}

/// Answers on their way to the output.
struct Run {
    names: Vec<Hash>,
    /// Those that were in the output before.
    done: Vec<bool>,
    output: Output,
    /// With `--order`: the next one to be written.
    order: Option<usize>,
    /// Those that wait for others before them.
    held: BTreeMap<usize, String>,
    /// Those that are tried again by the next run.
    failed: Failed,
    written: usize,
    wrong: usize,
    bar: ProgressBar,
}

impl Run {
    /// Answers what is not answered yet, and returns the number of tokens. At most `window` requests are in memory.
    fn answer(
        &mut self,
        input: &Input,
        model: &ApiModel,
        mut work: Work<'_>,
        window: usize,
        stop: &Stop,
    ) -> Result<u64> {
        let mut lines = input.read()?.enumerate();
        let started = Instant::now();
        loop {
            while work.len() + self.held.len() < window {
                stop.check()?;
                let Some((place, line)) = lines.next() else { break };
                let line = line?;
                if self.done[place] {
                    continue;
                }
                if let Some(answered) = work.add(place, Request::new(model, &line)) {
                    self.write(answered)?;
                }
            }
            // Held answers wait for one that is computed.
            if work.len() == 0 {
                let failed = std::mem::take(&mut self.failed);
                self.failed = failed.write(|line| self.put(line))?;
                return Ok(work.tokens());
            }
            stop.check()?;
            let answered = work.pass();
            if answered.iter().any(|answered| answered.result.is_err()) {
                // All further requests would fail, too. The next run goes on with this one.
                model.model().check_files()?;
            }
            for answered in answered {
                self.write(answered)?;
            }
            let speed = work.tokens() as f64 / started.elapsed().as_secs_f64().max(1e-6);
            self.bar.set_message(messages::batch_speed(format!("{speed:.1}")));
        }
    }

    fn write(&mut self, answered: Answered) -> Result<()> {
        let Answered { place, custom_id, result } = answered;
        self.wrong += usize::from(result.is_err());
        let line = request::line(&id(&self.names[place]), custom_id.as_deref(), &result);
        if result.is_err_and(|problem| problem.may_pass()) {
            self.failed.add(&line)?;
            // Nothing waits for it.
            self.done[place] = true;
        } else if self.order.is_some() {
            self.held.insert(place, line);
        } else {
            return self.put(line);
        }
        self.put_held()
    }

    /// Writes the answers that wait for no other any more.
    fn put_held(&mut self) -> Result<()> {
        let Some(mut next) = self.order else { return Ok(()) };
        loop {
            match self.held.remove(&next) {
                Some(line) => self.put(line)?,
                None if self.done.get(next) == Some(&true) => {}
                None => break,
            }
            next += 1;
        }
        self.order = Some(next);
        Ok(())
    }

    fn put(&mut self, line: String) -> Result<()> {
        self.output.line(line)?;
        self.written += 1;
        self.bar.inc(1);
        Ok(())
    }
}
