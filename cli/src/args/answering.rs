//! How answers are generated.

use clap::Args;
use glm_model::{Draft, MAX_DRAFT, Model as Network, Request, Sampling, UnusableDefault};

use super::number::{positive, sampling, whole};
use crate::messages;

/// How answers are generated.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answers")]
pub struct Answering {
    /// Always choose the likeliest token.
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    pub greedy: bool,
    /// Sampling temperature: higher is more varied, 0 is greedy. The default of each sampling setting is the model's own; for
    /// ChatGLM-6B this one is 0.95.
    #[arg(long, value_name = "X", value_parser = sampling(|s, x| s.temperature = x))]
    temperature: Option<f32>,
    /// Choose among the N likeliest tokens only; 0 means all. The default is usually 50.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..=u64::MAX))]
    top_k: Option<usize>,
    /// Choose among the likeliest tokens whose probabilities reach this sum; 0 is greedy. For ChatGLM-6B the default is 0.7.
    #[arg(long, value_name = "P", value_parser = sampling(|s, x| s.top_p = x))]
    top_p: Option<f32>,
    /// Choose among tokens with at least this fraction of the likeliest token's probability; 0 means all.
    #[arg(long, value_name = "P", value_parser = sampling(|s, x| s.min_p = x))]
    min_p: Option<f32>,
    /// Above 1, tokens that occurred before become less likely.
    #[arg(long, value_name = "X", value_parser = sampling(|s, x| s.repetition_penalty = x))]
    repetition_penalty: Option<f32>,
    /// Seed of the random numbers; the same seed gives the same answer. [default: random]
    #[arg(long, value_name = "N", value_parser = whole::<u64>(0..=u64::MAX))]
    seed: Option<u64>,
    /// Maximum number of tokens of an answer. [default: as many as fit in the context]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_new_tokens: Option<usize>,
    /// End the answer before this text; can be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Tokens that the context holds, prompt and answer together. [default: the maximum of the model, up to 32768]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub context: Option<usize>,
    /// Draft tokens by prompt lookup and verify several in one pass. auto drafts if that is measured to be faster, N always drafts
    /// up to N tokens. The answer is the same.
    #[arg(long, value_name = "auto|off|N", default_value = "auto", value_parser = draft)]
    pub draft: Draft,
}

impl Answering {
    /// What is asked of `model`: the given settings, and those of the model where none is given.
    pub fn request(&self, model: &Network) -> Request {
        let mut request = Request::new(self.sampling(model.sampling()));
        request.max_new_tokens = self.max_new_tokens;
        request.stop_ids.clone_from(&model.config().special.ends);
        request.draft = self.draft;
        request
    }

    /// The defaults of `model` that cannot be used and that answers would depend on.
    pub fn unusable<'m>(&self, model: &'m Network) -> impl Iterator<Item = &'m UnusableDefault> {
        let sampling = self.sampling(model.sampling());
        let defaults = model.config().unusable_defaults.iter();
        defaults.filter(move |default| self.is_used(default.setting, &sampling))
    }

    /// Whether answers depend on the model's own `setting`, if all settings are `sampling`.
    fn is_used(&self, setting: &str, sampling: &Sampling) -> bool {
        let (is_given, of_candidates) = match setting {
            "temperature" => (self.temperature.is_some(), true),
            "top-k" => (self.top_k.is_some(), true),
            "top-p" => (self.top_p.is_some(), true),
            "min-p" => (self.min_p.is_some(), true),
            _ => (self.repetition_penalty.is_some(), false),
        };
        let is_greedy = of_candidates && sampling.temperature == 0.0;
        !(self.greedy || is_given || is_greedy)
    }

    /// The sampling settings: those given, else those of `base`; a random seed if none is given.
    pub fn sampling(&self, base: &Sampling) -> Sampling {
        let seed = self.seed.unwrap_or_else(random_seed);
        let base = if self.greedy { &Sampling::greedy() } else { base };
        let mut sampling = base.clone();
        sampling.temperature = self.temperature.unwrap_or(base.temperature);
        sampling.top_k = self.top_k.unwrap_or(base.top_k);
        sampling.top_p = self.top_p.unwrap_or(base.top_p);
        sampling.min_p = self.min_p.unwrap_or(base.min_p);
        sampling.repetition_penalty = self.repetition_penalty.unwrap_or(base.repetition_penalty);
        sampling.seed = seed;
        sampling
    }
}

/// 32 bits: short enough to type, and exact in every JSON reader.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()) >> 32
}

pub fn draft(text: &str) -> Result<Draft, String> {
    match text {
        "auto" => Ok(Draft::Auto),
        "off" => Ok(Draft::Off),
        _ => match text.parse() {
            Ok(most) if (1..=MAX_DRAFT).contains(&most) => Ok(Draft::Fixed(most)),
            _ => Err(messages::draft_is_unknown(MAX_DRAFT)),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        answering: Answering,
    }

    fn parsed(words: &str) -> Sampling {
        Only::try_parse_from(words.split(' ')).unwrap().answering.sampling(&base())
    }

    fn changed(sampling: &Sampling, change: impl FnOnce(&mut Sampling)) -> Sampling {
        let mut sampling = sampling.clone();
        change(&mut sampling);
        sampling
    }

    fn base() -> Sampling {
        changed(&Sampling::greedy(), |s| (s.temperature, s.top_p) = (0.8, 0.7))
    }

    #[test]
    fn settings_that_are_not_given_are_those_of_the_model() {
        let with_seed = changed(&base(), |s| s.seed = 7);
        assert_eq!(parsed("glm --seed 7"), with_seed);
        let greedy = changed(&Sampling::greedy(), |s| s.seed = 7);
        assert_eq!(parsed("glm --greedy --seed 7"), greedy);
        let cooler = parsed("glm --temperature 0.5 --top-k 3 --seed 7");
        assert_eq!(cooler, changed(&with_seed, |s| (s.temperature, s.top_k) = (0.5, 3)));
        assert_eq!(parsed("glm --top-p 0 --seed 7"), changed(&with_seed, |s| s.top_p = 0.0));
    }

    #[test]
    fn a_default_counts_where_answers_depend_on_it() {
        let used = |words: &str| {
            let only = Only::try_parse_from(words.split(' ')).unwrap().answering;
            let sampling = only.sampling(&base());
            ["temperature", "top-k", "top-p", "min-p", "repetition penalty"]
                .map(|setting| only.is_used(setting, &sampling))
        };
        assert_eq!(used("glm"), [true; 5]);
        assert_eq!(used("glm --greedy"), [false; 5]);
        assert_eq!(used("glm --temperature 0"), [false, false, false, false, true]);
        assert_eq!(used("glm --temperature 1 --top-k 3"), [false, false, true, true, true]);
        let rest = "glm --top-p 0.5 --min-p 0.1 --repetition-penalty 1.1";
        assert_eq!(used(rest), [true, true, false, false, false]);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let floats =
            ["--temperature=-1", "--temperature nan", "--top-p=-0.1", "--top-p 1.1", "--min-p 2"];
        let whole = ["--max-new-tokens 0", "--top-k=-1", "--seed=-1", "--context 0"];
        for words in [&floats[..], &whole, &["--greedy --top-p 0.5"]].concat() {
            assert!(Only::try_parse_from(format!("glm {words}").split(' ')).is_err(), "{words}");
        }
    }

    #[test]
    fn drafts_are_automatic_off_or_limited() {
        let draft = |words: &str| {
            let only = Only::try_parse_from(format!("glm{words}").split(' '));
            only.ok().map(|only| only.answering.draft)
        };
        assert_eq!(draft(""), Some(Draft::Auto));
        assert_eq!(draft(" --draft auto"), Some(Draft::Auto));
        assert_eq!(draft(" --draft off"), Some(Draft::Off));
        assert_eq!(draft(" --draft 15"), Some(Draft::Fixed(15)));
        for wrong in ["0", "16", "-1", "on"] {
            assert_eq!(draft(&format!(" --draft {wrong}")), None);
        }
    }
}
