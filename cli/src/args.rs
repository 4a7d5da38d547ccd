//! The command line and its help.

mod adapter;
mod answering;
mod api;
mod batch;
mod bench;
mod chat;
mod completions;
mod config;
mod fill;
mod generate;
mod info;
mod list;
mod logits;
mod man;
mod number;
mod path;
mod perplexity;
mod pull;
mod quantize;
mod remove;
mod score;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "grammar")]
mod structure;
mod thinking;
mod tokenize;

use std::cell::OnceCell;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use glm_model::{Activations, KvFormat, ModelPath, Options, QuantizeOptions, Variant};

use crate::{failure, help, messages, usage};

pub use adapter::AdapterFolder;
pub use answering::{Answering, draft, random_seed};
pub use api::Api;
pub use batch::{Batch, Shard};
pub use bench::Bench;
pub use chat::{Chat, Overflow};
pub use completions::Completions;
pub use config::{Config, Edit};
pub use fill::Fill;
pub use generate::Generate;
pub use info::Info;
pub use list::List;
pub use logits::Logits;
pub use man::Man;
use number::{bits, group, target_bits, threads};
pub use number::{positive, sampling, whole};
pub use perplexity::Perplexity;
pub use pull::{Hub, Pull};
pub use quantize::Quantize;
pub use remove::Remove;
pub use score::Score;
#[cfg(feature = "serve")]
pub use serve::Serve;
#[cfg(feature = "grammar")]
pub use structure::{Schema, Structure};
pub use thinking::{OFF, ON, Thinking};
pub use tokenize::Tokenize;

use crate::models::{self, Choice, Found};
use crate::settings;

const EXAMPLES: &str = "\
Examples:
  glm
  glm list
  glm -m chatglm-6b
  glm generate -m chatglm-6b '你好'
  cat letter.txt | glm generate
  glm fill '凯旋门位于[MASK]。'
  glm quantize ./chatglm-6b ./chatglm-6b-q4
  glm info -m ./chatglm-6b-q4
  glm config set model chatglm-6b

A model is a name of `glm list`, a folder as published by its authors or as written by `glm quantize`, or a GGUF file. `glm` alone opens \
a chat with the newest model. Answers go to stdout, everything else to stderr. Ctrl-C stops an answer.

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C. `glm man | man -l -` shows the manual.";

/// Chat with GLM models on a CPU.
#[derive(Debug, Parser)]
#[command(name = "glm", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// The command line. Flags that are not given have the values of the settings. Exits if it is wrong or asks for help.
    ///
    /// # Errors
    /// If the settings are wrong. Then only `glm config`, which can mend them, and commands that have no settings are accepted.
    pub fn read() -> Result<Command> {
        let settings = settings::settings();
        let command = match &settings {
            Ok(settings) => settings::apply(settings, command()),
            Err(_) => command(),
        };
        let words = with_bits(with_chat(env::args_os().collect()));
        let matches = help::fitting(command)
            .try_get_matches_from(words)
            .unwrap_or_else(|error| usage::exit(&error));
        let cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| usage::exit(&error));
        match cli.command {
            Command::Config(_) | Command::Man(_) | Command::Completions(_) => Ok(cli.command),
            _ => settings.map(|_| cli.command),
        }
    }
}

/// The format of weights that `--bits`, `--group` and `--symmetric` ask for.
///
/// # Errors
/// Wrong usage, if `--symmetric` is given for 8 bits, which are always so.
pub fn weight_format(
    bits: usize,
    group: Option<usize>,
    symmetric: bool,
) -> Result<QuantizeOptions> {
    if symmetric && bits != 4 {
        return Err(failure::usage(messages::symmetric_is_for_4_bits()));
    }
    let minimum = bits == 4 && !symmetric;
    let group = group.unwrap_or_else(|| QuantizeOptions::default_group(minimum));
    let mut format = QuantizeOptions::new(bits, group);
    format.minimum = minimum;
    Ok(format)
}

/// `glm` alone is `glm chat`, and so is `glm` with a flag that is not its own.
fn with_chat(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_chat = words.get(1).is_none_or(|first| {
        let is_own = ["-h", "--help", "-V", "--version"].iter().any(|own| first == own);
        first.as_encoded_bytes().starts_with(b"-") && !is_own
    });
    if is_chat {
        words.insert(words.len().min(1), "chat".into());
    }
    words
}

/// `--quantize 8` of `glm pull` is `--quantize=8`. Clap cannot tell bits from a name where the value is optional.
fn with_bits(words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_none_or(|command| command != "pull") {
        return words;
    }
    let is_number = |word: &OsString| {
        let word = word.as_encoded_bytes();
        !word.is_empty() && word.iter().all(u8::is_ascii_digit)
    };
    let mut joined: Vec<OsString> = Vec::new();
    for word in words {
        match joined.last_mut() {
            Some(last) if last == "--quantize" && is_number(&word) => {
                last.push("=");
                last.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// The commands and their arguments, without the settings. Every value may be a negative number, so that a wrong one is answered
/// with the range, and the text of a flag may begin with a hyphen, as a list does.
pub fn command() -> clap::Command {
    let with_hyphen = |arg: Arg| match arg.get_action().takes_values() {
        true if is_text(&arg) => arg.allow_hyphen_values(true),
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    let command = <Cli as CommandFactory>::command();
    command.mut_args(with_hyphen).mut_subcommands(|command| command.mut_args(with_hyphen))
}

/// Whether an argument is a flag with any text as its value. A text without a flag must follow `--` if it looks like one.
fn is_text(arg: &Arg) -> bool {
    !arg.is_positional()
        && arg.get_value_parser().type_id() == std::any::TypeId::of::<String>()
        && arg.get_possible_values().is_empty()
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Talk with the model, or answer a conversation in a file.
    Chat(Chat),
    /// Answer one prompt.
    Generate(Generate),
    /// Download a model.
    Pull(Pull),
    /// List the models that are here.
    List(List),
    /// Remove models that were downloaded or quantized.
    #[command(name = "rm")]
    Remove(Remove),
    /// Print the defaults of flags and where each comes from, or change them.
    Config(Config),
    /// Fill the blanks in a text.
    Fill(Fill),
    /// Print how likely given answers are, the likeliest first.
    Score(Score),
    /// Measure how well the model predicts a text, also compared with another model.
    Perplexity(Perplexity),
    /// Write a model quantized to 4 or 8 bits that opens without preparation.
    Quantize(Quantize),
    /// Print a model's sizes, the formats of its weights, and the memory it needs.
    Info(Info),
    /// Answer the requests of other programs, as OpenAI's API does.
    #[cfg(feature = "serve")]
    Serve(Serve),
    /// Answer the requests in a file, as OpenAI's batch API does.
    Batch(Batch),
    /// Convert text to ids, or ids to text.
    Tokenize(Tokenize),
    /// Write the logits of every token to a file.
    Logits(Logits),
    /// Measure how fast a model runs on this machine, and the limits of the machine.
    Bench(Bench),
    /// Print a page of the manual, or write all pages to a folder.
    Man(Man),
    /// Print a script with which a shell completes commands and arguments.
    Completions(Completions),
}

/// Which model.
#[derive(Debug, Args)]
pub struct Source {
    /// The model: a folder, a GGUF file, a name of `glm list` such as THUDM/chatglm-6b or THUDM/chatglm-6b:int4, or one of Ollama such as
    /// ollama:glm4. The owner may be left out if the name is unique. [default: GLM_MODEL, else the setting `model`, else the newest model here]
    #[arg(short, long, value_name = "MODEL", value_hint = ValueHint::AnyPath)]
    pub model: Option<PathBuf>,
    /// Which of two models with the same files it is, if they do not say: chatglm2 for ChatGLM2 and CodeGeeX2, or chatglm3.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Variant::NAMES))]
    variant: Option<String>,
    #[arg(skip)]
    choice: OnceCell<Choice>,
}

impl Source {
    /// The model with this name, or in this folder.
    pub fn named(model: &Path) -> Self {
        Self { model: Some(model.to_owned()), variant: None, choice: OnceCell::new() }
    }

    /// The folder of a model that was chosen.
    pub fn path(&self, found: &Found) -> ModelPath {
        let variant = self.variant.as_deref().and_then(Variant::named);
        ModelPath::new(&found.folder).of_variant(variant)
    }

    /// The model, chosen at the first call: see [`models::choose`].
    ///
    /// # Errors
    /// As [`models::choose`].
    pub fn choice(&self) -> Result<&Choice> {
        match self.choice.get() {
            Some(choice) => Ok(choice),
            None => {
                let choice = models::choose(self.model.as_deref())?;
                Ok(self.choice.get_or_init(|| choice))
            }
        }
    }
}

/// Which model, and how it is run.
#[derive(Debug, Args)]
pub struct Model {
    #[command(flatten)]
    pub source: Source,
    /// Threads; by default one for each fast core.
    #[arg(short, long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Type of the activations: int8 is several times faster with quantized weights, f32 is for comparisons. By default int8 if the
    /// weights are quantized.
    #[arg(long, value_name = "TYPE")]
    pub activations: Option<ActivationType>,
    /// Type of cached keys and values: int8 takes half the memory of f16 and is slightly less exact; int4 takes a little more than a
    /// quarter and is less exact. int16 is as large as f16, more exact, and faster with latent attention. By default f32 if the activations
    /// are f32, otherwise int16 with latent attention and f16 without.
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<KvType>,
    /// Read all weights into memory before the first token: for a slow disk.
    #[arg(long)]
    pub preload: bool,
    /// Read all weights into memory in place of mapping their files, which may then be changed while the model is in use. It takes the
    /// memory of all weights, and opening takes longer.
    #[arg(long)]
    pub no_mmap: bool,
    /// An adapter that was trained for the model: a folder of the peft library (LoRA), or one with `config.json` and the weights of the
    /// prefix encoder (P-Tuning v2). `glm serve` and `glm batch` also take NAME=FOLDER, several times: requests choose one by this name
    /// as their model. So does `glm chat`: /adapter NAME chooses.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub adapter: Vec<AdapterFolder>,
}

impl Model {
    /// The folder of the adapter for everything that is not asked of another by its name.
    ///
    /// # Errors
    /// If there are several.
    pub fn adapter(&self) -> Result<Option<&Path>> {
        let mut folders = self.adapter.iter().filter(|adapter| adapter.name.is_none());
        let first = folders.next().map(|adapter| &*adapter.folder);
        match folders.next() {
            Some(_) => Err(failure::usage(messages::adapters_need_names())),
            None => Ok(first),
        }
    }

    /// The adapters that requests choose by their names.
    pub fn named_adapters(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.adapter.iter().filter_map(|adapter| Some((adapter.name.as_deref()?, &*adapter.folder)))
    }

    pub fn options(&self) -> Options {
        let activations = self.activations.map(|activations| match activations {
            ActivationType::F32 => Activations::F32,
            ActivationType::Int8 => Activations::Int8,
        });
        let kv = self.kv.map(|kv| match kv {
            KvType::F32 => KvFormat::F32,
            KvType::F16 => KvFormat::F16,
            KvType::Int16 => KvFormat::Int16,
            KvType::Int8 => KvFormat::Int8,
            KvType::Int4 => KvFormat::Int4,
        });
        let mut options = Options::default();
        options.threads = self.threads;
        options.activations = activations;
        options.kv = kv;
        options.no_mmap = self.no_mmap;
        options.without_own_adapter = self.adapter.iter().any(|adapter| adapter.name.is_none());
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
    Int16,
    Int8,
    Int4,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn the_bits_of_a_pull_may_be_a_word_of_their_own() {
        let with = |words: &str| {
            let words = with_bits(words.split(' ').map(OsString::from).collect());
            words.join(" ".as_ref()).into_string().unwrap()
        };
        assert_eq!(with("glm pull a/b --quantize 8"), "glm pull a/b --quantize=8");
        assert_eq!(with("glm pull --quantize 5 a/b"), "glm pull --quantize=5 a/b");
        for words in
            ["glm pull --quantize a/b", "glm pull --quantize=8 a/b", "glm chat --quantize 8"]
        {
            assert_eq!(with(words), words);
        }
    }

    #[test]
    fn a_chat_needs_no_name() {
        let with = |words: &str| {
            let words = with_chat(words.split(' ').map(OsString::from).collect());
            words.join(" ".as_ref()).into_string().unwrap()
        };
        assert_eq!(with("glm"), "glm chat");
        assert_eq!(with("glm -m x --greedy"), "glm chat -m x --greedy");
        for words in ["glm chat", "glm --help", "glm -V", "glm nosuch -m x"] {
            assert_eq!(with(words), words);
        }
        assert_eq!(with_chat(Vec::new()), ["chat"]);
    }
}
