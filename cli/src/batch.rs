//! `glm batch`: answers the requests in a file, as OpenAI's batch API does.
//!
//! ```text
//! input      lines of requests, read twice
//! request    a line to a question, answers to a line
//! work       the requests that are answered at the same time
//! output     lines of answers, which can be gone on with
//! ```

mod input;
mod output;
mod request;
mod work;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use glm_model::{BatchOptions, CancelToken, Error};
use indicatif::ProgressBar;

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
    let is_same = args.input.canonicalize().ok().filter(|path| path.is_file());
    let is_same = is_same.is_some_and(|path| args.output.canonicalize().ok() == Some(path));
    ensure!(!is_same, messages::output_is_input(args.output.display()));
    let input = Input::open(&args.input, args.shard)?;
    let stop = Stop { token: interrupt::token(Again::Exits)?, end: Termination::catch()? };
    let model = model(args)?;
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
    options.cache_bytes = args.cache_memory;
    // Nobody waits for a single token.
    options.answer_share = 0.0;
    let work = Work::new(&model, glm_model::Batch::new(model.model(), options)?);
    let bar = progress::requests(input.len() as u64);
    bar.set_position(answered as u64);
    let mut run = Run {
        names,
        done,
        output,
        order: args.order.then_some(0),
        held: BTreeMap::new(),
        written: 0,
        wrong: 0,
        bar,
    };
    let started = Instant::now();
    let ended = run.answer(&input, &model, work, args.max_sequences * WINDOW, &stop);
    run.bar.finish_and_clear();
    // Answers are kept whatever happened.
    run.output.finish()?;
    let done = answered + run.written;
    match ended {
        Ok(tokens) => {
            let time = started.elapsed();
            let speed = format!("{:.1}", tokens as f64 / time.as_secs_f64().max(1e-6));
            note(&messages::batch_done(run.written, run.wrong, tokens, seconds(time), speed));
            Ok(())
        }
        Err(error) => {
            if matches!(run.output, Output::File { .. }) {
                note(&messages::batch_goes_on(done, input.len()));
            }
            Err(error)
        }
    }
}

fn model(args: &args::Batch) -> Result<ApiModel> {
    let mut options = args.model.options();
    options.kv_budget = match args.kv_memory {
        Some(bytes) => Some(bytes),
        None => open::kv_budget(&args.model.source)?,
    };
    let bundle = open::bundle_with(&args.model, args.template.as_deref(), &options)?;
    ApiModel::new(
        bundle,
        &args.model.source,
        &args.alias,
        args.context,
        args.special_tokens_in_text,
        args.max_sequences,
    )
}

/// What answers depend on beside the request.
fn key(args: &args::Batch, model: &ApiModel) -> Vec<u8> {
    let flags = (&args.template, args.special_tokens_in_text, model.context());
    let mut key = model.model().fingerprint().to_vec();
    key.extend(format!("{flags:?}").into_bytes());
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
                return Ok(work.tokens());
            }
            stop.check()?;
            for answered in work.pass() {
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
        let Some(mut next) = self.order else { return self.put(line) };
        self.held.insert(place, line);
        loop {
            let line = self.held.remove(&next);
            let is_done = self.done.get(next) == Some(&true);
            match line {
                Some(line) => self.put(line)?,
                None if is_done => {}
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
