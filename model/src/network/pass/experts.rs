//! Feed-forward block with experts.
//!
//! The rows of all sequences are gathered by expert, so that an expert is read once for all of them. The experts' matrices of one kind, and
//! those of the expert that all tokens have, are computed at once. Each row adds up the outputs of its experts in their order.

use std::ops::Range;

use glm_kernels::{Activation, Gate, Input, Linear as Kernel, Matrix, Output, for_each_row};

use super::{Branch, Pass, rows_mut, show};
use crate::files::checkpoint::Bytes;
use crate::network::experts::choose;
use crate::network::hook::HookPoint;
use crate::network::layer::{Context, Expert, Layer, Linear, LinearRole, Norm, Weight};
use crate::network::workspace::{ExpertScratch, Workspace};

/// The matrices of a feed-forward block with experts.
pub(super) struct Sparse<'a> {
    pub(super) router: &'a Linear,
    pub(super) experts: &'a [Expert<Linear>],
    pub(super) shared: Option<&'a Expert<Linear>>,
}

impl Pass<'_, '_, '_> {
    /// `x = x + Σ weight · expert(m) + shared(m)`
    pub(super) fn sparse(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        block: &Sparse<'_>,
        rows: Range<usize>,
    ) {
        self.route(index, layer, block, &rows);
        self.run_experts(block, rows.len());
        self.add_experts(index, layer, block, rows);
    }

    /// Writes `m` to [`Workspace::normed`], and chooses the experts of `rows`.
    fn route(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        block: &Sparse<'_>,
        rows: &Range<usize>,
    ) {
        let Some(experts) = &self.config.experts else { return };
        let Self { config, workspace, options, isa, .. } = self;
        let Workspace { x, normed, experts: scratch, segments, reads_ahead, .. } = &mut **workspace;
        let (n, hidden, used) = (rows.len(), config.hidden, experts.used);
        let normed = &mut normed[..n * hidden];
        layer.feed_forward_norm.forward(*isa, rows_mut(x, rows, hidden), normed);
        let logits = &mut scratch.logits[..n * experts.count];
        let weight = block.router.weight.matrix();
        let bias = block.router.bias.as_deref().unwrap_or_default();
        let router = Kernel { weight, bias: None, activation: Activation::None };
        router.forward(*isa, Input::F32(normed), logits);
        show(options, segments, HookPoint::Input(index, LinearRole::Router), normed, rows.clone());
        let chosen = &mut scratch.chosen[..n * used];
        let weights = &mut scratch.weights[..n * used];
        let each = logits.chunks_exact(experts.count).zip(chosen.chunks_exact_mut(used));
        for ((logits, chosen), weights) in each.zip(weights.chunks_exact_mut(used)) {
            choose(experts, logits, bias, chosen, weights);
        }
        if options.hook.is_some() {
            let shown = chosen.chunks_exact(used).zip(weights.chunks_exact(used));
            let shown = shown.flat_map(|(chosen, weights)| {
                chosen.iter().map(|&expert| expert as f32).chain(weights.iter().copied())
            });
            let shown: Vec<_> = shown.collect();
            show(options, segments, HookPoint::Experts(index), &shown, rows.clone());
        }
        scratch.routing.sort(chosen, experts.count, used);
        if *reads_ahead {
            for &(expert, _) in &scratch.routing.experts {
                let Expert { gate, up, down } = &block.experts[expert];
                let parts = [gate, up, down].into_iter().flat_map(|linear| linear.weight.parts());
                parts.for_each(Bytes::read_ahead);
            }
        }
    }

    /// Computes the experts of `n` rows, whose outputs are in [`ExpertScratch::outputs`]: those of the rows gathered by expert, then those of
    /// the expert that all rows have.
    fn run_experts(&mut self, block: &Sparse<'_>, n: usize) {
        let Some(experts) = &self.config.experts else { return };
        let Self { config, workspace, isa, activations, .. } = self;
        let Workspace { normed, experts: scratch, quantized, ordered, .. } = &mut **workspace;
        let ExpertScratch { routing, inputs, up, gated, outputs, .. } = scratch;
        let (hidden, inner, shared_inner) =
            (config.hidden, experts.intermediate_size, experts.shared_size);
        let gathered = n * experts.used;
        let mut context =
            Context { isa: *isa, activations: *activations, quantized, ordered, updates: None };

        // Of all experts, whichever the rows have.
        let all = || block.experts.iter().chain(block.shared);
        let ups_alike = Linear::are_alike(
            all().flat_map(|it| [&it.gate.weight, &it.up.weight]).map(Weight::matrix),
        );
        // The shared expert is the last section. A single row is the only section, for all experts.
        let of_each = |kind: fn(&Expert<Linear>) -> &Linear| {
            let chosen = routing.experts.iter().map(|&(expert, _)| &block.experts[expert]);
            let all = chosen.chain(block.shared).enumerate();
            all.map(move |(section, expert)| (kind(expert).weight.matrix(), section))
        };
        let shared_rows = block.shared.map(|_| n);
        let mut sections: Vec<_> = routing.experts.iter().map(|&(_, rows)| rows).collect();
        sections.extend(shared_rows);
        let gates = of_each(|expert| &expert.gate).chain(of_each(|expert| &expert.up));
        let numbers = gathered * inner + n * shared_inner;
        let up = &mut up[..2 * numbers];
        let layers: Vec<(Matrix<'_>, usize)> = match n {
            1 => gates.map(|(matrix, _)| (matrix, 0)).collect(),
            _ => gates.collect(),
        };
        let (up_sections, rows) = match n {
            1 => (&[1][..], 1),
            _ => (&sections[..], gathered + shared_rows.unwrap_or(0)),
        };
        let gather = |place: usize, x: &mut [f32]| {
            let row = match routing.rows.get(place) {
                Some(&row) => row as usize,
                None => place - gathered,
            };
            x.copy_from_slice(&normed[row * hidden..][..hidden]);
        };
        let inputs = &mut inputs[..rows * hidden];
        Linear::forward_each(&mut context, ups_alike, &layers, up_sections, inputs, gather, up);

        let (gate, up) = up.split_at(numbers);
        let activate = |first: usize, x: &mut [f32]| {
            let (gate, up) = (&gate[first..][..x.len()], &up[first..][..x.len()]);
            isa.run(Gate { activation: Activation::Silu, gate, up, y: x });
        };
        let layers: Vec<_> = of_each(|expert| &expert.down).collect();
        let gated = &mut gated[..numbers];
        let outputs = &mut outputs[..(gathered + shared_rows.unwrap_or(0)) * hidden];
        let is_joined = block.shared.is_none() || shared_inner == inner;
        let fill = |place: usize, x: &mut [f32]| activate(place * inner, x);
        if is_joined {
            let alike = Linear::are_alike(all().map(|it| it.down.weight.matrix()));
            return Linear::forward_each(
                &mut context,
                alike,
                &layers,
                &sections,
                gated,
                fill,
                outputs,
            );
        }
        // The shared expert has another width.
        let chosen = sections.len() - 1;
        let (own, shared) = gated.split_at_mut(gathered * inner);
        let (outputs, shared_outputs) = outputs.split_at_mut(gathered * hidden);
        let (layers, shared_layer) = layers.split_at(chosen);
        let alike = Linear::are_alike(block.experts.iter().map(|it| it.down.weight.matrix()));
        Linear::forward_each(&mut context, alike, layers, &sections[..chosen], own, fill, outputs);
        let fill = |row: usize, x: &mut [f32]| activate(gathered * inner + row * shared_inner, x);
        let layer = [(shared_layer[0].0, 0)];
        let alike = Linear::are_alike(layer.iter().map(|(matrix, _)| *matrix));
        Linear::forward_each(&mut context, alike, &layer, &[n], shared, fill, shared_outputs);
    }

    /// Adds the outputs of the experts of `rows` to the residual.
    fn add_experts(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        block: &Sparse<'_>,
        rows: Range<usize>,
    ) {
        let Some(experts) = &self.config.experts else { return };
        let Self { config, workspace, options, isa, .. } = self;
        let Workspace { x, normed, branch, experts: scratch, segments, .. } = &mut **workspace;
        let (n, hidden, used) = (rows.len(), config.hidden, experts.used);
        let x = rows_mut(x, &rows, hidden);
        let normed = &mut normed[..n * hidden];
        let norm = &layer.feed_forward_output_norm;
        let branch = Branch { norm, is_updated: false, isa: *isa, normed, branch, x };
        let gathered = n * used;
        let output = |place: usize| &scratch.outputs[place * hidden..][..hidden];
        branch.add(options, segments, HookPoint::FeedForward(index), rows, |mode, y| {
            for_each_row(y, hidden, |row, y| {
                let places = &scratch.routing.places[row * used..][..used];
                let weights = &scratch.weights[row * used..][..used];
                let shared = block.shared.map(|_| output(gathered + row));
                sum(
                    mode,
                    places.iter().map(|&place| output(place as usize)).zip(weights),
                    shared,
                    y,
                );
            });
        });
    }
}

/// Stores `Σ weight · output + shared` in `y`, or adds it.
fn sum<'a>(
    mode: Output,
    outputs: impl Iterator<Item = (&'a [f32], &'a f32)> + Clone,
    shared: Option<&[f32]>,
    y: &mut [f32],
) {
    // In parts that stay in registers or the nearest cache.
    const PART: usize = 64;
    for (part, y) in y.chunks_mut(PART).enumerate() {
        let range = part * PART..part * PART + y.len();
        let mut total = [0.0; PART];
        let total = &mut total[..y.len()];
        for (output, weight) in outputs.clone() {
            let output = &output[range.clone()];
            total.iter_mut().zip(output).for_each(|(total, output)| *total += weight * output);
        }
        if let Some(shared) = shared {
            let shared = &shared[range];
            total.iter_mut().zip(shared).for_each(|(total, shared)| *total += shared);
        }
        match mode {
            Output::Store => y.copy_from_slice(total),
            Output::Add => y.iter_mut().zip(&*total).for_each(|(y, total)| *y += total),
        }
    }
}
