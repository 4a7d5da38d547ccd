//! Chat with GLM models in a terminal.
//!
//! Answers go to stdout, everything else to stderr.

#![forbid(unsafe_code)]

mod args;

mod failure;
mod file;
mod folders;
mod help;
mod input;
mod interrupt;
mod limits;
#[cfg_attr(
    not(feature = "serve"),
    allow(dead_code, reason = "messages of a command that is left out")
)]
mod messages;
mod output;
mod progress;
mod repository;
mod settings;
mod table;
mod tty;
mod units;
mod usage;

mod answer;
#[cfg_attr(not(feature = "serve"), allow(dead_code, reason = "what the server alone needs"))]
mod api;
mod models;
mod open;

mod batch;
mod bench;
mod chat;
mod config;
mod fill;
mod generate;
mod info;
mod list;
mod logits;
mod perplexity;
mod pull;
mod quantize;
mod remove;
mod score;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "grammar")]
mod structure;
mod tokenize;

use std::process::ExitCode;

use anyhow::Result;
use args::{Cli, Command};

fn main() -> ExitCode {
    // Without it, a model file that another process cuts ends the program.
    let _ = glm_model::survive_truncated_files();
    let done = Cli::read().and_then(|command| run(&command));
    done.map_or_else(|error| failure::report(&error), |()| ExitCode::SUCCESS)
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Chat(args) => chat::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Fill(args) => fill::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Score(args) => score::run(args),
        Command::Info(args) => info::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args),
        Command::Batch(args) => batch::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Logits(args) => logits::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Pull(args) => pull::run(args),
        Command::List(args) => list::run(args),
        Command::Remove(args) => remove::run(args),
        Command::Config(args) => config::run(args),
        Command::Man(args) => help::manual::run(args),
        Command::Completions(args) => help::completions::run(args),
    }
}
