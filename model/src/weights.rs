//! Named tensors → layers.
//!
//! A file under `weights/` knows the names of one architecture, and nothing else does. It lists every tensor the model
//! has, in a [`Manifest`] against which a checkpoint is checked before anything is loaded or written, and builds the layers.

use std::collections::BTreeMap;

use glm_kernels::Activation;
use half::{bf16, f16};

use crate::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::config::{self, Config};
use crate::error::Result;
use crate::layer::{Linear, Norm, Weight};

pub(crate) mod chatglm;
mod stored;

pub(crate) use stored::{
    GROUP_KEY, LAYOUT_KEY, LAYOUT_NAME, Stored, group_value, panel_shape, scale_name, scale_shape,
};

/// What a tensor is to the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `[rows, cols]`, stored in any way that [`Stored`] knows.
    Matrix(usize, usize),
    /// So many F32, F16 or BF16.
    Vector(usize),
}

/// Every tensor of a model, by name.
pub(crate) struct Manifest {
    pub(crate) tensors: BTreeMap<String, Kind>,
    /// The end of the names of tensors that published files hold and no model reads.
    pub(crate) ignored: &'static str,
    /// Matrices that may be the same bytes in a file: the embedding and a head tied to it.
    pub(crate) shareable: [&'static str; 2],
}

impl Manifest {
    /// Checks that `checkpoint` holds these tensors, with these shapes, and no others.
    ///
    /// # Errors
    /// At the first tensor that is missing, misshapen, of a type that is not read, or superfluous.
    pub(crate) fn check(&self, checkpoint: &Checkpoint, config: &Config) -> Result<()> {
        let mut scales = Vec::new();
        for (name, &kind) in &self.tensors {
            match kind {
                Kind::Matrix(rows, cols) => {
                    if Stored::find(checkpoint, name, rows, cols)?.is_quantised() {
                        scales.push(scale_name(name));
                    }
                }
                Kind::Vector(n) => {
                    let dtypes = [Dtype::F32, Dtype::F16, Dtype::BF16];
                    checkpoint.tensor(name)?.expect(&dtypes, &[n])?;
                }
            }
        }
        self.check_apart(checkpoint)?;
        let known = |name: &str| {
            self.tensors.contains_key(name)
                || name.ends_with(self.ignored)
                || scales.iter().any(|scale| scale == name)
        };
        match checkpoint.names().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => {
                let Config { architecture, layers, .. } = config;
                Err(checkpoint.tensor(name)?.error(format!(
                    "is no part of {architecture} with the {layers} layers that config.json says"
                )))
            }
        }
    }

    /// Checks that no two tensors share bytes, but for matrices that may: many tensors made of the same bytes would take
    /// many times the memory of the file.
    fn check_apart(&self, checkpoint: &Checkpoint) -> Result<()> {
        let tensors = self.tensors.keys().filter_map(|name| checkpoint.get(name));
        let mut ranges: Vec<_> = tensors.map(|t| (t.bytes().as_ptr_range(), t)).collect();
        ranges.sort_by_key(|(range, _)| range.start);
        for pair in ranges.windows(2) {
            let [(first, a), (second, b)] = pair else { continue };
            let may_share =
                first == second && [a, b].iter().all(|t| self.shareable.contains(&t.name()));
            if second.start < first.end && !may_share {
                return Err(b.error(format!("shares its bytes with {}", a.name())));
            }
        }
        Ok(())
    }

    /// Bytes of all matrices as they are stored, without scales.
    pub(crate) fn matrix_bytes(&self, checkpoint: &Checkpoint) -> u64 {
        let matrices = self.tensors.iter().filter(|(_, kind)| matches!(kind, Kind::Matrix(..)));
        let tensors = matrices.filter_map(|(name, _)| checkpoint.get(name));
        tensors.map(|tensor| tensor.bytes().len() as u64).sum()
    }
}

/// Takes tensors out of a checkpoint, by names from a manifest that was checked.
pub(crate) struct Loader<'a> {
    pub(crate) checkpoint: &'a Checkpoint,
    /// Called after each matrix with the bytes of the checkpoint that are done.
    pub(crate) progress: &'a mut (dyn FnMut(u64) + Send),
    pub(crate) done: u64,
    /// Bytes of matrices that were brought into the kernels' layout in memory.
    pub(crate) repacked: u64,
}

impl Loader<'_> {
    /// A linear layer: `name.weight` of `rows` × `cols` and `name.bias`.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        (rows, cols): (usize, usize),
        activation: Activation,
    ) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), rows, cols)?;
        let bias = Some(self.vector(&format!("{name}.bias"))?);
        Ok(Linear { weight, bias, activation })
    }

    /// A matrix of `rows` × `cols`.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let stored = Stored::find(self.checkpoint, name, rows, cols)?;
        let weight = stored.load()?;
        if stored.needs_repacking() {
            self.repacked += weight.bytes();
        }
        self.done += stored.tensor().bytes().len() as u64;
        (self.progress)(self.done);
        Ok(weight)
    }

    /// A norm.
    pub(crate) fn norm(&self, name: &str, config: &Config) -> Result<Norm> {
        let config::Norm::Layer { eps } = config.norm;
        let weight = self.vector(&format!("{name}.weight"))?;
        let bias = self.vector(&format!("{name}.bias"))?;
        Ok(Norm { weight, bias, eps })
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>> {
        Ok(widen(self.checkpoint.tensor(name)?))
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
