//! Named tensors → layers.
//!
//! `names.rs` has a table of names for each dialect, and nothing else knows them. With the sizes of a [`Config`] a table becomes
//! a [`Map`]: every tensor the model has, against which a checkpoint is checked before anything is loaded or written.

use std::collections::BTreeSet;

use glm_kernels::Activation;
use half::{bf16, f16};

use crate::error::Result;
use crate::files::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::files::config::{self, Config, Mlp};
use crate::network::layer::{Block, Linear, Norm, Weight, Weights};

mod map;
mod names;
mod stored;

use map::{BlockMap, LinearMap};
pub(crate) use map::{Map, Source};
pub(crate) use stored::{
    GROUP_KEY, LAYOUT_KEY, LAYOUT_NAME, Stored, group_value, panel_shape, scale_name, scale_shape,
};

/// Types of weights that are not quantised.
const PLAIN: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

impl Map {
    /// Checks that `checkpoint` holds these tensors, with these shapes, and no others.
    ///
    /// # Errors
    /// At the first tensor that is missing, misshapen, of a type that is not read, or superfluous.
    fn check(&self, checkpoint: &Checkpoint, config: &Config) -> Result<()> {
        let mut known = BTreeSet::new();
        let mut numbers = Vec::new();
        for source in self.sources() {
            let tensors = if source.is_vector {
                vector_pieces(checkpoint, source)?
            } else {
                let stored = Stored::find(checkpoint, source)?;
                known.extend(stored.scales().iter().map(|tensor| tensor.name()));
                stored.tensors()
            };
            known.extend(tensors.iter().map(|tensor| tensor.name()));
            known.extend(source.copies.iter().map(String::as_str));
            numbers.extend(tensors);
        }
        self.check_apart(numbers)?;
        let is_known = |name: &str| known.contains(name) || name.ends_with(self.ignored);
        match checkpoint.names().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => {
                let Config { architecture, layers, .. } = config;
                Err(checkpoint.tensor(name)?.error(format!(
                    "is no part of {architecture} with the {layers} layers that config.json says"
                )))
            }
        }
    }

    /// Checks that no two tensors share bytes, but for embedding and head, which may: many tensors made of the same bytes would
    /// take many times the memory of the file.
    fn check_apart(&self, tensors: Vec<&Tensor>) -> Result<()> {
        let mut ranges: Vec<_> =
            tensors.into_iter().map(|tensor| (tensor.bytes().as_ptr_range(), tensor)).collect();
        ranges.sort_by_key(|(range, _)| range.start);
        let is_table = |tensor: &Tensor| {
            [Some(&self.embedding), self.head.as_ref()]
                .into_iter()
                .flatten()
                .any(|t| t.name == tensor.name())
        };
        for pair in ranges.windows(2) {
            let [(first, a), (second, b)] = pair else { continue };
            let may_share = first == second && is_table(a) && is_table(b);
            if second.start < first.end && !may_share {
                return Err(b.error(format!("shares its bytes with {}", a.name())));
            }
        }
        Ok(())
    }

    /// Bytes of all matrices as they are stored, without scales.
    ///
    /// # Errors
    /// As [`Map::check`].
    pub(crate) fn matrix_bytes(&self, checkpoint: &Checkpoint) -> Result<u64> {
        let matrices = self.sources().filter(|source| !source.is_vector);
        matrices.map(|source| Ok(stored_bytes(&Stored::find(checkpoint, source)?))).sum()
    }

    /// The head, if it is plain, the same as the embedding and config.json lets it be left out: it need not be stored twice.
    pub(crate) fn duplicate(&self, config: &Config, checkpoint: &Checkpoint) -> Option<&Source> {
        let source = self.head.as_ref()?;
        let [head, embedding] = [source, &self.embedding].map(|table| checkpoint.get(&table.name));
        let (head, embedding) = (head?, embedding?);
        let plain = checkpoint.get(&scale_name(head.name())).is_none();
        let same = head.dtype() == embedding.dtype() && head.bytes() == embedding.bytes();
        (config.tied_head && plain && same).then_some(source)
    }
}

fn stored_bytes(stored: &Stored<'_>) -> u64 {
    stored.tensors().iter().map(|tensor| tensor.bytes().len() as u64).sum()
}

/// The tensors that a vector is made of, checked.
fn vector_pieces<'a>(checkpoint: &'a Checkpoint, source: &Source) -> Result<Vec<&'a Tensor>> {
    for name in &source.copies {
        checkpoint.tensor(name)?.expect(&PLAIN, &[source.rows])?;
    }
    let whole = [source.whole()];
    let pieces = if checkpoint.get(&source.name).is_some() { &whole[..] } else { &source.pieces };
    let mut tensors = Vec::new();
    for piece in pieces {
        let tensor = checkpoint.tensor(&piece.name)?;
        tensor.expect(&PLAIN, &[piece.height])?;
        tensors.push(tensor);
    }
    tensors.dedup_by_key(|tensor| tensor.name());
    Ok(tensors)
}

/// The numbers of a vector, from all its pieces.
///
/// # Errors
/// If a piece is missing or misshapen.
pub(crate) fn vector(checkpoint: &Checkpoint, source: &Source) -> Result<Vec<f32>> {
    if let [tensor] = vector_pieces(checkpoint, source)?[..]
        && tensor.shape() == [source.rows]
    {
        return Ok(widen(tensor));
    }
    let mut out = vec![0.0; source.rows];
    for piece in &source.pieces {
        let values = widen(checkpoint.tensor(&piece.name)?);
        out[piece.rows.clone()].copy_from_slice(&values[piece.first..][..piece.rows.len()]);
    }
    Ok(out)
}

/// Takes tensors out of a checkpoint that was checked against a map.
pub(crate) struct Loader<'a> {
    pub(crate) config: &'a Config,
    pub(crate) checkpoint: &'a Checkpoint,
    /// Called after each matrix with the bytes of the checkpoint that are done.
    pub(crate) progress: &'a mut (dyn FnMut(u64) + Send),
    pub(crate) done: u64,
}

impl Loader<'_> {
    /// All layers.
    pub(crate) fn load(&mut self, map: &Map) -> Result<Weights> {
        let embedding = self.matrix(&map.embedding)?;
        let positions = match &map.positions {
            Some([first, second]) => Some([self.matrix(first)?, self.matrix(second)?]),
            None => None,
        };
        let blocks = map.blocks.iter().enumerate().map(|(index, block)| self.block(index, block));
        let blocks = blocks.collect::<Result<_>>()?;
        let head = match &map.head {
            Some(head) => self.matrix(head)?,
            None => embedding.clone(),
        };
        let final_norm = self.norm(&map.final_norm)?;
        Ok(Weights { embedding, positions, blocks, final_norm, head: head.into() })
    }

    fn block(&mut self, index: usize, map: &BlockMap) -> Result<Block> {
        let activation = match self.config.mlp {
            Mlp::GeluTanh => Activation::GeluTanh,
            Mlp::GeluErf => Activation::GeluErf,
            Mlp::SwiGlu | Mlp::GeGlu => Activation::None,
        };
        let output_norm =
            |norm: &Option<LinearMap>| norm.as_ref().map(|norm| self.norm(norm)).transpose();
        Ok(Block {
            index,
            attention_norm: self.norm(&map.attention_norm)?,
            dense_norm: output_norm(&map.dense_norm)?,
            mlp_norm: self.norm(&map.mlp_norm)?,
            down_norm: output_norm(&map.down_norm)?,
            qkv: self.linear(&map.qkv, Activation::None)?,
            dense: self.linear(&map.dense, Activation::None)?,
            up: self.linear(&map.up, activation)?,
            down: self.linear(&map.down, Activation::None)?,
        })
    }

    fn linear(&mut self, map: &LinearMap, activation: Activation) -> Result<Linear> {
        let weight = self.matrix(&map.weight)?;
        let bias = map.bias.as_ref().map(|bias| vector(self.checkpoint, bias)).transpose()?;
        Ok(Linear { weight, bias, activation })
    }

    fn matrix(&mut self, source: &Source) -> Result<Weight> {
        let stored = Stored::find(self.checkpoint, source)?;
        let weight = stored.load()?;
        self.done += stored_bytes(&stored);
        (self.progress)(self.done);
        Ok(weight)
    }

    fn norm(&self, map: &LinearMap) -> Result<Norm> {
        let (config::Norm::Layer { eps } | config::Norm::Rms { eps }) = self.config.norm;
        let weight = vector(self.checkpoint, &map.weight)?;
        let bias = map.bias.as_ref().map(|bias| vector(self.checkpoint, bias)).transpose()?;
        Ok(Norm { weight, bias, eps })
    }
}

/// The numbers of a plain tensor as `f32`.
fn widen(tensor: &Tensor) -> Vec<f32> {
    let mut out = vec![0.0; tensor.bytes().len() / tensor.dtype().size()];
    widen_into(tensor.dtype(), tensor.bytes(), &mut out);
    out
}

/// Widens little-endian F32, F16 or BF16 numbers, as many as `out` holds, at any alignment.
fn widen_into(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    let halves = bytes.as_chunks::<2>().0;
    match dtype {
        Dtype::F32 => {
            let words = bytes.as_chunks::<4>().0;
            out.iter_mut().zip(words).for_each(|(o, b)| *o = f32::from_le_bytes(*b));
        }
        Dtype::F16 => {
            out.iter_mut().zip(halves).for_each(|(o, b)| *o = f16::from_le_bytes(*b).to_f32());
        }
        Dtype::BF16 => {
            out.iter_mut().zip(halves).for_each(|(o, b)| *o = bf16::from_le_bytes(*b).to_f32());
        }
        other => unreachable!("{other} was refused when the manifest was checked"),
    }
}
