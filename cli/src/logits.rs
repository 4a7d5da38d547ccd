//! `glm logits`: writes the logits of ids, for comparisons.

use std::io::{self, BufWriter, IsTerminal, Write};

use anyhow::{Result, ensure};
use glm_model::{CancelToken, Chunk, Dtype, Model, RunOptions, SafetensorsLayout, TensorSpec};

use crate::args::Logits;
use crate::failure::usage;
use crate::interrupt::{self, Again};
use crate::{file, messages, open, progress};

pub fn run(args: &Logits) -> Result<()> {
    let ids = &args.ids.0;
    if ids.is_empty() {
        return Err(usage(messages::no_ids()));
    }
    let to_stdout = args.out.as_os_str() == "-";
    match to_stdout {
        true if io::stdout().is_terminal() => return Err(usage(messages::binary_on_terminal())),
        true => {}
        false => file::check(&args.out)?,
    }
    let model = open::model(&args.model, None)?;
    let most = model.config().max_context;
    ensure!(ids.len() <= most, messages::too_many_ids(ids.len(), most));
    if to_stdout {
        let cancel = interrupt::token(Again::Exits)?;
        let mut out = BufWriter::new(io::stdout());
        write(&model, ids, &cancel, &mut out)?;
        return Ok(out.flush()?);
    }
    // An unfinished file must not stay.
    let cancel = interrupt::token_of_all(Again::Waits)?;
    file::replace(&args.out, |out| write(&model, ids, &cancel, out))
}

/// Writes a safetensors file with the logits of all tokens. Each row is written when it is computed, so that only a few are in
/// memory.
fn write(
    model: &Model,
    ids: &[u32],
    cancel: &CancelToken,
    out: &mut (impl Write + Send),
) -> Result<()> {
    let tensor = TensorSpec::new("logits", Dtype::F32, [ids.len(), model.config().vocab]);
    out.write_all(SafetensorsLayout::new(&[tensor], &[]).header())?;
    let mut sequence = model.sequence(Some(ids.len()))?;
    let mut workspace = model.workspace()?;
    let mut written: io::Result<()> = Ok(());
    let mut sink = |_, _, logits: &[f32]| {
        if written.is_ok() {
            written = logits.iter().try_for_each(|logit| out.write_all(&logit.to_le_bytes()));
        }
    };
    let bar = progress::reading(ids.len());
    let mut show = |fraction| progress::set(&bar, fraction);
    let options = RunOptions::default().cancelled_by(cancel).with_progress(&mut show);
    let mut chunks = [Chunk::all(&mut sequence, ids)];
    let done = model.run(&mut workspace, &mut chunks, options.with_logits(&mut sink)).map(|_| ());
    bar.finish_and_clear();
    done?;
    Ok(written?)
}
