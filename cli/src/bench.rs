//! `glm bench`: the speed of a model on this machine, and the limits of the machine.

use std::time::Instant;

use anyhow::Result;
use glm_model::{
    Activations, Chunk, Draft, DraftStats, Generation, Model, QuantizeOptions, Request, Roofline,
    RunOptions, Sampling, Sequence, Workspace,
};
use serde_json::{Value, json};

use crate::args::Bench;
use crate::output::{self, note};
use crate::{open, units};

/// Defaults of the flags.
const PROMPTS: [usize; 3] = [32, 128, 512];
const DEPTHS: [usize; 2] = [32, 1000];
const SEQUENCES: [usize; 2] = [4, 8];
const DRAFT_TOKENS: [usize; 4] = [2, 4, 8, 16];

/// Tokens in front of those of several sequences, and of drafts.
const DEPTH: usize = 32;

/// Passes that verify a draft, in a round.
const DRAFT_PASSES: usize = 4;

/// Most tokens of an answer with prompt lookup.
const LOOKUP_TOKENS: usize = 64;

/// An ordinary id; which one it is makes no difference.
const ID: u32 = 5;

pub fn run(args: &Bench) -> Result<()> {
    let started = Instant::now();
    let model = match &args.shape {
        Some(shape) => {
            let format = QuantizeOptions::new(args.bits, args.group);
            open::random(&args.model, shape, &format, Lengths::new(args, usize::MAX).capacity)?
        }
        None => open::model(&args.model, None)?,
    };
    let opened = started.elapsed();
    let lengths = Lengths::new(args, model.config().max_context);
    let mut sequence = model.sequence(Some(lengths.capacity))?;
    let machine = model.roofline();
    let mut bench = Runs { args, model: &model, machine, workspace: model.workspace()? };

    let shape = args.shape.as_ref().map(|name| format!("{name}, random weights"));
    let what = shape.unwrap_or_else(|| open::title(&args.model.source, model.inventory()));
    if !args.json {
        output::line(&format!(
            "{what}; {}, {}; opened in {}",
            units::count(model.threads(), "thread"),
            model.isa().name(),
            units::seconds(opened)
        ))?;
        output::line(&format!(
            "this machine: reads {:.1} GB/s, {:.0} G multiply-adds of 8 bits a second",
            machine.bytes / 1e9,
            machine.multiply_adds / 1e9
        ))?;
    }
    let mut results = Vec::new();
    for &tokens in &lengths.prompts {
        let run = bench.prompt(tokens, &mut sequence)?;
        results.push(bench.show(run)?);
    }
    for &depth in &lengths.depths {
        let run = bench.decode(depth, &mut sequence)?;
        results.push(bench.show(run)?);
    }
    sequence.clear();
    let sequences = bench.sequences(&lengths.sequences)?;
    let drafts = bench.drafts(&lengths.draft_tokens)?;
    let lookup = if drafts.is_empty() { None } else { bench.lookup()? };
    let memory = peak_memory();
    if args.json {
        return output::json(&json!({
            "model": what,
            "threads": model.threads(),
            "isa": model.isa().name(),
            "opened_seconds": opened.as_secs_f64(),
            "bytes_per_second": machine.bytes,
            "multiply_adds_per_second": machine.multiply_adds,
            "peak_memory_bytes": memory,
            "runs": results,
            "sequences": sequences,
            "drafts": drafts,
            "lookup": lookup,
        }));
    }
    match memory {
        Some(memory) => output::line(&format!("peak memory: {}", units::bytes(memory))),
        None => Ok(()),
    }
}

/// What is measured.
struct Lengths {
    prompts: Vec<usize>,
    depths: Vec<usize>,
    sequences: Vec<usize>,
    draft_tokens: Vec<usize>,
    /// The context that prompts and depths take.
    capacity: usize,
}

impl Lengths {
    /// The values of the flags, or those defaults that fit in a context of `most` tokens.
    fn new(args: &Bench, most: usize) -> Self {
        // The start of an answer takes a token, too.
        let room = |length: usize| length.saturating_add(args.tokens).saturating_add(1);
        let or = |asked: &Option<Vec<usize>>, defaults: &[usize], fits: &dyn Fn(usize) -> bool| {
            match asked {
                Some(lengths) => lengths.clone(),
                None => defaults.iter().copied().filter(|&length| fits(length)).collect(),
            }
        };
        let (prompts, depths) = (&args.prompts, &args.depths);
        let prompts = or(prompts, &PROMPTS, &|prompt| room(prompt) <= most);
        let depths = or(depths, &DEPTHS, &|depth| room(depth) <= most);
        let sequences = or(&args.sequences, &SEQUENCES, &|_| room(DEPTH) <= most);
        let draft_tokens = or(&args.draft_tokens, &DRAFT_TOKENS, &|n| DEPTH + 1 + n <= most);
        let capacity = room(prompts.iter().chain(&depths).max().copied().unwrap_or(0));
        Self { prompts, depths, sequences, draft_tokens, capacity }
    }
}

struct Runs<'a> {
    args: &'a Bench,
    model: &'a Model,
    machine: Roofline,
    workspace: Workspace,
}

/// Rounds of the same work.
struct Measured {
    /// `prompt` or `decode`.
    name: &'static str,
    /// Tokens of the prompt, or in front of those that are generated.
    tokens: usize,
    /// Tokens a second in each round, sorted.
    rates: Vec<f64>,
    /// Work for each token, of the kind that limits the speed: bytes read, or multiply-adds.
    work: f64,
    /// What the machine can do of that in a second, if it was measured.
    limit: Option<f64>,
    unit: &'static str,
}

impl Runs<'_> {
    /// Reads a prompt.
    fn prompt(&mut self, tokens: usize, sequence: &mut Sequence) -> Result<Measured> {
        let ids = self.ids(tokens);
        let rates = self.rounds(|bench| {
            sequence.clear();
            let seconds = bench.pass(&mut [Chunk::last(sequence, &ids)])?;
            Ok(tokens as f64 / seconds)
        })?;
        let work = self.model.inventory().prefill_products(tokens) as f64 / tokens as f64;
        // Only 8-bit products were measured.
        let integers = self.model.activations() == Activations::Int8;
        let (limit, unit) = (integers.then_some(self.machine.multiply_adds), "G products/s");
        Ok(Measured { name: "prompt", tokens, rates, work, limit, unit })
    }

    /// Generates behind `depth` tokens.
    fn decode(&mut self, depth: usize, sequence: &mut Sequence) -> Result<Measured> {
        let start = self.begin(depth, sequence)?;
        let rates = self.rounds(|bench| bench.generate(start, std::slice::from_mut(sequence)))?;
        let cache = (start + self.args.tokens / 2) as u64 * self.model.kv_bytes_per_token();
        let work = (self.model.inventory().bytes_per_token + cache) as f64;
        let (limit, unit) = (Some(self.machine.bytes), "GB/s");
        Ok(Measured { name: "decode", tokens: depth, rates, work, limit, unit })
    }

    /// Generates tokens of several sequences together, for each of `counts`, and compares that with one sequence.
    fn sequences(&mut self, counts: &[usize]) -> Result<Vec<Value>> {
        let counts: Vec<_> = counts.iter().copied().filter(|&count| count > 0).collect();
        let mut results = Vec::new();
        if counts.is_empty() {
            return Ok(results);
        }
        let mut first = self.model.sequence(Some(DEPTH + 1 + self.args.tokens))?;
        let start = self.begin(DEPTH, &mut first)?;
        let rate = |bench: &mut Self, count: usize| -> Result<f64> {
            let mut sequences: Vec<_> = (0..count).map(|_| first.fork(start)).collect();
            Ok(median(&bench.rounds(|bench| bench.generate(start, &mut sequences))?))
        };
        let alone = rate(self, 1)?;
        for count in counts {
            let together = rate(self, count)?;
            let ratio = together / alone;
            self.say(&format!(
                "decode {DEPTH:>5}   {together:>8.2} tokens/s in {}: {ratio:.2} × one alone",
                units::count(count, "sequence")
            ))?;
            results.push(json!({
                "sequences": count,
                "depth": DEPTH,
                "tokens_per_second": together,
                "ratio_to_one": ratio,
            }));
        }
        Ok(results)
    }

    /// Compares passes of several tokens of one sequence with passes of one: the cost of verifying a draft.
    fn drafts(&mut self, counts: &[usize]) -> Result<Vec<Value>> {
        let counts: Vec<_> = counts.iter().copied().filter(|&count| count > 0).collect();
        let mut results = Vec::new();
        let Some(most) = counts.iter().max() else { return Ok(results) };
        let mut sequence = self.model.sequence(Some(DEPTH + 1 + most))?;
        let start = self.begin(DEPTH, &mut sequence)?;
        let mut seconds = |bench: &mut Self, count: usize| -> Result<f64> {
            let ids = vec![ID; count];
            let rates = bench.rounds(|bench| {
                let mut seconds = 0.0;
                for _ in 0..DRAFT_PASSES {
                    sequence.truncate(start);
                    seconds += bench.pass(&mut [Chunk::all(&mut sequence, &ids)])?;
                }
                Ok(DRAFT_PASSES as f64 / seconds)
            })?;
            Ok(1.0 / median(&rates))
        };
        let one = seconds(self, 1)?;
        for count in counts {
            let taken = seconds(self, count)?;
            let ratio = taken / one;
            self.say(&format!(
                "verify {count:>5}   {:>8.2} ms: {ratio:.2} × a pass of one token",
                taken * 1e3
            ))?;
            results.push(json!({
                "tokens": count,
                "depth": DEPTH,
                "seconds": taken,
                "ratio_to_one": ratio,
            }));
        }
        Ok(results)
    }

    /// Greedy answers to a repetitive prompt, with prompt lookup and without. How much is accepted depends on the model and the
    /// text.
    fn lookup(&mut self) -> Result<Option<Value>> {
        let config = self.model.config();
        if config.max_context < 2 * LOOKUP_TOKENS {
            return Ok(None);
        }
        let mut prompt: Vec<_> = (0..LOOKUP_TOKENS as u32 / 2).map(|i| ID + i % 16).collect();
        prompt.extend(config.special.gmask.or(config.special.mask));
        prompt.extend(config.special.sop);
        let generate = |draft: Draft| -> Result<_> {
            let mut request = Request::new(Sampling::greedy());
            (request.max_new_tokens, request.draft) = (Some(LOOKUP_TOKENS), draft);
            let sequence = self.model.sequence(Some(2 * LOOKUP_TOKENS))?;
            let mut answer = Generation::new(self.model, sequence, &prompt, request)?;
            answer.read_prompt(&mut |_| {})?;
            let started = Instant::now();
            let ids = answer.by_ref().collect::<Result<Vec<_>, _>>()?;
            Ok((ids.len() as f64 / started.elapsed().as_secs_f64(), answer.draft_stats()))
        };
        let (mut without, mut with, mut stats) = (Vec::new(), Vec::new(), DraftStats::default());
        for _ in 0..self.args.rounds {
            without.push(generate(Draft::Off)?.0);
            let (rate, drafted) = generate(Draft::Auto)?;
            with.push(rate);
            stats = drafted;
        }
        without.sort_by(f64::total_cmp);
        with.sort_by(f64::total_cmp);
        let (rate, ratio) = (median(&with), median(&with) / median(&without));
        let per_pass = stats.ids as f64 / stats.passes.max(1) as f64;
        self.say(&format!(
            "lookup {LOOKUP_TOKENS:>5}   {rate:>8.2} tokens/s with drafts: {ratio:.2} × without, {per_pass:.2} tokens a pass"
        ))?;
        Ok(Some(json!({
            "tokens": LOOKUP_TOKENS,
            "tokens_per_second": rate,
            "ratio_to_none": ratio,
            "tokens_per_pass": per_pass,
            "drafted_tokens": stats.drafted,
            "accepted_tokens": stats.accepted,
        })))
    }

    /// Feeds `depth` tokens and the start of an answer to an empty sequence; returns its length.
    fn begin(&mut self, depth: usize, sequence: &mut Sequence) -> Result<usize> {
        let mut ids = self.ids(depth.max(1));
        // For models that read all tokens in front of it in both directions.
        ids.extend(self.model.config().special.sop);
        sequence.clear();
        self.pass(&mut [Chunk::none(sequence, &ids)])?;
        Ok(sequence.len())
    }

    /// Generates tokens of sequences that are `start` tokens long; returns tokens a second, of all together.
    fn generate(&mut self, start: usize, sequences: &mut [Sequence]) -> Result<f64> {
        sequences.iter_mut().for_each(|sequence| sequence.truncate(start));
        let mut seconds = 0.0;
        for _ in 0..self.args.tokens {
            let chunks = sequences.iter_mut().map(|sequence| Chunk::last(sequence, &[ID]));
            seconds += self.pass(&mut chunks.collect::<Vec<_>>())?;
        }
        Ok((sequences.len() * self.args.tokens) as f64 / seconds)
    }

    /// Runs a pass and returns its time in seconds.
    fn pass(&mut self, chunks: &mut [Chunk<'_>]) -> Result<f64> {
        let started = Instant::now();
        self.model.run(&mut self.workspace, chunks, RunOptions::default())?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Runs a round to warm up, then as many as `--rounds` says; returns their rates, sorted.
    fn rounds(&mut self, mut round: impl FnMut(&mut Self) -> Result<f64>) -> Result<Vec<f64>> {
        round(self)?;
        let rates = (0..self.args.rounds).map(|_| round(self));
        let mut rates = rates.collect::<Result<Vec<_>>>()?;
        rates.sort_by(f64::total_cmp);
        Ok(rates)
    }

    /// Ids of a prompt. The last is a blank if the model needs one to answer.
    fn ids(&self, n: usize) -> Vec<u32> {
        let config = self.model.config();
        let plain =
            (0..n).map(|i| (5 + i * 7 % (config.vocab / 2).max(1)).min(config.vocab - 1) as u32);
        let mut ids: Vec<_> = plain.collect();
        if let Some(last) = ids.last_mut() {
            *last = config.special.gmask.or(config.special.mask).unwrap_or(*last);
        }
        ids
    }

    /// Prints a result, or with `--json` notes it.
    fn say(&self, text: &str) -> Result<()> {
        if self.args.json {
            note(text);
            return Ok(());
        }
        output::line(text)
    }

    fn show(&self, run: Measured) -> Result<Value> {
        let median = median(&run.rates);
        let [least, most] = [run.rates[0], run.rates[run.rates.len() - 1]];
        let rate = median * run.work;
        let share = run.limit.map(|limit| rate / limit);
        if self.args.json {
            note(&format!("{} {}: {median:.2} tokens/s", run.name, run.tokens));
        } else {
            output::line(&format!(
                "{:<6} {:>5}   {median:>8.2} tokens/s ({least:.2} to {most:.2})   {:>6.1} {}{}",
                run.name,
                run.tokens,
                rate / 1e9,
                run.unit,
                share.map_or(String::new(), |s| format!("   {:>3.0} % of the limit", s * 100.0))
            ))?;
        }
        Ok(json!({
            "name": run.name,
            "tokens": run.tokens,
            "tokens_per_second": median,
            "least": least,
            "most": most,
            "first_token_seconds": (run.name == "prompt").then(|| run.tokens as f64 / median),
            "work_per_second": rate,
            "share_of_limit": share,
        }))
    }
}

/// The median of sorted rates.
fn median(rates: &[f64]) -> f64 {
    let n = rates.len();
    (rates[n / 2] + rates[(n - 1) / 2]) / 2.0
}

/// Peak memory of this process, including the parts of mapped files that were read; `None` if the system does not say.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes << 10)
}
