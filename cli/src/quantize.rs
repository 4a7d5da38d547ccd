//! `glm quantize`: writes a model that opens without preparation.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;
use glm_model::{QuantizeOptions, Quantized, quantize};

use crate::args::Quantize;
use crate::interrupt::{self, Again};
use crate::output::note;
use crate::progress;
use crate::units::{bytes, seconds};

pub fn run(args: &Quantize) -> Result<()> {
    let started = Instant::now();
    let cancel = interrupt::token(Again::Waits)?;
    let mut options = QuantizeOptions::new(args.bits, args.group);
    options.threads = args.threads;
    let bar = progress::bytes();
    let mut show = |done, total, tensor: &str| {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(tensor.to_owned());
        match cancel.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let done = quantize(&args.source, &args.target, &options, &mut show);
    bar.finish_and_clear();
    let done = done?;
    summary(args, &done).iter().for_each(|line| note(line));
    note(&format!("in {}", seconds(started.elapsed())));
    Ok(())
}

fn summary(args: &Quantize, done: &Quantized) -> Vec<String> {
    let target = args.target.display();
    let mut lines =
        vec![format!("{target}: {} from {}", bytes(done.bytes), bytes(done.source_bytes))];
    if done.quantized > 0 {
        let Quantize { bits, group, .. } = args;
        lines.push(format!("{} matrices are now INT{bits} in groups of {group}", done.quantized));
    }
    if done.kept > 0 {
        lines.push(format!(
            "{} matrices were quantized already and keep their integers and scales",
            done.kept
        ));
    }
    if let Some(shared) = &done.shared {
        lines.push(format!("{shared} is the same as the embedding and was left out"));
    }
    lines
}
