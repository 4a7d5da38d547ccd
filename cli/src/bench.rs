//! `glm bench`: how fast a model runs here, and how fast it could.

use std::time::Instant;

use anyhow::Result;
use glm_model::{Activations, Machine, Model, QuantizeOptions, State};
use serde_json::{Value, json};

use crate::args::Bench;
use crate::output::{self, note};
use crate::{open, units};

/// What is measured where the flags do not say.
const PROMPTS: [usize; 3] = [32, 128, 512];
const DEPTHS: [usize; 2] = [32, 1000];

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
    let mut state = model.state(lengths.capacity)?;
    let machine = model.machine();
    let bench = Runs { args, model: &model, machine };

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
            "this machine: reads {:.1} GB/s, sums {:.0} G products of 8 bits a second",
            machine.bytes / 1e9,
            machine.multiply_adds / 1e9
        ))?;
    }
    let mut results = Vec::new();
    for &tokens in &lengths.prompts {
        results.push(bench.show(bench.prompt(tokens, &mut state)?)?);
    }
    for &depth in &lengths.depths {
        results.push(bench.show(bench.decode(depth, &mut state)?)?);
    }
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
        }));
    }
    match memory {
        Some(memory) => output::line(&format!("most memory at a time: {}", units::bytes(memory))),
        None => Ok(()),
    }
}

/// What is measured.
struct Lengths {
    prompts: Vec<usize>,
    depths: Vec<usize>,
    /// The context that it takes.
    capacity: usize,
}

impl Lengths {
    /// What is asked for, or what of the defaults a model for `most` tokens has room for.
    fn new(args: &Bench, most: usize) -> Self {
        // Where an answer begins is a token, too.
        let room = |length: usize| length.saturating_add(args.tokens).saturating_add(1);
        let or = |asked: &Option<Vec<usize>>, defaults: &[usize]| match asked {
            Some(lengths) => lengths.clone(),
            None => defaults.iter().copied().filter(|&length| room(length) <= most).collect(),
        };
        let (prompts, depths) = (or(&args.prompts, &PROMPTS), or(&args.depths, &DEPTHS));
        let capacity = room(prompts.iter().chain(&depths).max().copied().unwrap_or(0));
        Self { prompts, depths, capacity }
    }
}

struct Runs<'a> {
    args: &'a Bench,
    model: &'a Model,
    machine: Machine,
}

/// Some rounds of the same work.
struct Measured {
    /// `prompt` or `decode`.
    name: &'static str,
    /// Tokens of the prompt, or before those that are generated.
    tokens: usize,
    /// Tokens a second, of each round.
    rates: Vec<f64>,
    /// The limit that the work runs into, of a token: bytes read, or multiply-adds.
    work: f64,
    /// How much of that the machine can do a second, where that was measured.
    limit: Option<f64>,
    unit: &'static str,
}

impl Runs<'_> {
    /// Reads a prompt.
    fn prompt(&self, tokens: usize, state: &mut State) -> Result<Measured> {
        let ids = self.ids(tokens);
        let rates = self.rounds(|| {
            state.clear();
            let started = Instant::now();
            self.model.prefill(&ids, state)?;
            self.model.logits(tokens - 1, state);
            Ok(tokens as f64 / started.elapsed().as_secs_f64())
        })?;
        let work = self.model.inventory().prefill_products(tokens) as f64 / tokens as f64;
        // Only 8-bit products were measured.
        let integers = self.model.activations() == Activations::Int8;
        let (limit, unit) = (integers.then_some(self.machine.multiply_adds), "G products/s");
        Ok(Measured { name: "prompt", tokens, rates, work, limit, unit })
    }

    /// Generates behind `depth` tokens.
    fn decode(&self, depth: usize, state: &mut State) -> Result<Measured> {
        let mut ids = self.ids(depth.max(1));
        // Where an answer begins, for models that read all before it in both directions.
        ids.extend(self.model.config().special.sop);
        state.clear();
        self.model.prefill(&ids, state)?;
        let start = state.len();
        let rates = self.rounds(|| {
            state.truncate(start);
            let started = Instant::now();
            for _ in 0..self.args.tokens {
                self.model.forward(&[5], state)?;
                self.model.logits(0, state);
            }
            Ok(self.args.tokens as f64 / started.elapsed().as_secs_f64())
        })?;
        let cache = (start + self.args.tokens / 2) as u64 * self.model.kv_bytes_per_token();
        let work = (self.model.inventory().bytes_per_token + cache) as f64;
        let (limit, unit) = (Some(self.machine.bytes), "GB/s");
        Ok(Measured { name: "decode", tokens: depth, rates, work, limit, unit })
    }

    /// Once to warm up, then as often as was asked for.
    fn rounds(&self, mut round: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
        round()?;
        let mut rates = (0..self.args.rounds).map(|_| round()).collect::<Result<Vec<_>>>()?;
        rates.sort_by(f64::total_cmp);
        Ok(rates)
    }

    /// Some ids, with a blank where the model needs one to answer.
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

    fn show(&self, run: Measured) -> Result<Value> {
        let n = run.rates.len();
        let median = (run.rates[n / 2] + run.rates[(n - 1) / 2]) / 2.0;
        let [least, most] = [run.rates[0], run.rates[n - 1]];
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

/// Most memory that this process had at a time, mapped files included as far as they were read; where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes << 10)
}
