//! Weights of four or eight bits in words of 32: the files of GPTQ, AWQ, AutoRound and compressed-tensors.
//!
//! In place of `X.weight`, a linear layer has these tensors. `n` values are in a word, the first in the lowest bits.
//!
//! | layout | integers | zero points | scales | group of each column |
//! |---|---|---|---|---|
//! | GPTQ | `qweight` `[cols / n, rows]` | `qzeros` `[groups, rows / n]` | `scales` `[groups, rows]` | `g_idx` `[cols]` |
//! | AWQ | `qweight` `[cols, rows / n]` | `qzeros` `[groups, rows / n]` | `scales` `[groups, rows]` | |
//! | compressed-tensors | `weight_packed` `[rows, cols / n]` | `weight_zero_point` `[rows / n, groups]` | `weight_scale` `[rows, groups]` | `weight_g_idx` `[cols]` |
//!
//! `weight = scale · (integer − zero point)`, with integers from 0. What differs:
//!
//! * GPTQ stores its zero points less one, unless `checkpoint_format`, or `format` in newer files, is `gptq_v2`, and so does AutoRound,
//!   unless its packing says otherwise. The one was taken from whole words, where a zero
//!   point of 0 borrows from the next. So it is added to whole words.
//! * AWQ has the values 0, 2, 4, 6, 1, 3, 5 and 7 of eight in a word.
//! * compressed-tensors has no zero points where weights are symmetric. Older files have them as bytes, less 8.
//!
//! The kernels hold integers and zero points exactly. Scales are `F16`: `BF16` is exact from 2⁻¹⁷ to 65504, and `F32` is rounded.
//!
//! With `desc_act` or `actorder`, the columns of a group are not adjacent. The matrix then has its columns in the
//! [order](order::of_groups) of the groups, and the layer reads its inputs in that order.
//!
//! Source: the packing code of AutoGPTQ, GPTQModel, AutoAWQ, auto-round and compressed-tensors.

mod order;
mod packing;
#[cfg(test)]
mod tests;
mod words;

use glm_kernels::{BLOCK, Bits, GroupForm, Shape};
use half::f16;

use crate::error::Result;
use crate::files::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::memory::{room, zeros};
pub(crate) use order::{Order, stored as stored_order};
pub(crate) use packing::{METADATA as PACKING_METADATA, Packing};
use words::{Axis, Words};

/// How the tensors of a layer are called and laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    Gptq,
    Awq,
    CompressedTensors,
}

/// The tensors of one layout.
struct Names {
    integers: &'static str,
    zeros: &'static str,
    scales: &'static str,
    /// The group of each column.
    groups: Option<&'static str>,
    /// Rows and columns.
    shape: Option<&'static str>,
    /// Whether columns are the first axis of the integers, and groups that of the scales and zero points.
    transposed: bool,
    /// The axes along which values share a word: of the integers and of the zero points.
    packed: [Axis; 2],
    interleaved: bool,
}

const GPTQ: Names = Names {
    integers: ".qweight",
    zeros: ".qzeros",
    scales: ".scales",
    groups: Some(".g_idx"),
    shape: None,
    transposed: true,
    packed: [Axis::First, Axis::Second],
    interleaved: false,
};

const AWQ: Names =
    Names { groups: None, packed: [Axis::Second, Axis::Second], interleaved: true, ..GPTQ };

const COMPRESSED_TENSORS: Names = Names {
    integers: ".weight_packed",
    zeros: ".weight_zero_point",
    scales: ".weight_scale",
    groups: Some(".weight_g_idx"),
    shape: Some(".weight_shape"),
    transposed: false,
    packed: [Axis::Second, Axis::First],
    interleaved: false,
};

impl Layout {
    fn names(self) -> &'static Names {
        match self {
            Self::Gptq => &GPTQ,
            Self::Awq => &AWQ,
            Self::CompressedTensors => &COMPRESSED_TENSORS,
        }
    }
}

/// The packed integers of a layer, if a checkpoint has them, in whatever layout.
pub(crate) fn integers_of<'c>(checkpoint: &'c Checkpoint, layer: &str) -> Option<&'c Tensor> {
    let names = [GPTQ.integers, COMPRESSED_TENSORS.integers];
    names.iter().find_map(|end| checkpoint.get(&format!("{layer}{end}")))
}

/// A packed matrix in a checkpoint, its types and shapes checked.
pub(crate) struct PackedMatrix {
    integers: Words,
    zeros: Option<Zeros>,
    scales: Tensor,
    /// Tensors that only say how the others are to be read.
    others: Vec<Tensor>,
    rows: usize,
    cols: usize,
    groups: usize,
    form: GroupForm,
    transposed: bool,
    order: Option<Order>,
}

enum Zeros {
    Words(Words),
    /// Signed bytes, `[rows, groups]`.
    Bytes(Tensor),
}

impl PackedMatrix {
    /// Finds the matrix of a layer; `None` if the layer is not packed.
    ///
    /// # Errors
    /// If a tensor is missing, or of another type or shape than the others.
    pub(crate) fn find(
        checkpoint: &Checkpoint,
        layer: &str,
        [rows, cols]: [usize; 2],
        packing: &Packing,
    ) -> Result<Option<Self>> {
        let names = packing.layout.names();
        let part = |name: &str| format!("{layer}{name}");
        let Some(integers) = checkpoint.get(&part(names.integers)) else { return Ok(None) };
        let [of_integers, of_zeros] = names.packed;
        let axes = if names.transposed { [cols, rows] } else { [rows, cols] };
        let bits = match words::shape(axes, of_integers, Bits::Eight) == integers.shape() {
            true => Bits::Eight,
            false => Bits::Four,
        };
        let integers = Words::find(integers, axes, of_integers, bits, names.interleaved)?;
        let scales = checkpoint.tensor(&part(names.scales))?;
        let axes = |groups| if names.transposed { [groups, rows] } else { [rows, groups] };
        let groups = scales.shape().get(usize::from(!names.transposed)).copied().unwrap_or(0);
        scales.expect(&[Dtype::F16, Dtype::BF16, Dtype::F32], &axes(groups))?;
        let is_whole = groups > 0 && cols.is_multiple_of(groups);
        if !is_whole || groups > 1 && !(cols / groups).is_multiple_of(BLOCK) {
            return Err(scales.error(format!(
                "has {groups} groups of {cols} columns: only groups of a multiple of {BLOCK} columns that divide all are supported"
            )));
        }
        if let Some(size) = packing.group
            && size > 0
            && !cols.is_multiple_of(size)
            && groups > 1
            && groups == cols.div_ceil(size)
        {
            return Err(scales.error(format!(
                "has groups of {size} of {cols} columns: a last group with fewer columns is not supported"
            )));
        }
        let zeros = match checkpoint.get(&part(names.zeros)) {
            None if packing.layout == Layout::CompressedTensors => None,
            Some(bytes) if bytes.dtype() == Dtype::I8 && !names.transposed => {
                bytes.expect(&[Dtype::I8], &[rows, groups])?;
                Some(Zeros::Bytes(bytes.clone()))
            }
            _ => {
                let zeros = checkpoint.tensor(&part(names.zeros))?;
                let axes = axes(groups);
                let zeros = Words::find(zeros, axes, of_zeros, bits, names.interleaved)?;
                Some(Zeros::Words(zeros.plus(u32::from(packing.less_one))))
            }
        };
        let form = match (&zeros, bits) {
            (Some(_), Bits::Four) if !packing.symmetric => GroupForm::ZeroPoint,
            _ => GroupForm::Scale,
        };
        let mut others = Vec::new();
        if let Some(name) = names.shape {
            let shape = checkpoint.tensor(&part(name))?;
            check_shape(shape, [rows, cols])?;
            others.push(shape.clone());
        }
        let index = names.groups.and_then(|name| checkpoint.get(&part(name)));
        let order = index.map(|index| order::of_groups(index, cols, groups)).transpose()?.flatten();
        others.extend(index.cloned());
        let (scales, transposed) = (scales.clone(), names.transposed);
        let found =
            Self { integers, zeros, scales, others, rows, cols, groups, form, transposed, order };
        Ok(Some(found))
    }

    /// The tensor with the integers.
    pub(crate) fn tensor(&self) -> &Tensor {
        self.integers.tensor()
    }

    /// All tensors but the one with the integers.
    pub(crate) fn companions(&self) -> impl Iterator<Item = &Tensor> {
        let zeros = self.zeros.as_ref().map(|zeros| match zeros {
            Zeros::Words(words) => words.tensor(),
            Zeros::Bytes(bytes) => bytes,
        });
        [&self.scales].into_iter().chain(zeros).chain(&self.others)
    }

    /// The order of its columns, if that of the file is another.
    pub(crate) fn order(&self) -> Option<&Order> {
        self.order.as_ref()
    }

    /// The kernel shape of a matrix of `rows` rows like these.
    pub(crate) fn shape(&self, rows: usize) -> Shape {
        let bits = self.integers.bits();
        let shape = match self.groups {
            1 => Shape::per_row(rows, self.cols, bits),
            groups => Shape::grouped(rows, self.cols, bits, self.cols / groups),
        };
        shape.with_form(self.form)
    }

    /// The zero point of integers around 0.
    fn middle(&self) -> u8 {
        match self.integers.bits() {
            Bits::Four => 8,
            Bits::Eight => 128,
        }
    }

    /// The zero points of a row, one for each group.
    fn zero_points(&self, row: usize) -> Result<Vec<u8>> {
        let mut values = zeros(self.groups, self.tensor().name())?;
        values.fill(self.middle());
        match &self.zeros {
            None => {}
            Some(Zeros::Words(words)) => {
                let axis = if self.transposed { Axis::Second } else { Axis::First };
                words.line(axis, row, &mut values)?;
            }
            Some(Zeros::Bytes(bytes)) => {
                let bytes = &bytes.bytes()[row * self.groups..][..self.groups];
                values.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = byte ^ 0x80);
                let less = 128 - self.middle();
                values.iter_mut().for_each(|value| *value = value.saturating_sub(less));
            }
        }
        Ok(values)
    }

    /// The scales of a row, one for each group.
    fn row_scales(&self, row: usize) -> Result<Vec<f16>> {
        let size = self.scales.dtype().size();
        let scale = |group: usize| {
            let at =
                if self.transposed { group * self.rows + row } else { row * self.groups + group };
            let mut scale = [0.0];
            let bytes = &self.scales.bytes()[at * size..][..size];
            crate::files::weights::widen_into(self.scales.dtype(), bytes, &mut scale);
            f16::from_f32(scale[0])
        };
        let mut scales = room(self.groups, self.scales.name())?;
        scales.extend((0..self.groups).map(scale));
        Ok(scales)
    }

    /// The integers of `count` rows from `first` on, one row after the other, in the order of the file. Several at once cost little more
    /// than one where they share words.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(crate) fn rows(&self, first: usize, count: usize) -> Result<Vec<u8>> {
        let mut values = zeros(count * self.cols, self.tensor().name())?;
        let axis = if self.transposed { Axis::Second } else { Axis::First };
        self.integers.lines(axis, first, self.cols, &mut values)?;
        Ok(values)
    }

    /// Writes the integers of a row, `values` of [`rows`](Self::rows), in their [order](Self::order), and the numbers of its groups in
    /// `form`: that of its shape, or zero points for a matrix that needs none.
    ///
    /// # Errors
    /// If a scale is not finite, or a zero point is not what the form says.
    pub(crate) fn pack(
        &self,
        row: usize,
        values: &[u8],
        form: GroupForm,
        integers: &mut [i8],
        numbers: &mut [f16],
    ) -> Result<()> {
        let middle = self.middle();
        let signed = |value: u8| value.wrapping_sub(middle) as i8;
        match &self.order {
            None => integers.iter_mut().zip(values).for_each(|(to, &from)| *to = signed(from)),
            Some(order) => {
                let places = integers.iter_mut().zip(order.iter());
                places.for_each(|(to, &from)| *to = signed(values[from as usize]));
            }
        }
        let groups = self.row_scales(row)?.into_iter().zip(self.zero_points(row)?);
        let numbers = numbers.chunks_exact_mut(form.numbers());
        for (group, ((scale, zero), numbers)) in groups.zip(numbers).enumerate() {
            if !scale.is_finite() {
                let problem = format!("the scale of row {row}, group {group} is not finite in F16");
                return Err(self.scales.error(problem));
            }
            numbers[0] = scale;
            match numbers.get_mut(1) {
                Some(number) => *number = -f16::from_f32(f32::from(zero)),
                None if zero != middle => {
                    return Err(self.asymmetric(row, group, zero));
                }
                None => {}
            }
        }
        Ok(())
    }

    fn asymmetric(&self, row: usize, group: usize, zero: u8) -> crate::Error {
        let tensor = self.companions().nth(1).unwrap_or(&self.scales);
        let middle = self.middle();
        tensor.error(match self.integers.bits() {
            Bits::Four => format!(
                "the zero point of row {row}, group {group} is {zero}, and config.json says that weights are symmetric: then it is {middle}"
            ),
            Bits::Eight => format!(
                "the zero point of row {row}, group {group} is {zero}: with eight bits, only symmetric weights are supported, where it is {middle}"
            ),
        })
    }

    /// Writes the weights of a row, in the order of the file.
    ///
    /// # Errors
    /// If the memory cannot be allocated.
    pub(crate) fn widen(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let (values, scales) = (self.rows(row, 1)?, self.row_scales(row)?);
        let zeros = self.zero_points(row)?;
        let size = self.cols / self.groups;
        for place in 0..self.cols {
            let col = self.order.as_ref().map_or(place, |order| order[place] as usize);
            let group = place / size;
            let steps = i16::from(values[col]) - i16::from(zeros[group]);
            out[col] = scales[group].to_f32() * f32::from(steps);
        }
        Ok(())
    }
}

/// Checks the tensor that repeats the shape. It is zero in a file that is not complete yet.
fn check_shape(tensor: &Tensor, size: [usize; 2]) -> Result<()> {
    tensor.expect(&[Dtype::I64, Dtype::I32], &[2])?;
    let mut found = [0; 2];
    match tensor.dtype() {
        Dtype::I32 => {
            let words = tensor.bytes().as_chunks().0.iter();
            found.iter_mut().zip(words).for_each(|(to, b)| *to = i32::from_le_bytes(*b).into());
        }
        _ => {
            let words = tensor.bytes().as_chunks().0.iter();
            found.iter_mut().zip(words).for_each(|(to, b)| *to = i64::from_le_bytes(*b));
        }
    }
    if found == [0; 2] || found == size.map(|n| n as i64) {
        return Ok(());
    }
    Err(tensor.error(format!("says {found:?}, and config.json says {size:?}")))
}
