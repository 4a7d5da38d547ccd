//! Named tensors → layers.
//!
//! `names.rs` has a table of names for each dialect, and nothing else knows them. With the sizes of a [`Config`] a table becomes
//! a [`Map`]: every tensor the model has, against which a checkpoint is checked before anything is loaded or written.

use std::collections::BTreeSet;

use glm_kernels::Activation;
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::files::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::files::config::{self, Config, Mlp};
use crate::network::layer::{Convert, Linear, LinearRole, Norm, Weight, Weights};

mod map;
mod names;
mod stored;

use map::{LinearSource, NormSource};
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
            let head = self.network.head.iter().map(|head| &head.weight);
            head.chain([&self.network.embedding]).any(|table| table.name == tensor.name())
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
        let source = &self.network.head.as_ref()?.weight;
        let [head, embedding] =
            [source, &self.network.embedding].map(|table| checkpoint.get(&table.name));
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
    /// All weights.
    pub(crate) fn load(&mut self, map: &Map) -> Result<Weights> {
        map.network.try_map(self)
    }

    fn matrix(&mut self, source: &Source) -> Result<Weight> {
        let stored = Stored::find(self.checkpoint, source)?;
        let weight = stored.load()?;
        self.done += stored_bytes(&stored);
        (self.progress)(self.done);
        Ok(weight)
    }

    fn bias(&self, source: Option<&Source>) -> Result<Option<Vec<f32>>> {
        source.map(|source| vector(self.checkpoint, source)).transpose()
    }
}

impl<'a> Convert<'a, Source, LinearSource, NormSource> for Loader<'_> {
    type Table = Weight;
    type Linear = Linear;
    type Norm = Norm;
    type Error = Error;

    fn table(&mut self, table: &'a Source) -> Result<Weight> {
        self.matrix(table)
    }

    fn linear(&mut self, role: LinearRole, linear: &'a LinearSource) -> Result<Linear> {
        let activation = match (role, self.config.mlp) {
            (LinearRole::Up, Mlp::GeluTanh) => Activation::GeluTanh,
            (LinearRole::Up, Mlp::GeluErf) => Activation::GeluErf,
            _ => Activation::None,
        };
        let weight = self.matrix(&linear.weight)?;
        Ok(Linear { weight, bias: self.bias(linear.bias.as_ref())?, activation })
    }

    fn norm(&mut self, norm: &'a NormSource) -> Result<Norm> {
        let (config::Norm::Layer { eps } | config::Norm::Rms { eps }) = self.config.norm;
        let weight = vector(self.checkpoint, &norm.weight)?;
        Ok(Norm { weight, bias: self.bias(norm.bias.as_ref())?, eps })
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
