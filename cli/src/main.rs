//! Chat with GLM models in a terminal.
//!
//! Answers go to stdout, everything else to stderr.

#![forbid(unsafe_code)]

mod args;

mod failure;
mod file;
#[allow(dead_code)]
mod folders;
mod input;
mod interrupt;
mod messages;
mod output;
mod progress;
#[allow(dead_code)]
mod repository;
mod tty;
mod units;

mod answer;
mod open;

mod bench;
mod chat;
mod fill;
mod generate;
mod info;
mod logits;
mod quantize;
mod score;
mod tokenize;

use std::process::ExitCode;

use args::{Cli, Command};

fn main() -> ExitCode {
    let done = match &Cli::command() {
        Command::Chat(args) => chat::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Fill(args) => fill::run(args),
        Command::Quantize(args) => quantize::run(args),
        Command::Score(args) => score::run(args),
        Command::Info(args) => info::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Logits(args) => logits::run(args),
        Command::Bench(args) => bench::run(args),
    };
    done.map_or_else(|error| failure::report(&error), |()| ExitCode::SUCCESS)
}
