//! Quantization with data: the integers of each matrix are chosen for the inputs that it has for a text.

mod moments;
mod rounding;

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use faer::Par;
use glm_kernels::quantize::{pack_panel, pack_scales};
use glm_kernels::{Bits, Isa, LANES, Shape, parallel_region};
use half::f16;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::files::checkpoint::Checkpoint;
use crate::files::config::Config;
use crate::files::weights::{self, StoredMatrix, StoredNetwork, resolve};
use crate::network::activations::Activations;
use crate::network::chunk::Chunk;
use crate::network::hook::RunOptions;
use crate::network::kv::{KvFormat, KvPool};
use crate::network::layer::{Attention, FeedForward, LinearRole, Weight, Weights};
use crate::network::pass::{Pass, Stage};
use crate::network::placement::Placement;
use crate::network::rope::Rotation;
use crate::network::sequence::Sequence;
use crate::network::workspace::{TILE, Workspace};
use moments::Moments;

pub(crate) type Packed = HashMap<String, (Vec<u8>, Vec<f16>)>;

struct Calibration<'a> {
    config: &'a Config,
    weights: Weights,
    rotation: Rotation,
    isa: Isa,
    workspace: Workspace,
    pool: KvPool,
    windows: &'a [Vec<u32>],
    states: Vec<Vec<f32>>,
    group: usize,
    bits: Bits,
}

/// Rounds all linear layers of `source`.
pub(crate) fn calibrate(
    network: &StoredNetwork,
    config: &Config,
    windows: &[Vec<u32>],
    bits: Bits,
    group: usize,
) -> Result<Packed> {
    let weights = weights::load(network, config, &mut |_, _| {})?;
    let env = |name: &str, default: f32| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let longest = windows.iter().map(Vec::len).max().unwrap_or(1);
    let mut workspace = Workspace::new(0, config, TILE)?;
    workspace.fit_rows(config, longest)?;
    let kv = KvPool::new(config, KvFormat::F32, None)?;
    let mut calibration = Calibration {
        config,
        rotation: Rotation::new(config),
        weights,
        isa: Isa::choose().map_err(|error| Error::Isa(error.to_string()))?,
        workspace,
        pool: kv,
        windows,
        states: windows.iter().map(|ids| vec![0.0; ids.len() * config.hidden]).collect(),
        group,
        bits,
    };
    let mut packed = Packed::new();
    calibration.stage(None, &mut |_| {})?;
    for index in 0..config.layers {
        let started = Instant::now();
        for role in [LinearRole::Qkv, LinearRole::AttentionOutput, LinearRole::Up, LinearRole::Down] {
            let stored = network.layers[index].linears().find(|(r, _)| *r == role).map(|(_, l)| &l.weight);
            let Some(stored) = stored else { continue };
            let mut moments = Moments::new(stored.size()[1]);
            calibration.stage(Some((index, Stage::Input(role))), &mut |x| moments.add(x, Par::rayon(0)))?;
            let shape = Shape::grouped(stored.size()[0], stored.size()[1], bits, group);
            let (bytes, scales, loss) = calibration.round(stored, &shape, &moments, env("DAMP", 0.01))?;
            eprintln!("{index} {role:?} {loss:.4} {:.1}", started.elapsed().as_secs_f64());
            let weight = Weight::panels(shape, bytes.clone().into(), &bytemuck::cast_slice::<f16, u8>(&scales).to_vec().into());
            let layer = &mut calibration.weights.layers[index];
            let Attention::Grouped { qkv, output } = &mut layer.attention;
            let FeedForward::Dense { up, down } = &mut layer.feed_forward;
            let linear = match role {
                LinearRole::Qkv => qkv,
                LinearRole::AttentionOutput => output,
                LinearRole::Up => up,
                _ => down,
            };
            linear.weight = weight;
            packed.insert(stored.name.clone(), (bytes, scales));
        }
        calibration.stage(Some((index, Stage::FeedForward)), &mut |_| {})?;
    }
    let head = network.head.as_ref().map_or(&network.embedding, |head| &head.weight);
    let mut moments = Moments::new(config.hidden);
    let mut normed = vec![0.0; longest * config.hidden];
    for states in &calibration.states {
        let normed = &mut normed[..states.len()];
        calibration.weights.final_norm.forward(calibration.isa, states, normed);
        moments.add(normed, Par::rayon(0));
    }
    let shape = Shape::grouped(head.size()[0], head.size()[1], bits, group);
    let (bytes, scales, loss) = calibration.round(head, &shape, &moments, env("DAMP", 0.01))?;
    eprintln!("head {loss}");
    packed.insert(head.name.clone(), (bytes, scales));
    Ok(packed)
}

impl Calibration<'_> {
    fn stage(&mut self, stage: Option<(usize, Stage)>, see: &mut (dyn FnMut(&[f32]) + Send)) -> Result<()> {
        let mut seen: Vec<f32> = Vec::new();
        for (ids, states) in self.windows.iter().zip(&mut self.states) {
            let mut sequence = Sequence::new(0, &self.pool, ids.len());
            sequence.reserve(ids.len())?;
            let mut chunks = [Chunk::none(&mut sequence, ids)];
            self.workspace.placements.clear();
            self.workspace.placements.push(Placement::of(ids, self.config.mask, &self.config.special)?);
            let mut pass = Pass {
                config: self.config,
                weights: &self.weights,
                rotation: &self.rotation,
                isa: self.isa,
                activations: if std::env::var_os("ACT32").is_some() { Activations::F32 } else { Activations::Int8 },
                chunks: &mut chunks,
                workspace: &mut self.workspace,
                options: RunOptions::default(),
            };
            seen.clear();
            parallel_region(|| match stage {
                None => pass.embeddings(states),
                Some((index, stage)) => pass.stage(index, stage, states, &mut |x| seen.extend_from_slice(x)),
            });
            see(&seen);
        }
        Ok(())
    }

    fn round(
        &self,
        stored: &StoredMatrix,
        shape: &Shape,
        moments: &Moments,
        damping: f32,
    ) -> Result<(Vec<u8>, Vec<f16>, f64)> {
        let [rows, cols] = stored.size();
        let diagonal = moments.diagonal();
        let mut order: Vec<usize> = (0..cols).collect();
        if std::env::var_os("ORDER").is_some() {
            let groups = cols.div_ceil(self.group);
            let sum = |g: usize| -> f32 { diagonal[g * self.group..((g + 1) * self.group).min(cols)].iter().sum() };
            let mut by: Vec<usize> = (0..groups).collect();
            by.sort_by(|&a, &b| sum(a).total_cmp(&sum(b)));
            order = by
                .into_iter()
                .flat_map(|g| {
                    let mut cols: Vec<usize> = (g * self.group..((g + 1) * self.group).min(cols)).collect();
                    cols.sort_by(|&a, &b| diagonal[a].total_cmp(&diagonal[b]));
                    cols
                })
                .collect();
        }
        let factor = moments.factor(&order, damping, Par::rayon(0))?;
        let original = stored.values();
        let mut weights = vec![0.0; rows * cols];
        weights.par_chunks_mut(cols).zip(original.par_chunks(cols)).for_each(|(to, from)| {
            to.iter_mut().zip(&order).for_each(|(to, &col)| *to = from[col]);
        });
        let rounded = rounding::round(self.isa, shape, &weights, &factor);
        let groups = shape.groups();
        let mut integers = vec![0; rows * cols];
        let mut row_scales = vec![f16::ZERO; rows * groups];
        for row in 0..rows {
            for (m, &col) in order.iter().enumerate() {
                integers[row * cols + col] = rounded.integers[row * cols + m];
                row_scales[row * groups + col / self.group] = rounded.scales[row * groups + m / self.group];
            }
        }
        let rounded = rounding::Rounded { integers, scales: row_scales, loss: rounded.loss };
        let mut bytes = vec![0; shape.bytes()];
        let mut scales = vec![f16::ZERO; shape.scales()];
        bytes
            .par_chunks_mut(shape.panel_bytes())
            .zip(scales.par_chunks_mut(groups * LANES))
            .enumerate()
            .for_each(|(panel, (bytes, scales))| {
                let rows = panel * LANES..((panel + 1) * LANES).min(rows);
                pack_panel(shape, &rounded.integers[rows.start * cols..rows.end * cols], bytes);
                pack_scales(groups, &rounded.scales[rows.start * groups..rows.end * groups], scales);
            });
        Ok((bytes, scales, rounded.loss))
    }
}

/// The text as windows.
pub(crate) fn windows(text: &str, tokenizer: &crate::Tokenizer, tokens: usize, count: usize) -> Result<Vec<Vec<u32>>> {
    let ids = tokenizer.encode_as_text(text)?;
    let step = (ids.len() / count).max(tokens);
    Ok(ids.chunks(step).filter(|c| c.len() >= tokens).take(count).map(|c| [&tokenizer.special().before, &c[..tokens]].concat()).collect())
}

#[allow(dead_code)]
fn unused(_: &Path, _: &Checkpoint) {
    let _ = resolve;
}
