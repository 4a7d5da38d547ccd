//! Attention block of a layer: QKV projection and cache, then attention and output projection.

use std::ops::Range;

use glm_kernels::{HeadRows, Heads, Output, SharedRows, for_each_row};

use super::{Branch, Pass, position, rows_mut, scale_residual, show};
use crate::files::config::Residual;
use crate::network::hook::HookPoint;
use crate::network::kv::{self, Queries};
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
        self.first_projection(index, layer, &rows);
        match &layer.attention {
            Attention::Grouped { head_norms, .. } => self.grouped(index, head_norms, rows),
            Attention::Latent(latent) => self.latent(index, latent, rows),
        }
    }

    /// Writes the projection of the hidden states of `rows` to [`Workspace::wide`], `[rows, qkv rows]`.
    pub(super) fn first_projection(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        rows: &Range<usize>,
    ) {
        let Self { config, chunks, workspace, options, isa, activations, .. } = self;
        let Workspace { x, normed, wide, quantized, ordered, lora, segments, .. } =
            &mut **workspace;
        let (n, isa) = (rows.len(), *isa);
        let x = rows_mut(x, rows, config.hidden);
        let normed = &mut normed[..n * config.hidden];
        let qkv = &mut wide[..n * config.qkv_rows()];
        let norm = |row, y: &mut _| layer.attention_norm.token(isa, x, row, y);
        let updates = Updates::find(chunks, segments, rows, (index, LinearRole::Qkv), lora);
        let mut context = Context { isa, activations: *activations, quantized, ordered, updates };
        let projection = layer.attention.first();
        projection.forward_filled(&mut context, normed, norm, Output::Store, qkv);
        show(options, segments, HookPoint::Input(index, LinearRole::Qkv), normed, rows.clone());
    }

    /// Rotates queries and keys of the first projection.
    fn grouped(&mut self, index: usize, head_norms: &Option<[Norm; 2]>, rows: Range<usize>) {
        let Self { config, rotation, workspace, isa, .. } = self;
        let Workspace { queries, angles, wide, .. } = &mut **workspace;
        let (n, isa) = (rows.len(), *isa);
        let qkv = &mut wide[..n * config.qkv_rows()];
        let (size, width) = (config.head_size, config.query_width());
        let per_token = crate::network::rope::angles_per_token(config);
        let [queries_at, keys, values] = config.heads_at();
        let queries = &SharedRows::new(rows_mut(queries, &rows, width), width);
        for_each_row(qkv, config.qkv_rows(), |row, qkv| {
            let angles = &angles[(rows.start + row) * per_token..][..per_token];
            // SAFETY: each row is used by one task only.
            let query = unsafe { queries.row(row, 0..width) };
            for (head, query) in query.chunks_exact_mut(size).enumerate() {
                let projected = &qkv[queries_at.at(head)..][..size];
                match head_norms {
                    Some([norm, _]) => norm.token(isa, projected, 0, query),
                    None => query.copy_from_slice(projected),
                }
                rotation.rotate(angles, query);
            }
            for head in 0..config.kv_heads {
                let key = &mut qkv[keys.at(head)..][..size];
                if let Some([_, norm]) = head_norms {
                    norm.in_place(isa, key);
                }
                rotation.rotate(angles, key);
            }
        });
        self.store(index, rows, keys, values);
    }

    /// Stores the keys and values of `rows` that are in [`Workspace::wide`], `[rows, qkv rows]`.
    pub(super) fn store(&mut self, index: usize, rows: Range<usize>, keys: Heads, values: Heads) {
        let Self { config, chunks, workspace, isa, .. } = self;
        let Workspace { wide, segments, .. } = &**workspace;
        let width = config.qkv_rows();
        for segment in segments.iter().filter_map(|segment| segment.within(&rows)) {
            let sequence = &mut *chunks[segment.chunk].sequence;
            let qkv = &wide[(segment.row - rows.start) * width..][..segment.count * width];
            let heads = HeadRows { rows: qkv, width, keys, values };
            sequence.cache.store(*isa, index, sequence.positions() + segment.token, heads);
        }
    }

    /// `x = r(x, a) + output(attention)`
    pub(super) fn attend(&mut self, index: usize, layer: &Layer<Linear, Norm>, rows: Range<usize>) {
        self.attention(index, layer, rows.clone());
        self.attention_output(index, layer, rows);
    }

    /// Writes the attention of `rows` to the first rows of [`Workspace::wide`], `[rows, attention width]`.
    pub(super) fn attention(
        &mut self,
        index: usize,
        layer: &Layer<Linear, Norm>,
        rows: Range<usize>,
    ) {
        let Self { config, chunks, workspace, isa, .. } = self;
        let Workspace { queries, wide, partials, segments, placements, .. } = &mut **workspace;
        let (width, out_width) = (config.query_width(), config.heads * kv::value_size(config));
        let attended = &mut wide[..rows.len() * out_width];
        for segment in segments.iter().filter_map(|segment| segment.within(&rows)) {
            let (placement, token) = position(chunks, placements, &segment);
            let prefix = chunks[segment.chunk].sequence.prefix();
            let of = Queries {
                queries: &queries[segment.row * width..][..segment.count * width],
                heads: config.heads,
                scale: config.score_scale(),
                position: prefix + token,
                mask: placement.mask(prefix),
            };
            let out = &mut attended[(segment.row - rows.start) * out_width..];
            let out = &mut out[..segment.count * out_width];
            chunks[segment.chunk].sequence.cache.attend(*isa, index, of, partials, out);
        }
        if let Attention::Latent(latent) = &layer.attention {
            self.latent_values(latent, rows.len());
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
        let output = layer.attention.output();
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
