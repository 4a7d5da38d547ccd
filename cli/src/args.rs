//! The command line and its help.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use glm_model::{
    Activations, Draft, KvFormat, MAX_DRAFT, Model as Network, Options, RANDOM_SHAPES, Request,
    Sampling, Template,
};

use crate::input::Ids;

const EXAMPLES: &str = "\
Examples:
  glm                                            talk to the small model in this program
  glm quantize chatglm-6b chatglm-6b-q4          12.3 GB to 3.5 GB; needed once
  glm chat -m chatglm-6b-q4                      talk
  glm generate -m chatglm-6b-q4 -p '你好'        one answer
  cat letter.txt | glm generate -m chatglm-6b-q4
  glm fill -m chatglm-6b-q4 '凯旋门位于[MASK]。'
  glm info -m chatglm-6b-q4                      sizes and memory

A model is a folder as published by its authors, or as written by `glm quantize`.
Answers go to stdout, everything else to stderr. Ctrl-C stops an answer.";

/// Chat with GLM models on a CPU.
#[derive(Debug, Parser)]
#[command(name = "glm", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// The command line; `glm` alone is `glm chat`.
    pub fn command() -> Command {
        Self::parse().command.unwrap_or_else(|| {
            let matches = Chat::augment_args(clap::Command::new("chat")).get_matches_from(["chat"]);
            Command::Chat(Chat::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
        })
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Talk with the model, or answer a conversation in a file.
    Chat(Chat),
    /// Answer one prompt.
    Generate(Generate),
    /// Fill the blanks in a text.
    Fill(Fill),
    /// Print how likely given answers are, the likeliest first.
    Score(Score),
    /// Write a model quantized to 4 or 8 bits that opens without preparation.
    Quantize(Quantize),
    /// Print a model's sizes, the formats of its weights, and the memory it needs.
    Info(Info),
    /// Convert text to ids, or ids to text.
    Tokenize(Tokenize),
    /// Write the logits of every token to a file.
    Logits(Logits),
    /// Measure how fast a model runs on this machine, and the limits of the machine.
    Bench(Bench),
}

/// Which model.
#[derive(Debug, Args)]
pub struct Source {
    /// The model's folder.
    #[cfg_attr(
        feature = "demo",
        doc = "Without it, the small demonstration model in this program is used."
    )]
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
}

/// Which model, and how it is run.
#[derive(Debug, Args)]
pub struct Model {
    #[command(flatten)]
    pub source: Source,
    /// Threads; by default one for each fast core.
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    /// Type of the activations: int8 is several times faster with quantized weights, f32 is for comparisons. By default int8 if the
    /// weights are quantized.
    #[arg(long, value_name = "TYPE")]
    pub activations: Option<ActivationType>,
    /// Type of cached keys and values: int8 takes half the memory of f16 and is slightly less exact. By default f16 if the
    /// activations are int8, otherwise f32.
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<KvType>,
    /// Read all weights into memory before the first token: for a slow disk.
    #[arg(long)]
    pub preload: bool,
}

impl Model {
    pub fn options(&self) -> Options {
        let activations = self.activations.map(|activations| match activations {
            ActivationType::F32 => Activations::F32,
            ActivationType::Int8 => Activations::Int8,
        });
        let kv = self.kv.map(|kv| match kv {
            KvType::F32 => KvFormat::F32,
            KvType::F16 => KvFormat::F16,
            KvType::Int8 => KvFormat::Int8,
        });
        let mut options = Options::default();
        options.threads = self.threads;
        options.activations = activations;
        options.kv = kv;
        options
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActivationType {
    F32,
    Int8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KvType {
    F32,
    F16,
    Int8,
}

/// How answers are generated.
#[derive(Debug, Args)]
#[command(next_help_heading = "Answers")]
pub struct Answering {
    /// Always choose the likeliest token.
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    pub greedy: bool,
    /// Sampling temperature: higher is more varied, 0 is greedy. The default of each sampling setting is the model's own; for
    /// ChatGLM-6B this one is 0.95.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among the N likeliest tokens only; 0 means all. The default is usually 50.
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Choose among the likeliest tokens whose probabilities reach this sum; for ChatGLM-6B the default is 0.7.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Choose among tokens with at least this fraction of the likeliest token's probability; 0 means all.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Above 1, tokens that occurred before become less likely.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Seed of the random numbers; the same seed gives the same answer. [default: random]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Maximum number of tokens of an answer. [default: as many as fit in the context]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_new_tokens: Option<usize>,
    /// End the answer before this text; can be given several times.
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Tokens that the context holds, prompt and answer together. [default: the maximum of the model, up to 32768]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Draft tokens by prompt lookup and verify several in one pass. auto drafts if that is measured to be faster, N always drafts
    /// up to N tokens. The answer is the same.
    #[arg(long, value_name = "auto|off|N", default_value = "auto", value_parser = draft)]
    pub draft: Draft,
}

impl Answering {
    /// What is asked of `model`: the given settings, and those of the model where none is given.
    pub fn request(&self, model: &Network) -> anyhow::Result<Request> {
        let mut request = Request::new(self.sampling(model.sampling())?);
        request.max_new_tokens = self.max_new_tokens;
        request.stop_ids.clone_from(&model.config().special.ends);
        request.draft = self.draft;
        Ok(request)
    }

    /// The sampling settings: those given, else those of `base`; a random seed if none is given.
    pub fn sampling(&self, base: &Sampling) -> anyhow::Result<Sampling> {
        let seed = self.seed.unwrap_or_else(random_seed);
        let base = if self.greedy { &Sampling::greedy() } else { base };
        let mut sampling = base.clone();
        sampling.temperature = self.temperature.unwrap_or(base.temperature);
        sampling.top_k = self.top_k.unwrap_or(base.top_k);
        sampling.top_p = self.top_p.unwrap_or(base.top_p);
        sampling.min_p = self.min_p.unwrap_or(base.min_p);
        sampling.repetition_penalty = self.repetition_penalty.unwrap_or(base.repetition_penalty);
        sampling.seed = seed;
        sampling.validate()?;
        Ok(sampling)
    }

    /// Checks the settings before anything is opened.
    pub fn check(&self) -> anyhow::Result<()> {
        self.sampling(&Sampling::greedy()).map(|_| ())
    }
}

/// 32 bits: short enough to type, and exact in every JSON reader.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()) >> 32
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

fn draft(text: &str) -> Result<Draft, String> {
    match text {
        "auto" => Ok(Draft::Auto),
        "off" => Ok(Draft::Off),
        _ => match text.parse() {
            Ok(most) if (1..=MAX_DRAFT).contains(&most) => Ok(Draft::Fixed(most)),
            _ => Err(format!("must be auto, off or a number from 1 to {MAX_DRAFT}")),
        },
    }
}

/// What happens to a conversation that no longer fits in the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Overflow {
    /// The question is refused with an error.
    Error,
    /// The oldest rounds are dropped, so that a quarter of the context (or --max-new-tokens, if less) is free for the
    /// answer. A note says how many.
    DropOldest,
}

const CHAT_EXAMPLES: &str = "\
At the prompt, /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.
If stdin is not a terminal, each of its lines is a question. Only the answers are written to stdout.

Examples:
  glm chat -m chatglm-6b-q4
  printf '你好\\n再见\\n' | glm chat -m chatglm-6b-q4 --greedy
  glm chat -m chatglm-6b-q4 --messages talk.json --json

  where talk.json is [{\"role\": \"user\", \"content\": \"你好\"}, …, {\"role\": \"user\", \"content\": \"…\"}],
  or the body of a request to OpenAI's API. Some models also support the roles system, observation
  and tool, and the fields metadata and tools";

#[derive(Debug, Args)]
#[command(after_help = CHAT_EXAMPLES)]
pub struct Chat {
    #[command(flatten)]
    pub model: Model,
    /// Answer the conversation in this file once: a JSON list of {"role", "content"}; `-` reads it from stdin.
    #[arg(long, value_name = "FILE")]
    pub messages: Option<PathBuf>,
    /// Instructions for the whole conversation, for models that support them.
    #[arg(long, value_name = "TEXT", conflicts_with = "messages")]
    pub system: Option<String>,
    /// Print the answer as JSON: text, prompt_ids, ids and more.
    #[arg(long, requires = "messages")]
    pub json: bool,
    /// After each answer, print to stderr how long it took and how many drafted tokens were accepted.
    #[arg(long)]
    pub stats: bool,
    /// The chat template to use in place of the model's own.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Template::NAMES))]
    pub template: Option<String>,
    /// What happens when the conversation no longer fits in the context.
    #[arg(long, value_name = "WHAT", default_value = "error")]
    pub context_overflow: Overflow,
    #[command(flatten)]
    pub answering: Answering,
}

const GENERATE_EXAMPLES: &str = "\
Examples:
  glm generate -m chatglm-6b-q4 -p '写一首诗'
  git diff | glm generate -m chatglm-6b-q4 --max-new-tokens 200
  glm generate -m chatglm-6b-q4 --ids '[5,74874,130001,130004]' --greedy --json";

#[derive(Debug, Args)]
#[command(after_help = GENERATE_EXAMPLES)]
pub struct Generate {
    #[command(flatten)]
    pub model: Model,
    /// The prompt; `-`, or no prompt, reads it from stdin, without the last line break.
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// The prompt, without a flag.
    #[arg(value_name = "TEXT", conflicts_with = "prompt")]
    pub text: Option<String>,
    /// The whole prompt as ids: a JSON list. Nothing is added to it, and no tokenizer is needed.
    #[arg(long, value_name = "LIST", conflicts_with_all = ["prompt", "text", "template"])]
    pub ids: Option<Ids>,
    /// The chat template to use in place of the model's own.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Template::NAMES))]
    pub template: Option<String>,
    /// Continue after the end of the answer, up to --max-new-tokens.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Print JSON: ids, text, finish and more.
    #[arg(long)]
    pub json: bool,
    /// Afterwards, print to stderr how long it took and how many drafted tokens were accepted.
    #[arg(long)]
    pub stats: bool,
    #[command(flatten)]
    pub answering: Answering,
}

const FILL_EXAMPLES: &str = "\
[MASK] stands for a few words, [gMASK] for a text of any length; GLM and GLM-130B also have [sMASK]
for a sentence. Several blanks are filled from left to right, and the model sees the text of those
before.

Examples:
  glm fill '床前[MASK]光，疑是地上[MASK]。'
  glm fill -m chatglm-6b-q4 '凯旋门位于[MASK]。'
  glm fill -m chatglm-6b-q4 --json < text-with-a-blank.txt";

#[derive(Debug, Args)]
#[command(after_help = FILL_EXAMPLES)]
pub struct Fill {
    #[command(flatten)]
    pub model: Model,
    /// The text with blanks, `[MASK]` or `[gMASK]`; `-`, or no text, reads it from stdin, without the last line break.
    pub text: Option<String>,
    /// Print JSON: the filled text, its spans, and the answers with ids and more.
    #[arg(long)]
    pub json: bool,
    /// Afterwards, print to stderr how long it took and how many drafted tokens were accepted.
    #[arg(long)]
    pub stats: bool,
    #[command(flatten)]
    pub answering: Answering,
}

const SCORE_EXAMPLES: &str = "\
If the text has a blank, each answer is scored in the place of the blank. If not, the text is a
question, and each answer is scored as its answer. For each answer, the likeliest first, the
natural logarithm of its probability, its number of tokens and its text are printed.

Examples:
  glm score '床前[MASK]光，疑是地上霜。' 明月 日 月
  glm score -m glm-10b 'Paris is the [MASK] of France.' capital river
  glm score -m chatglm-6b-q4 --json '1+1=?' < answers.txt";

#[derive(Debug, Args)]
#[command(after_help = SCORE_EXAMPLES)]
pub struct Score {
    #[command(flatten)]
    pub model: Model,
    /// The text.
    pub text: String,
    /// The answers; without any, each line of stdin is an answer.
    pub answers: Vec<String>,
    /// Include the probability that the answer ends there.
    #[arg(long)]
    pub whole: bool,
    /// Print JSON: for each answer in the order given its text, ids, log_probability and end_log_probability.
    #[arg(long)]
    pub json: bool,
    /// The chat template to use in place of the model's own.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Template::NAMES))]
    pub template: Option<String>,
    /// Tokens that the context holds. [default: the maximum of the model, up to 32768]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
}

const QUANTIZE_EXAMPLES: &str = "\
The official INT4 and INT8 keep their weights exactly; only their order in the file changes.
The memory needed does not grow with the model. An unfinished folder cannot be opened as a model.

Examples:
  glm quantize chatglm-6b chatglm-6b-q4
  glm quantize chatglm-6b chatglm-6b-q8 --bits 8
  glm quantize chatglm-6b-int4 chatglm-6b-int4-ready";

#[derive(Debug, Args)]
#[command(after_help = QUANTIZE_EXAMPLES)]
pub struct Quantize {
    /// The model's folder.
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// The folder to write. It is created if it does not exist, and must not contain a model.
    #[arg(value_name = "DST")]
    pub target: PathBuf,
    /// Bits of a weight: 4 or 8.
    #[arg(long, default_value_t = 4)]
    pub bits: usize,
    /// Weights that share a scale: 32, 64 or 128. Fewer are more exact, more take less memory.
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub group: usize,
    /// Threads; by default one for each fast core.
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Debug, Args)]
pub struct Info {
    #[command(flatten)]
    pub source: Source,
    /// Describe the processor in place of a model: its cores, its instruction sets, and those that are used.
    #[arg(long, conflicts_with = "model")]
    pub cpu: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

const TOKENIZE_EXAMPLES: &str = "\
A folder with only the files of the tokenizer is enough.

Examples:
  glm tokenize -m chatglm-6b '你好，世界'
  glm tokenize -m chatglm-6b --json --stdin < text.txt
  glm tokenize -m chatglm-6b --decode '[5, 74874]'";

#[derive(Debug, Args)]
#[command(after_help = TOKENIZE_EXAMPLES)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Tokenize {
    #[command(flatten)]
    pub source: Source,
    /// The text.
    #[arg(group = "what", allow_hyphen_values = true)]
    pub text: Option<String>,
    /// Read the text from stdin, to the last byte.
    #[arg(long, group = "what")]
    pub stdin: bool,
    /// Convert ids to text: a JSON list.
    #[arg(long, value_name = "LIST", group = "what")]
    pub decode: Option<Ids>,
    /// Print JSON: {"ids": […]}, or {"text": "…"} with --decode.
    #[arg(long)]
    pub json: bool,
}

const LOGITS_EXAMPLES: &str = "\
The file has one tensor, `logits`, f32 [tokens, vocab].

Example:
  glm logits -m chatglm-6b --ids '[5,74874,130001,130004]' --activations f32 --out logits.safetensors";

#[derive(Debug, Args)]
#[command(after_help = LOGITS_EXAMPLES)]
pub struct Logits {
    #[command(flatten)]
    pub model: Model,
    /// The ids: a JSON list.
    #[arg(long, value_name = "LIST")]
    pub ids: Ids,
    /// The safetensors file to write. An existing file is replaced.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

const BENCH_EXAMPLES: &str = "\
A figure is the median of several rounds. The speed of reading a prompt is limited by the
multiply-adds of the processor, and the speed of generating by the memory bandwidth. Both limits
are measured in the same run. Close other programs first.

After prompts and depths, two more things are measured behind 32 tokens: the tokens of several
sequences generated together, and passes that verify a draft (see `glm generate --draft`), each
compared with one token of one sequence.

Examples:
  glm bench --shape chatglm-6b
  glm bench -m chatglm-6b-q4 -t 4 --prompts 32,512 --depths 0,1000 --json";

#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct Bench {
    #[command(flatten)]
    pub model: Model,
    /// Measure random weights in memory, with the shape of a published model, in place of a model.
    #[arg(long, value_name = "NAME", conflicts_with = "model", value_parser = PossibleValuesParser::new(RANDOM_SHAPES))]
    pub shape: Option<String>,
    /// Bits of a random weight: 4 or 8.
    #[arg(long, default_value_t = 4, requires = "shape")]
    pub bits: usize,
    /// Random weights that share a scale: 32, 64 or 128.
    #[arg(long, value_name = "N", default_value_t = 32, requires = "shape")]
    pub group: usize,
    /// Lengths of prompts; by default those of 32,128,512 that fit in the context.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = positive)]
    pub prompts: Option<Vec<usize>>,
    /// Tokens in front of those that are generated; by default those of 32,1000 that fit in the context.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub depths: Option<Vec<usize>>,
    /// Numbers of sequences that are generated together; 0 measures none. By default 4,8 if they fit in the context.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub sequences: Option<Vec<usize>>,
    /// Tokens of passes that verify a draft: the last token and those drafted; 0 measures none. By default 2,4,8,16 if they fit in
    /// the context.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub draft_tokens: Option<Vec<usize>>,
    /// Tokens that are generated in a round.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive)]
    pub tokens: usize,
    /// Rounds of each measurement.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive)]
    pub rounds: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        answering: Answering,
    }

    fn sampling(words: &str) -> anyhow::Result<Sampling> {
        Only::try_parse_from(words.split(' '))?.answering.sampling(&base())
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
        assert_eq!(sampling("glm --seed 7").unwrap(), with_seed);
        let greedy = changed(&Sampling::greedy(), |s| s.seed = 7);
        assert_eq!(sampling("glm --greedy --seed 7").unwrap(), greedy);
        let cooler = sampling("glm --temperature 0.5 --top-k 3 --seed 7").unwrap();
        assert_eq!(cooler, changed(&with_seed, |s| (s.temperature, s.top_k) = (0.5, 3)));
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for words in ["--temperature -1", "--temperature nan", "--top-p 0", "--min-p 2"] {
            assert!(sampling(&format!("glm {words}")).is_err(), "{words}");
        }
        for words in ["--max-new-tokens 0", "--top-k -1", "--seed -1", "--greedy --top-p 0.5"] {
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
