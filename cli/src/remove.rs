//! `glm rm`: removes models.

use std::io::{IsTerminal, Write, stderr, stdin};

use anyhow::Result;

use crate::args::Remove;
use crate::models::{self, Stored};
use crate::output::note;
use crate::{failure, input, messages, units};

pub fn run(args: &Remove) -> Result<()> {
    // All names are looked up before anything is removed.
    let mut all: Vec<Stored> = Vec::new();
    for name in &args.models {
        let model = models::named(name)?;
        if !all.contains(&model) {
            all.push(model);
        }
    }
    if !args.yes && !stdin().is_terminal() {
        return Err(failure::usage(messages::removal_needs_yes()));
    }
    for model in &all {
        if args.yes || is_agreed(model)? {
            let freed = models::remove(model)?;
            note(&messages::removed(model.name(), units::bytes(freed)));
        } else {
            note(&messages::kept(model.name()));
        }
    }
    Ok(())
}

/// Asks at the terminal. Only an explicit yes is one.
fn is_agreed(model: &Stored) -> Result<bool> {
    let question = messages::remove_model(model.name(), units::bytes(model.bytes()));
    write!(stderr(), "{question} ")?;
    let answer = input::line(&mut stdin().lock())?.unwrap_or_default();
    Ok(["y", "yes", "是"].contains(&answer.trim().to_lowercase().as_str()))
}
