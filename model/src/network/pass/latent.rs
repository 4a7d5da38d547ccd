//! Latent attention: queries that are compared with latent vectors, and values from the sum of them.
//!
//! The published definition computes a key and a value of every head from each latent vector `l`, with the matrices `K` and `V` of the head.
//! A score is `q·(K·l) = (Kᵀ·q)·l`, and an output is `Σ p·(V·l) = V·Σ p·l`. So `Kᵀ` is applied to the query and `V` to the output, for
//! prompts as for answers: a token must have the same bits in both.

use std::ops::Range;

use glm_kernels::{Heads, Matrix, Output, for_each_row};

use super::{Pass, rows_mut, show};
use crate::files::config::Latent;
use crate::network::hook::HookPoint;
use crate::network::kv;
use crate::network::layer::{Context, LatentAttention, Linear, LinearRole, Norm};
use crate::network::lora::Updates;
use crate::network::workspace::{LatentScratch, Workspace};

impl Pass<'_, '_, '_> {
    /// Writes the queries of `rows` to the workspace, and the latent vectors and rotated parts of the keys to the caches. The first
    /// projection is in [`Workspace::wide`].
    pub(super) fn latent(
        &mut self,
        index: usize,
        latent: &LatentAttention<Linear, Norm>,
        rows: Range<usize>,
    ) {
        let Some(sizes) = self.config.latent else { return };
        self.project_queries(index, latent, &rows);
        self.rotate_parts(&sizes, latent, &rows);
        let first = self.config.query_rows();
        let key = Heads { first, stride: self.config.head_size };
        self.store(index, rows.clone(), key, key);
        self.compare_with_latent(&sizes, latent, &rows);
    }

    /// Writes the queries to [`LatentScratch::queries`], `[rows, heads, query size]`.
    fn project_queries(
        &mut self,
        index: usize,
        latent: &LatentAttention<Linear, Norm>,
        rows: &Range<usize>,
    ) {
        let Self { config, chunks, workspace, options, isa, activations, .. } = self;
        let Workspace { wide, latent: scratch, quantized, ordered, lora, segments, .. } =
            &mut **workspace;
        let LatentScratch { normed, queries, .. } = scratch;
        let (n, isa, width, query_rows) =
            (rows.len(), *isa, config.qkv_rows(), config.query_rows());
        let projected = |row: usize| &wide[row * width..][..query_rows];
        let Some(query) = &latent.query else {
            return for_each_row(&mut queries[..n * query_rows], query_rows, |row, query| {
                query.copy_from_slice(projected(row));
            });
        };
        let normed = &mut normed[..n * query_rows];
        let norm = |row, y: &mut _| query.norm.token(isa, projected(row), 0, y);
        let place = (index, LinearRole::QueryUp);
        let updates = Updates::find(chunks, segments, rows, place, lora);
        let mut context = Context { isa, activations: *activations, quantized, ordered, updates };
        let queries = &mut queries[..n * query.up.weight.rows()];
        query.up.forward_filled(&mut context, normed, norm, Output::Store, queries);
        show(options, segments, HookPoint::Input(index, place.1), normed, rows.clone());
    }

    /// The inputs of the second projection of the queries of `n` rows, `[rows, query rank]`. The first projection is in [`Workspace::wide`].
    pub(super) fn query_inputs(
        &mut self,
        latent: &LatentAttention<Linear, Norm>,
        n: usize,
    ) -> &[f32] {
        let Self { config, workspace, isa, .. } = self;
        let Workspace { wide, latent: scratch, .. } = &mut **workspace;
        let Some(query) = &latent.query else { return &[] };
        let (width, rank) = (config.qkv_rows(), config.query_rows());
        let normed = &mut scratch.normed[..n * rank];
        for_each_row(normed, rank, |row, y| {
            query.norm.token(*isa, &wide[row * width..][..rank], 0, y);
        });
        normed
    }

    /// Normalizes the latent vectors, and rotates the parts of queries and keys that are rotated.
    fn rotate_parts(
        &mut self,
        sizes: &Latent,
        latent: &LatentAttention<Linear, Norm>,
        rows: &Range<usize>,
    ) {
        let Self { config, rotation, workspace, isa, .. } = self;
        let Workspace { wide, angles, latent: scratch, .. } = &mut **workspace;
        let per_token = crate::network::rope::angles_per_token(config);
        let angles = |row: usize| &angles[(rows.start + row) * per_token..][..per_token];
        let (n, query_rows, size) = (rows.len(), config.query_rows(), sizes.query_dim());
        for_each_row(&mut wide[..n * config.qkv_rows()], config.qkv_rows(), |row, projected| {
            let (vector, key) = projected[query_rows..].split_at_mut(sizes.rank);
            latent.norm.in_place(*isa, vector);
            rotation.rotate(angles(row), key);
        });
        let width = config.heads * size;
        for_each_row(&mut scratch.queries[..n * width], width, |row, queries| {
            for query in queries.chunks_exact_mut(size) {
                rotation.rotate(angles(row), &mut query[sizes.plain_dim..]);
            }
        });
    }

    /// Writes what is compared with the cached keys to [`Workspace::queries`]: of each head `Kᵀ·q` and the rotated part.
    fn compare_with_latent(
        &mut self,
        sizes: &Latent,
        latent: &LatentAttention<Linear, Norm>,
        rows: &Range<usize>,
    ) {
        let (config, n) = (self.config, rows.len());
        let &Latent { rank, plain_dim, .. } = sizes;
        let (heads, size, width) = (config.heads, sizes.query_dim(), config.query_width());
        self.per_head(&latent.key_up, n, rank, |scratch, _, row, x| {
            let (head, token) = (row / n, row % n);
            x.copy_from_slice(&scratch[(token * heads + head) * size..][..plain_dim]);
        });
        let Workspace { queries, latent: scratch, .. } = &mut *self.workspace;
        for_each_row(rows_mut(queries, rows, width), width, |token, to| {
            let queries = scratch.queries[token * heads * size..].chunks_exact(size);
            for (head, (to, query)) in
                to.chunks_exact_mut(config.head_size).zip(queries).enumerate()
            {
                let (vector, rotated) = to.split_at_mut(rank);
                vector.copy_from_slice(&scratch.outputs[(head * n + token) * rank..][..rank]);
                rotated.copy_from_slice(&query[plain_dim..]);
            }
        });
    }

    /// Replaces the sums of latent vectors of `n` rows in [`Workspace::wide`], `[rows, heads, at least rank]`, by the outputs of the heads, `[rows, heads,
    /// value size]`.
    pub(super) fn latent_values(&mut self, latent: &LatentAttention<Linear, Norm>, n: usize) {
        let Some(Latent { rank, value_dim, .. }) = self.config.latent else { return };
        let (heads, size) = (self.config.heads, kv::value_size(self.config));
        self.per_head(&latent.value_up, n, value_dim, |_, wide, row, x| {
            let (head, token) = (row / n, row % n);
            x.copy_from_slice(&wide[(token * heads + head) * size..][..rank]);
        });
        let Workspace { wide, latent: scratch, .. } = &mut *self.workspace;
        let width = heads * value_dim;
        for_each_row(&mut wide[..n * width], width, |token, to| {
            for (head, to) in to.chunks_exact_mut(value_dim).enumerate() {
                to.copy_from_slice(&scratch.outputs[(head * n + token) * value_dim..][..value_dim]);
            }
        });
    }

    /// Applies the matrix of each head, `outputs` rows of `matrix`, to `n` vectors of the head. `fill` gets [`LatentScratch::queries`],
    /// [`Workspace::wide`], the number of the vector, `head · n + token`, and writes it. The results are in [`LatentScratch::outputs`],
    /// `[heads, n, outputs]`.
    fn per_head(
        &mut self,
        matrix: &Linear,
        n: usize,
        outputs: usize,
        fill: impl Fn(&[f32], &[f32], usize, &mut [f32]) + Sync,
    ) {
        let Self { config, workspace, isa, activations, .. } = self;
        let Workspace { wide, latent: scratch, quantized, ordered, .. } = &mut **workspace;
        let LatentScratch { queries, inputs, outputs: results, .. } = scratch;
        let mut context =
            Context { isa: *isa, activations: *activations, quantized, ordered, updates: None };
        let (heads, matrix) = (config.heads, matrix.weight.matrix());
        let of_head = |head: usize| -> (Matrix<'_>, usize) {
            (matrix.row_range(head * outputs..(head + 1) * outputs), head)
        };
        let layers: Vec<_> = (0..heads).map(of_head).collect();
        let inputs = &mut inputs[..heads * n * matrix.cols()];
        let results = &mut results[..heads * n * outputs];
        let fill = |row: usize, x: &mut [f32]| fill(queries, wide, row, x);
        let are_alike = Linear::are_alike([matrix].into_iter());
        let sections = vec![n; heads];
        Linear::forward_each(&mut context, are_alike, &layers, &sections, inputs, fill, results);
    }
}
