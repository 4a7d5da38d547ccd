//! Attention block of a layer: QKV projection and cache, then attention and output projection.

use std::ops::Range;

use glm_kernels::{HeadRows, Output, SharedRows, for_each_row};

use super::{Branch, Pass, position, rows_mut, scale_residual, show};
use crate::files::config::Residual;
use crate::network::hook::HookPoint;
use crate::network::kv::Queries;
use crate::network::layer::{Attention, Context, Layer, Linear, LinearRole, Norm};
use crate::network::lora::Updates;
use crate::network::workspace::Workspace;

impl Pass<'_, '_, '_> {
    /// Writes the queries of `rows` to the workspace, and their keys and values to the caches.
    pub(super) fn project(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        rows: Range<usize>,
    ) {
        let Self { config, rotation, chunks, workspace, options, isa, activations, .. } = self;
        let Workspace {
            x, queries, angles, normed, wide, quantized, ordered, lora, segments, ..
        } = &mut **workspace;
        let Attention::Grouped { qkv: projection, .. } = &layer.attention;
        let (n, isa) = (rows.len(), *isa);
        let x = rows_mut(x, &rows, config.hidden);
        let normed = &mut normed[..n * config.hidden];
        let qkv = &mut wide[..n * config.qkv_rows()];
        let norm = |row, y: &mut _| layer.attention_norm.token(isa, x, row, y);
        let updates = Updates::find(chunks, segments, &rows, (index, LinearRole::Qkv), lora);
        let mut context = Context { isa, activations: *activations, quantized, ordered, updates };
        projection.forward_filled(&mut context, normed, norm, Output::Store, qkv);
        show(options, segments, HookPoint::Input(index, LinearRole::Qkv), normed, rows.clone());

        let (size, width) = (config.head_size, config.attention_width());
        let per_token = crate::network::rope::angles_per_token(config);
        let [queries_at, keys, values] = config.heads_at();
        let queries = &SharedRows::new(rows_mut(queries, &rows, width), width);
        for_each_row(qkv, config.qkv_rows(), |row, qkv| {
            let angles = &angles[(rows.start + row) * per_token..][..per_token];
            // SAFETY: each row is used by one task only.
            let query = unsafe { queries.row(row, 0..width) };
            for (head, query) in query.chunks_exact_mut(size).enumerate() {
                query.copy_from_slice(&qkv[queries_at.at(head)..][..size]);
                rotation.rotate(angles, query);
            }
            for head in 0..config.kv_heads {
                rotation.rotate(angles, &mut qkv[keys.at(head)..][..size]);
            }
        });
        for segment in segments.iter().filter_map(|segment| segment.within(&rows)) {
            let sequence = &mut *chunks[segment.chunk].sequence;
            let qkv = &qkv[(segment.row - rows.start) * config.qkv_rows()..];
            let qkv = &qkv[..segment.count * config.qkv_rows()];
            let heads = HeadRows { rows: qkv, width: config.qkv_rows(), keys, values };
            sequence.cache.store(isa, index, sequence.positions() + segment.token, heads);
        }
    }

    /// `x = r(x, a) + output(attention)`
    pub(super) fn attend(&mut self, index: usize, layer: &Layer<Linear, Norm>, rows: Range<usize>) {
        self.attention(index, rows.clone());
        self.attention_output(index, layer, rows);
    }

    /// Writes the attention of `rows` to the first rows of [`Workspace::wide`], `[rows, heads · head size]`.
    pub(super) fn attention(&mut self, index: usize, rows: Range<usize>) {
        let Self { config, chunks, workspace, isa, .. } = self;
        let Workspace { queries, wide, partials, segments, placements, .. } = &mut **workspace;
        let width = config.attention_width();
        let attended = &mut wide[..rows.len() * width];
        for segment in segments.iter().filter_map(|segment| segment.within(&rows)) {
            let (placement, token) = position(chunks, placements, &segment);
            let prefix = chunks[segment.chunk].sequence.prefix();
            let of = Queries {
                queries: &queries[segment.row * width..][..segment.count * width],
                heads: config.heads,
                position: prefix + token,
                mask: placement.mask(prefix),
            };
            let out = &mut attended[(segment.row - rows.start) * width..][..segment.count * width];
            chunks[segment.chunk].sequence.cache.attend(*isa, index, of, partials, out);
        }
    }

    /// `x = r(x, a) + output(attention)`, with the attention in [`Workspace::wide`].
    pub(super) fn attention_output(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        rows: Range<usize>,
    ) {
        let Self { config, chunks, workspace, options, isa, activations, .. } = self;
        let Workspace { x, normed, branch, wide, quantized, ordered, lora, segments, .. } =
            &mut **workspace;
        let Attention::Grouped { output, .. } = &layer.attention;
        let (n, isa, hidden) = (rows.len(), *isa, config.hidden);
        let x = rows_mut(x, &rows, hidden);
        let normed = &mut normed[..n * hidden];
        if let Residual::Scaled(_) = config.residual {
            layer.attention_norm.forward(isa, x, normed);
            scale_residual(config.residual, hidden, normed, x);
        }
        let attended = &wide[..n * config.attention_width()];
        let role = HookPoint::Input(index, LinearRole::AttentionOutput);
        show(options, segments, role, attended, rows.clone());
        let place = (index, LinearRole::AttentionOutput);
        let updates = Updates::find(chunks, segments, &rows, place, lora);
        let (norm, is_updated) = (&layer.attention_output_norm, updates.is_some());
        let mut context = Context { isa, activations: *activations, quantized, ordered, updates };
        let branch = Branch { norm, is_updated, isa, normed, branch, x };
        branch.add(options, segments, HookPoint::Attention(index), rows, |mode, y| {
            output.forward(&mut context, attended, mode, y);
        });
    }
}
