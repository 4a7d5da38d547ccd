//! Low-rank updates of linear layers, kept apart from the weights: `y += B·(s·A·x)` for the rows of the sequences that have an adapter.
//!
//! Each row is computed from itself alone, so its bits depend neither on the other rows nor on their adapters. Where an activation
//! follows, it is applied once the update is added, to all rows.

use std::collections::HashMap;
use std::ops::Range;

use glm_kernels::{Activation, Gate, Input, Isa, Linear, Output, for_each_row};

use crate::error::Result;
use crate::files::checkpoint::Tensor;
use crate::files::config::Config;
use crate::files::lora::{Place, StoredUpdate};
use crate::files::mapped::MappedFiles;
use crate::network::adapter::Adapter;
use crate::network::chunk::{Chunk, Segment};
use crate::network::layer::Weight;

/// The updates of an adapter.
pub(crate) struct LowRank {
    updates: HashMap<Place, Vec<Update>>,
    /// The files that they are read from in every pass.
    mapped: MappedFiles,
}

/// An update of some rows of a linear layer. The matrices have the types of their file.
struct Update {
    rows: Range<usize>,
    scale: f32,
    /// `[rank, inputs]`
    a: Weight,
    /// `[outputs, rank]`
    b: Weight,
}

impl LowRank {
    /// The updates, which stay in mapped files unless `no_mmap`.
    ///
    /// # Errors
    /// If the memory cannot be allocated, or a file cannot be read.
    pub(crate) fn new(stored: &[StoredUpdate], no_mmap: bool) -> Result<Self> {
        let mut updates: HashMap<_, Vec<_>> = HashMap::new();
        for StoredUpdate { place, rows, scale, a, b } in stored {
            let (a, b) = (weight(a, no_mmap)?, weight(b, no_mmap)?);
            let update = Update { rows: rows.clone(), scale: *scale, a, b };
            updates.entry(*place).or_default().push(update);
        }
        let weights = updates.values().flatten().flat_map(|update| [&update.a, &update.b]);
        let mapped = weights.flat_map(Weight::parts).collect();
        Ok(Self { updates, mapped })
    }

    /// The files that they are read from in every pass.
    pub(crate) fn mapped(&self) -> &MappedFiles {
        &self.mapped
    }

    /// Linear layers with an update; query, key and value count as one.
    pub(crate) fn len(&self) -> usize {
        self.updates.len()
    }

    fn of(&self, place: Place) -> &[Update] {
        self.updates.get(&place).map_or(&[], Vec::as_slice)
    }
}

fn weight(tensor: &Tensor, no_mmap: bool) -> Result<Weight> {
    let size = [tensor.shape()[0], tensor.shape()[1]];
    let data = tensor.data();
    let data = if no_mmap { data.in_memory()? } else { data.clone() };
    Weight::plain(tensor.name(), tensor.dtype(), size, &data)
}

/// Buffers for updates. They are large enough for every adapter of the model, because a workspace serves sequences with any of them.
#[derive(Default)]
pub(crate) struct Scratch {
    /// `s·A·x`, `[tile, most rank]`
    pub(crate) hidden: Vec<f32>,
    /// An update of a part of the outputs, `[tile, most outputs]`
    pub(crate) outputs: Vec<f32>,
}

impl Scratch {
    /// Largest rank of an update: no rank exceeds the smaller side of its matrix, and one side of each matrix is `hidden`, or the query
    /// rank of latent attention.
    pub(crate) fn most_rank(config: &Config) -> usize {
        config.hidden.max(config.latent.and_then(|latent| latent.query_rank).unwrap_or(0))
    }

    /// Most outputs of an update of a part: of the query, which is the largest of those of the first projection, or of gate and up
    /// projection apart.
    pub(crate) fn most_outputs(config: &Config) -> usize {
        let gate = if config.experts.is_some() { config.intermediate_size } else { 0 };
        config.query_rows().max(gate).max(config.head_size)
    }
}

/// The updates of one linear layer for some rows of a pass.
pub(crate) struct Updates<'a> {
    chunks: &'a [Chunk<'a>],
    segments: &'a [Segment],
    /// The rows of the batch that the layer computes.
    rows: Range<usize>,
    place: Place,
    scratch: &'a mut Scratch,
}

impl<'a> Updates<'a> {
    /// `None` if no row has one.
    pub(crate) fn find(
        chunks: &'a [Chunk<'_>],
        segments: &'a [Segment],
        rows: &Range<usize>,
        place: Place,
        scratch: &'a mut Scratch,
    ) -> Option<Self> {
        let updates = Self { chunks, segments, rows: rows.clone(), place, scratch };
        let is_there = updates.runs().next().is_some();
        is_there.then_some(updates)
    }
}

impl Updates<'_> {
    /// Consecutive rows of sequences that have the same updates, and those.
    fn runs(&self) -> impl Iterator<Item = (Range<usize>, &[Update])> {
        let mut segments =
            self.segments.iter().filter_map(|segment| segment.within(&self.rows)).peekable();
        std::iter::from_fn(move || {
            loop {
                let segment = segments.next()?;
                let updates = self.of(&segment);
                let mut rows = segment.rows();
                // One product for all of them.
                while let Some(next) = segments.next_if(|next| std::ptr::eq(self.of(next), updates))
                {
                    rows.end = next.rows().end;
                }
                if !updates.is_empty() {
                    return Some((rows, updates));
                }
            }
        })
    }

    fn of(&self, segment: &Segment) -> &[Update] {
        let adapter = self.chunks[segment.chunk].sequence.adapter();
        adapter.and_then(Adapter::low_rank).map_or(&[], |low_rank| low_rank.of(self.place))
    }

    /// Adds the updates for the inputs `x`, `[rows, inputs]`, to the outputs `y`, `[rows, outputs]`, and then applies `activation` to
    /// all of `y`.
    pub(crate) fn add(&mut self, isa: Isa, x: &[f32], activation: Activation, y: &mut [f32]) {
        let mut scratch = std::mem::take(self.scratch);
        let (inputs, outputs) = (x.len() / self.rows.len(), y.len() / self.rows.len());
        for (rows, updates) in self.runs() {
            let rows = rows.start - self.rows.start..rows.end - self.rows.start;
            let x = &x[rows.start * inputs..rows.end * inputs];
            let y = &mut y[rows.start * outputs..rows.end * outputs];
            updates.iter().for_each(|update| update.add(isa, x, y, outputs, &mut scratch));
        }
        *self.scratch = scratch;
        if activation != Activation::None {
            for_each_row(y, outputs, |_, y| activate(isa, activation, y));
        }
    }
}

impl Update {
    /// Adds the update for `x`, `[rows, inputs]`, to its part of `y`, `[rows, outputs]`.
    fn add(&self, isa: Isa, x: &[f32], y: &mut [f32], outputs: usize, scratch: &mut Scratch) {
        let linear = |weight| Linear { weight, bias: None, activation: Activation::None };
        let (a, b) = (self.a.matrix(), self.b.matrix());
        let tokens = x.len() / a.cols();
        let hidden = &mut scratch.hidden[..tokens * a.rows()];
        linear(a).forward(isa, Input::F32(x), hidden);
        hidden.iter_mut().for_each(|h| *h *= self.scale);
        if self.rows == (0..outputs) {
            return linear(b).forward_into(isa, Input::F32(hidden), Output::Add, y);
        }
        let part = &mut scratch.outputs[..tokens * b.rows()];
        linear(b).forward(isa, Input::F32(hidden), part);
        for_each_row(y, outputs, |row, y| {
            let part = &part[row * b.rows()..][..b.rows()];
            y[self.rows.clone()].iter_mut().zip(part).for_each(|(y, update)| *y += update);
        });
    }
}

/// Applies an activation in place. The bits are those of the activation in a linear layer: the factor of the gate is 1.
fn activate(isa: Isa, activation: Activation, y: &mut [f32]) {
    const STEP: usize = 256;
    let (mut gate, up) = ([0.0; STEP], [1.0; STEP]);
    for y in y.chunks_mut(STEP) {
        let (gate, up) = (&mut gate[..y.len()], &up[..y.len()]);
        gate.copy_from_slice(y);
        isa.run(Gate { activation, gate, up, y });
    }
}
