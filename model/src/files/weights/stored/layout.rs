//! Matrices in the kernels' layout, and the metadata of a file that holds them.
//!
//! The metadata name one of three layouts. In `panels-2`, every matrix of eight bits whose columns are a multiple of 32 is rotated, see
//! `glm_kernels::Rotation`. In `panels-1` none is: official INT8 keeps its integers, and old files their meaning. A program that reads
//! only `panels-1` refuses rotated weights. In `panels-3`, which is as `panels-1` otherwise, the second number of a group is a zero point,
//! and a matrix may have `name` with `weight_order`, I32 `[cols]`: the input of each of its columns.

use glm_kernels::{BLOCK, Bits, GroupForm, LANES, Rotation, Shape};

use super::super::map::Source;
use super::Form;
use crate::error::Result;
use crate::files::checkpoint::{Checkpoint, Dtype, Tensor};
use crate::files::packed::stored_order;

/// The metadata key that marks a file in the kernels' layout.
pub(crate) const LAYOUT_KEY: &str = "glm.layout";
/// Its value: the layout and its version.
const LAYOUT_NAME: &str = "panels-1";
/// Its value where the matrices of eight bits are rotated.
const ROTATED_LAYOUT_NAME: &str = "panels-2";
/// Its value where the second number of a group is a zero point, and columns may have an order.
const ORDERED_LAYOUT_NAME: &str = "panels-3";
/// The metadata key for the columns that share a scale, if all matrices agree: a number, or `row`.
const GROUP_KEY: &str = "glm.group";

/// Columns that may share a scale.
pub const GROUPS: [usize; 3] = [32, 64, 128];

/// The name of the scales of a matrix: `….weight` → `….weight_scale`.
pub(crate) fn scale_name(name: &str) -> String {
    format!("{name}_scale")
}

/// The name of the order of the columns of a matrix: `….weight` → `….weight_order`.
pub(crate) fn order_name(name: &str) -> String {
    format!("{name}_order")
}

/// The metadata key for the bits of a weight that were asked for, if the matrices have different formats.
pub(crate) const TARGET_BITS_KEY: &str = "glm.target_bits";

/// What shares a scale in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Groups {
    /// The whole row, or its part of a shard.
    Rows,
    /// As many columns in all matrices.
    Columns(usize),
    /// Different numbers of columns.
    Mixed,
}

/// The metadata of a file in the kernels' layout. Either all of `shapes` that can be rotated are, or none; either all that have two numbers
/// for a group have zero points, or none, and none if some are rotated. `has_order` says whether a matrix has an order of columns.
pub(crate) fn layout_metadata<'a>(
    groups: Groups,
    shapes: impl IntoIterator<Item = &'a Shape> + Clone,
    has_order: bool,
) -> Vec<(&'static str, String)> {
    let group = match groups {
        Groups::Rows => Some(ROW.to_owned()),
        Groups::Columns(group) => Some(group.to_string()),
        Groups::Mixed => None,
    };
    let format = [("format", "glm".to_owned())].into_iter();
    let any = |is: fn(&Shape) -> bool| shapes.clone().into_iter().any(is);
    let layout = match any(|shape| shape.rotation != Rotation::None) {
        true => ROTATED_LAYOUT_NAME,
        false if has_order || any(|shape| shape.form == GroupForm::ZeroPoint) => {
            ORDERED_LAYOUT_NAME
        }
        false => LAYOUT_NAME,
    };
    let layout = [(LAYOUT_KEY, layout.to_owned())];
    format.chain(group.map(|group| (GROUP_KEY, group))).chain(layout).collect()
}

/// The value of [`GROUP_KEY`] for whole rows.
const ROW: &str = "row";

/// Finds a matrix in panels, whose bytes are here.
pub(super) fn panels(checkpoint: &Checkpoint, bytes: &Tensor, source: &Source) -> Result<Form> {
    let (rows, cols) = (source.rows, source.cols);
    let metadata = checkpoint.metadata();
    let layout = metadata.get(LAYOUT_KEY).map(String::as_str);
    let known = [LAYOUT_NAME, ROTATED_LAYOUT_NAME, ORDERED_LAYOUT_NAME];
    if !layout.is_some_and(|layout| known.contains(&layout)) {
        let known = known.map(|name| format!("{name:?}")).join(", ");
        return Err(bytes.error(format!(
            "is quantized in the layout {}, and this version reads {known}: quantize the original again",
            layout.map_or_else(|| "of no name".to_owned(), |layout| format!("{layout:?}"))
        )));
    }
    let bits = match bytes.shape().last() {
        Some(&n) if n == Bits::Eight.block_bytes() => Bits::Eight,
        _ => Bits::Four,
    };
    let scales = checkpoint.tensor(&scale_name(bytes.name()))?;
    let shape = match metadata.get(GROUP_KEY).map(String::as_str) {
        None => shape_of(rows, cols, bits, scales),
        Some(ROW) => equal_groups(rows, cols, bits, scales),
        Some(group) => match group.parse() {
            Ok(group) if GROUPS.contains(&group) => Shape::grouped(rows, cols, bits, group),
            _ => {
                return Err(
                    bytes.error(format!("{GROUP_KEY} must be 32, 64, 128 or row, found {group}"))
                );
            }
        },
    };
    let is_ordered = layout == Some(ORDERED_LAYOUT_NAME);
    let form = match (bits, scales.shape().len()) {
        (Bits::Four, 4) if is_ordered => GroupForm::ZeroPoint,
        (Bits::Four, 4) => GroupForm::Minimum,
        _ => GroupForm::Scale,
    };
    let shape = shape.with_form(form);
    let shape = if layout == Some(ROTATED_LAYOUT_NAME) { shape.rotated() } else { shape };
    bytes.expect(&[Dtype::U8], &panel_shape(&shape))?;
    scales.expect(&[Dtype::F16], &scale_shape(&shape))?;
    let order = checkpoint.get(&order_name(bytes.name())).filter(|_| is_ordered);
    let with_columns =
        |tensor: &Tensor| Ok(Box::new((tensor.clone(), stored_order(tensor, cols)?)));
    let order = order.map(with_columns).transpose()?;
    Ok(Form::Panels { shape, bytes: bytes.clone(), scales: scales.clone(), order })
}

/// The shape that has as many groups in a row as there are scales.
fn shape_of(rows: usize, cols: usize, bits: Bits, scales: &Tensor) -> Shape {
    let mut shapes = GROUPS.map(|group| Shape::grouped(rows, cols, bits, group)).into_iter();
    let fitting = shapes.find(|shape| Some(&shape.groups()) == scales.shape().get(1));
    fitting.unwrap_or_else(|| equal_groups(rows, cols, bits, scales))
}

/// The shape for whole rows: a row has one scale, or one for each shard that it came from.
fn equal_groups(rows: usize, cols: usize, bits: Bits, scales: &Tensor) -> Shape {
    match scales.shape().get(1) {
        Some(&n) if n > 1 && cols.is_multiple_of(n) && (cols / n).is_multiple_of(BLOCK) => {
            Shape::grouped(rows, cols, bits, cols / n)
        }
        _ => Shape::per_row(rows, cols, bits),
    }
}

/// Shape of the tensor that holds a matrix in panels.
pub(crate) fn panel_shape(shape: &Shape) -> [usize; 3] {
    [shape.panels(), shape.cols.div_ceil(BLOCK), shape.bits.block_bytes()]
}

/// Shape of the tensor that holds its scales.
pub(crate) fn scale_shape(shape: &Shape) -> Vec<usize> {
    match shape.form {
        GroupForm::Scale => vec![shape.panels(), shape.groups(), LANES],
        GroupForm::Minimum | GroupForm::ZeroPoint => {
            vec![shape.panels(), shape.groups(), 2, LANES]
        }
    }
}
