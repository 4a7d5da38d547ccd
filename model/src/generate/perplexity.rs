//! How well a model predicts a text, and how far its predictions are from those of a reference.
//!
//! A text is cut into [windows](windows()). In each, the last tokens, or those of a blank, are predicted. A [`Reference`] is a model
//! that predicts the same tokens at the same time, or the predictions that it made before, in a [file](SavedLogits).

mod compare;
mod saved;
mod summary;
mod window;

use std::ops::Range;

use rayon::prelude::*;

use crate::error::Result;
use crate::limits::run::LOGITS_BYTES;
use crate::network::chunk::{Chunk, Logits};
use crate::network::hook::{CancelToken, RunOptions};
use crate::network::model::Model;
use crate::network::sequence::Sequence;
use crate::network::workspace::Workspace;
pub(crate) use compare::kl_divergence;
pub use compare::{Compared, Prediction};
pub use saved::{LogitsWriter, SavedLogits};
pub use summary::{Divergence, Mean, Perplexity};
pub(crate) use window::text_ids;
pub use window::{Window, WindowOptions, windows};

/// Tokens of windows in a pass, unless a single window is longer.
const PASS_TOKENS: usize = 512;

/// What the predictions of a model are compared with.
pub enum Reference<'a> {
    /// Those of another model, which must have the same tokenizer.
    Model(&'a Model),
    /// Those that were saved.
    Saved(&'a mut SavedLogits),
}

/// Predicts the counted tokens of `windows`, in order. With `save`, the predictions are written to it. `progress` is called with the
/// number of windows that are done.
///
/// # Errors
/// If a window exceeds the context of a model or has an id outside its vocabulary, if the vocabularies differ, if logits are not
/// finite, if a file cannot be read or written, or if it was cancelled.
pub fn predict(
    model: &Model,
    windows: &[Window],
    mut reference: Option<Reference<'_>>,
    mut save: Option<&mut LogitsWriter>,
    cancel: &CancelToken,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Prediction>> {
    let vocab = model.config().vocab;
    if let Some(reference) = &reference {
        reference.check(vocab)?;
    }
    if let Some(save) = &save {
        save.check(vocab, windows)?;
    }
    let mut reader = Reader::new(model)?;
    let mut other = match &reference {
        Some(Reference::Model(other)) => Some(Reader::new(other)?),
        _ => None,
    };
    let (mut predictions, mut decoded, mut done) = (Vec::new(), Vec::new(), 0);
    for batch in batches(windows) {
        let counted = batch[0].counted().len();
        let step = (LOGITS_BYTES / (size_of::<f32>() * vocab) / batch.len()).max(1);
        let mut of_windows = vec![Vec::new(); batch.len()];
        for start in (0..counted).step_by(step) {
            let part = start..(start + step).min(counted);
            let logits = reader.read(batch, &part, cancel)?;
            let others =
                other.as_mut().map(|other| other.read(batch, &part, cancel)).transpose()?;
            for (index, (window, predictions)) in batch.iter().zip(&mut of_windows).enumerate() {
                let rows: Vec<_> = logits.chunk(index).collect();
                if let Some(save) = save.as_deref_mut() {
                    model.install(|| save.write(&rows))?;
                }
                if let Some(Reference::Saved(file)) = &mut reference {
                    file.read(rows.len(), &mut decoded)?;
                }
                let references: Vec<_> = match &others {
                    Some(others) => others.chunk(index).collect(),
                    None => decoded.chunks_exact(vocab).collect(),
                };
                let ids = &window.ids()[window.part(&part)];
                let all = rows.par_iter().zip(ids).enumerate();
                let all = all.map(|(row, (logits, &id))| {
                    compare::prediction(logits, id, references.get(row).copied())
                });
                predictions.extend(model.install(|| all.collect::<Result<Vec<_>>>())?);
            }
        }
        predictions.extend(of_windows.into_iter().flatten());
        done += batch.len();
        progress(done);
    }
    Ok(predictions)
}

impl Reference<'_> {
    fn check(&self, vocab: usize) -> Result<()> {
        match self {
            Reference::Model(other) => compare::check_vocab(vocab, other.config().vocab),
            Reference::Saved(file) => file.check(vocab),
        }
    }
}

/// Windows that are read in the same passes. Those of a batch have the same lengths.
fn batches(windows: &[Window]) -> impl Iterator<Item = &[Window]> {
    let lengths = |window: &Window| (window.ids().len(), window.counted().len());
    let equal = windows.chunk_by(move |a, b| lengths(a) == lengths(b));
    equal.flat_map(|equal| equal.chunks((PASS_TOKENS / equal[0].ids().len()).max(1)))
}

/// A model that reads windows.
struct Reader<'m> {
    model: &'m Model,
    workspace: Workspace,
    sequences: Vec<Sequence>,
}

impl<'m> Reader<'m> {
    fn new(model: &'m Model) -> Result<Self> {
        Ok(Self { model, workspace: model.workspace()?, sequences: Vec::new() })
    }

    /// The logits that predict the counted tokens `part` of each window. The parts of a window must be read in order.
    fn read(
        &mut self,
        windows: &[Window],
        part: &Range<usize>,
        cancel: &CancelToken,
    ) -> Result<Logits<'_>> {
        if part.start == 0 {
            self.sequences.clear();
            for window in windows {
                self.sequences.push(self.model.sequence(Some(window.ids().len()))?);
            }
        }
        let mut chunks: Vec<_> = self
            .sequences
            .iter_mut()
            .zip(windows)
            .map(|(sequence, window)| {
                let counted = window.part(part);
                let ids = &window.ids()[sequence.len()..counted.end - 1];
                Chunk { sequence, ids, wanted: ids.len() - counted.len()..ids.len() }
            })
            .collect();
        let options = RunOptions::default().cancelled_by(cancel);
        self.model.run(&mut self.workspace, &mut chunks, options)
    }
}
