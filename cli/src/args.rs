//! The command line and its help.

mod answering;
mod bench;
mod chat;
mod fill;
mod generate;
mod info;
mod logits;
mod quantize;
mod score;
mod tokenize;

use std::path::PathBuf;

use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use glm_model::{Activations, KvFormat, Options};

pub use answering::{Answering, draft, positive, random_seed};
pub use bench::Bench;
pub use chat::{Chat, Overflow};
pub use fill::Fill;
pub use generate::Generate;
pub use info::Info;
pub use logits::Logits;
pub use quantize::Quantize;
pub use score::Score;
pub use tokenize::Tokenize;

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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }
}
