//! A measurement and its result.

use glm_model::DraftStats;
use serde_json::{Value, json};

use super::lengths::DEPTH;
use super::limit::Limits;
use crate::messages;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// A prompt of this many tokens.
    Prompt(usize),
    /// Tokens generated after this many.
    Decode(usize),
    /// Tokens of this many sequences generated together.
    Sequences(usize),
    /// Passes of this many tokens whose logits are all computed, as when a draft is verified.
    Verify(usize),
    /// This many tokens generated with prompt lookup.
    Lookup(usize),
}

impl Test {
    /// The name as in llama-bench. A round generates `generated` tokens.
    pub fn name(self, generated: usize) -> String {
        match self {
            Self::Prompt(tokens) => format!("pp{tokens}"),
            Self::Decode(depth) => format!("tg{generated}@d{depth}"),
            Self::Sequences(count) => format!("tg{generated}@d{DEPTH} x{count}"),
            Self::Verify(tokens) => format!("verify{tokens}@d{DEPTH}"),
            Self::Lookup(tokens) => format!("lookup{tokens}"),
        }
    }

    /// What it is, for people.
    pub fn description(self) -> String {
        match self {
            Self::Prompt(tokens) => messages::bench_prompt(tokens),
            Self::Decode(depth) => messages::bench_decode(depth),
            Self::Sequences(count) => messages::bench_sequences(count),
            Self::Verify(tokens) => messages::bench_verify(tokens),
            Self::Lookup(tokens) => messages::bench_lookup(tokens),
        }
    }
}

/// Rounds of the same work.
pub struct Measurement {
    pub test: Test,
    /// Tokens a second in each round, sorted.
    pub rates: Vec<f64>,
    /// Tokens a second that the machine allows as far as it is known by now.
    pub limit: Option<f64>,
    /// The speed relative to one token of one sequence.
    pub speedup: Option<f64>,
    /// Drafts of a prompt lookup.
    pub drafts: Option<DraftStats>,
}

impl Measurement {
    /// The rounds of a test, in any order; at least one.
    pub fn new(test: Test, mut rates: Vec<f64>) -> Self {
        rates.sort_by(f64::total_cmp);
        Self { test, rates, limit: None, speedup: None, drafts: None }
    }

    /// Sets the speed relative to `other`.
    #[must_use]
    pub fn relative_to(mut self, other: &Self) -> Self {
        self.speedup = Some(self.median() / other.median());
        self
    }

    /// The median of the rounds.
    pub fn median(&self) -> f64 {
        let n = self.rates.len();
        (self.rates[n / 2] + self.rates[(n - 1) / 2]) / 2.0
    }

    pub fn least(&self) -> f64 {
        self.rates[0]
    }

    pub fn most(&self) -> f64 {
        self.rates[self.rates.len() - 1]
    }

    /// The part of the limit that is reached.
    pub fn share(&self) -> Option<f64> {
        self.limit.map(|limit| self.median() / limit)
    }

    pub fn json(&self, limits: &Limits) -> Value {
        let rate = self.median();
        match self.test {
            Test::Prompt(tokens) | Test::Decode(tokens) => {
                let work = limits.work(self.test);
                let limit = limits.of(self.test);
                let is_prompt = self.test == Test::Prompt(tokens);
                // Work of the kind that limits the speed of most machines.
                let of_pass = if is_prompt { work.products } else { work.bytes };
                json!({
                    "name": if is_prompt { "prompt" } else { "decode" },
                    "tokens": tokens,
                    "tokens_per_second": rate,
                    "least": self.least(),
                    "most": self.most(),
                    "first_token_seconds": is_prompt.then(|| tokens as f64 / rate),
                    "work_per_second": rate / work.tokens * of_pass,
                    "limit_tokens_per_second": limit,
                    "share_of_limit": limit.map(|limit| rate / limit),
                })
            }
            Test::Sequences(count) => json!({
                "sequences": count,
                "depth": DEPTH,
                "tokens_per_second": rate,
                "ratio_to_one": self.speedup,
            }),
            Test::Verify(tokens) => json!({
                "tokens": tokens,
                "depth": DEPTH,
                "seconds": tokens as f64 / rate,
                // Of the times, not of the speeds.
                "ratio_to_one": self.speedup.map(|speedup| tokens as f64 / speedup),
            }),
            Test::Lookup(tokens) => json!({
                "tokens": tokens,
                "tokens_per_second": rate,
                "ratio_to_none": self.speedup,
                "tokens_per_pass": self.tokens_per_pass(),
                "drafted_tokens": self.drafts.map(|drafts| drafts.drafted),
                "accepted_tokens": self.drafts.map(|drafts| drafts.accepted),
            }),
        }
    }

    /// With prompt lookup.
    pub fn tokens_per_pass(&self) -> Option<f64> {
        self.drafts.map(|drafts| drafts.ids as f64 / drafts.passes.max(1) as f64)
    }
}
