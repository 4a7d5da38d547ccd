//! The command line and its help.

mod answering;
mod bench;
mod chat;
mod completions;
mod fill;
mod generate;
mod info;
mod logits;
mod man;
mod number;
mod quantize;
mod score;
mod tokenize;

use std::path::PathBuf;

use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, ValueHint};
use glm_model::{Activations, KvFormat, Options};

use crate::{help, usage};

pub use answering::Answering;
pub use bench::Bench;
pub use chat::{Chat, Overflow};
pub use completions::Completions;
pub use fill::Fill;
pub use generate::Generate;
pub use info::Info;
pub use logits::Logits;
pub use man::Man;
use number::{bits, group, positive, threads, whole};
pub use quantize::Quantize;
pub use score::Score;
pub use tokenize::Tokenize;

const EXAMPLES: &str = "\
Examples:
  glm
  glm quantize chatglm-6b chatglm-6b-q4
  glm chat -m chatglm-6b-q4
  glm generate -m chatglm-6b-q4 '你好'
  cat letter.txt | glm generate -m chatglm-6b-q4
  glm fill -m chatglm-6b-q4 '凯旋门位于[MASK]。'
  glm info -m chatglm-6b-q4

A model is a folder as published by its authors, or as written by `glm quantize`. `glm` alone opens a chat. Answers go to stdout,
everything else to stderr. Ctrl-C stops an answer.

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C. `glm man | man -l -` shows the manual.";

/// Chat with GLM models on a CPU.
#[derive(Debug, Parser)]
#[command(name = "glm", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

impl Cli {
    /// The command line; `glm` alone is `glm chat`. Exits if it is wrong or asks for help.
    pub fn read() -> Command {
        let matches = help::command().try_get_matches().unwrap_or_else(|error| usage::exit(&error));
        let cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| usage::exit(&error));
        cli.command.unwrap_or_else(|| {
            let matches = Chat::augment_args(clap::Command::new("chat")).get_matches_from(["chat"]);
            Command::Chat(Chat::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()))
        })
    }
}

/// The commands and their arguments. Every value may be a negative number, so that a wrong one is answered with the range.
pub fn command() -> clap::Command {
    let negative = |arg: Arg| match arg.get_action().takes_values() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    let command = <Cli as CommandFactory>::command();
    command.mut_args(negative).mut_subcommands(|command| command.mut_args(negative))
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
    /// Print a page of the manual, or write all pages to a folder.
    Man(Man),
    /// Print a script with which a shell completes commands and arguments.
    Completions(Completions),
}

/// Which model.
#[derive(Debug, Args)]
pub struct Source {
    /// The model's folder.
    #[cfg_attr(
        feature = "demo",
        doc = "Without it, the small demonstration model in this program is used."
    )]
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub model: Option<PathBuf>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }
}
