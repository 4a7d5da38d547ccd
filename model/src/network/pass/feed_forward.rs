//! Feed-forward block of a layer.

use std::ops::Range;

use glm_kernels::{Activation, Gate, Isa, Output, for_each_row};

use super::experts::Sparse;
use super::{Branch, Pass, rows_mut, scale_residual, show};
use crate::files::config::Mlp;
use crate::network::hook::HookPoint;
use crate::network::layer::{Context, FeedForward, Layer, Linear, LinearRole, Norm};
use crate::network::lora::Updates;
use crate::network::workspace::Workspace;

impl Pass<'_, '_, '_> {
    /// `x = r(x, m) + down(act(up(m)))`
    pub(super) fn feed_forward(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        rows: Range<usize>,
    ) {
        let (up, down) = match &layer.feed_forward {
            FeedForward::Dense { up, down } => (up, down),
            FeedForward::Sparse { router, experts, shared } => {
                let block = Sparse { router, experts, shared: shared.as_ref() };
                return self.sparse(index, layer, &block, rows);
            }
        };
        self.up(index, layer, up, &rows);
        let Self { config, chunks, workspace, options, isa, activations, .. } = self;
        let Workspace {
            x, normed, branch, wide, gated, quantized, ordered, lora, segments, ..
        } = &mut **workspace;
        let (n, isa, hidden) = (rows.len(), *isa, config.hidden);
        let x = rows_mut(x, &rows, hidden);
        let normed = &mut normed[..n * hidden];
        let intermediate = &mut wide[..n * config.up_rows()];
        let updates = Updates::find(chunks, segments, &rows, (index, LinearRole::Down), lora);
        let (norm, is_updated) = (&layer.feed_forward_output_norm, updates.is_some());
        let mut context = Context { isa, activations: *activations, quantized, ordered, updates };
        scale_residual(config.residual, hidden, normed, x);

        let kind = GateKind::of(config.mlp);
        let gated = &mut gated[..if kind.is_some() { n * config.intermediate_size } else { 0 }];
        let branch = Branch { norm, is_updated, isa, normed, branch, x };
        let point = HookPoint::FeedForward(index);
        branch.add(options, segments, point, rows.clone(), |mode, y| match &kind {
            None => down.forward(&mut context, intermediate, mode, y),
            Some(kind) => {
                let gate = |row, y: &mut _| kind.row(isa, intermediate, row, y);
                down.forward_filled(&mut context, gated, gate, mode, y);
            }
        });
        let input = if kind.is_some() { gated } else { intermediate };
        show(options, segments, HookPoint::Input(index, LinearRole::Down), input, rows);
    }

    /// Writes `m` to [`Workspace::normed`] and `act(up(m))`, not yet gated, to [`Workspace::wide`].
    fn up(&mut self, index: usize, layer: &Layer<Linear, Norm>, up: &Linear, rows: &Range<usize>) {
        let Self { config, chunks, workspace, options, isa, activations, .. } = self;
        let Workspace { x, normed, wide, quantized, ordered, lora, segments, .. } =
            &mut **workspace;
        let n = rows.len();
        let x = rows_mut(x, rows, config.hidden);
        let normed = &mut normed[..n * config.hidden];
        let norm = |row, y: &mut _| layer.feed_forward_norm.token(*isa, x, row, y);
        let updates = Updates::find(chunks, segments, rows, (index, LinearRole::Up), lora);
        let mut context =
            Context { isa: *isa, activations: *activations, quantized, ordered, updates };
        let intermediate = &mut wide[..n * config.up_rows()];
        up.forward_filled(&mut context, normed, norm, Output::Store, intermediate);
        show(options, segments, HookPoint::Input(index, LinearRole::Up), normed, rows.clone());
    }

    /// The input of `down` for `rows`, `[rows, intermediate size]`.
    pub(super) fn activated(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        rows: &Range<usize>,
    ) -> &[f32] {
        // Experts have inputs of their own.
        let FeedForward::Dense { up, .. } = &layer.feed_forward else { return &[] };
        self.up(index, layer, up, rows);
        let Self { config, workspace, isa, .. } = self;
        let Workspace { wide, gated, .. } = &mut **workspace;
        let n = rows.len();
        let intermediate = &wide[..n * config.up_rows()];
        let Some(kind) = GateKind::of(config.mlp) else { return intermediate };
        let gated = &mut gated[..n * config.intermediate_size];
        for_each_row(gated, config.intermediate_size, |row, y| {
            kind.row(*isa, intermediate, row, y);
        });
        gated
    }
}

/// How the MLP is gated.
struct GateKind {
    activation: Activation,
    /// Whether the gate is the first half of the output of `up`; otherwise it is the second.
    first: bool,
}

impl GateKind {
    fn of(mlp: Mlp) -> Option<Self> {
        match mlp {
            Mlp::GeluTanh | Mlp::GeluErf => None,
            Mlp::SwiGlu => Some(Self { activation: Activation::Silu, first: true }),
            Mlp::GeGlu => Some(Self { activation: Activation::GeluErf, first: false }),
        }
    }

    /// Writes `act(gate) · up` of row `row` of `up`, `[rows, 2 · intermediate size]`, to `y`, `[intermediate size]`.
    fn row(&self, isa: Isa, up: &[f32], row: usize, y: &mut [f32]) {
        let (first, second) = up[2 * y.len() * row..][..2 * y.len()].split_at(y.len());
        let (gate, up) = if self.first { (first, second) } else { (second, first) };
        isa.run(Gate { activation: self.activation, gate, up, y });
    }
}
