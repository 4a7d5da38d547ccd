//! `glm completions`: scripts for shells.

use std::io::{Write, stdout};

use anyhow::Result;

use crate::args::{self, Completions};

pub fn run(args: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut args::command(), "glm", &mut script);
    let mut stdout = stdout().lock();
    stdout.write_all(&script)?;
    Ok(stdout.flush()?)
}
