//! `glm bench`: the speed of a model on this machine, and the limits of the machine.

mod lengths;
mod limit;
mod measure;
mod measurement;
mod plot;
mod report;
mod table;

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use glm_model::Model;

use crate::args::{Bench, weight_format};
use crate::interrupt::{self, Again};
use crate::output::note;
use crate::{file, messages, open, progress};
use lengths::Lengths;
use limit::Limits;
use measure::Runner;
use report::Report;

pub fn run(args: &Bench) -> Result<()> {
    args.plot.as_deref().map_or(Ok(()), file::check)?;
    let started = Instant::now();
    let model = open(args)?;
    let opened = started.elapsed();
    let cancel = interrupt::token(Again::Exits)?;
    let lengths = Lengths::new(args, model.config().max_context);
    if args.plot.is_some() {
        let points = lengths.prompts.len() + lengths.depths.len();
        ensure!(points > 0, messages::bench_no_points(model.config().max_context));
    }
    // Before the limits are measured, so that a length that does not fit is refused at once.
    let mut sequence =
        model.sequence(Some(lengths.capacity)).with_context(messages::bench_lengths)?;

    let bar = &progress::step();
    bar.set_message(messages::bench_limits());
    let machine = model.roofline();
    let limits = Limits { model: &model, machine, tokens: args.tokens };
    let workspace = model.workspace()?;
    let rounds = args.rounds;
    let mut runner = Runner { limits, workspace, rounds, cancel, progress: bar };

    let mut report = Report::new(args, &model, opened, bar);
    report.begin()?;
    for &tokens in &lengths.prompts {
        report.add(runner.prompt(tokens, &mut sequence)?)?;
    }
    // In between, because a busy machine may have been slow before.
    runner.update_limits();
    for &depth in &lengths.depths {
        report.add(runner.decode(depth, &mut sequence)?)?;
    }
    sequence.clear();
    runner.update_limits();
    runner.sequences(&lengths.sequences, &mut |measured| report.add(measured))?;
    runner.drafts(&lengths.draft_tokens, &mut |measured| report.add(measured))?;
    if lengths.lookup {
        report.add(runner.lookup()?)?;
    }
    bar.finish_and_clear();
    let limits = &runner.limits;
    report.end(limits)?;
    if let Some(path) = &args.plot {
        let picture = report.picture(limits).svg()?;
        file::replace(path, |out| Ok(out.write_all(picture.as_bytes())?))?;
        note(&messages::bench_plotted(path.display()));
    }
    Ok(())
}

/// The model that is named, or random weights.
fn open(args: &Bench) -> Result<Model> {
    match &args.shape {
        Some(shape) => {
            let format = weight_format(args.bits, args.group, args.symmetric)?;
            open::random(&args.model, shape, &format, Lengths::new(args, usize::MAX).capacity)
        }
        None => open::model(&args.model, None),
    }
}
