//! The order of columns whose groups are not adjacent.

use std::sync::Arc;

use crate::error::Result;
use crate::files::checkpoint::{Dtype, Tensor};
use crate::memory::{room, zeros};

/// The input of each column of a stored matrix: a permutation.
pub(crate) type Order = Arc<[u32]>;

/// The order that makes groups adjacent, by the tensor that has the group of each column; columns of a group keep theirs. `None` if they
/// are adjacent already. What is 0 everywhere, or −1, says nothing: some programs write it where columns are in order, and a file that is
/// not complete yet has zeros.
///
/// # Errors
/// If the tensor does not have `groups` equal groups of `cols` columns.
pub(super) fn of_groups(index: &Tensor, cols: usize, groups: usize) -> Result<Option<Order>> {
    let index_of = integers(index, cols)?;
    if index_of.iter().all(|&group| group == 0) || index_of.iter().all(|&group| group == -1) {
        return Ok(None);
    }
    let size = cols / groups;
    let mut order = zeros(cols, index.name())?;
    let mut filled = zeros::<usize>(groups, index.name())?;
    for (col, &group) in index_of.iter().enumerate() {
        let Some((number, filled)) = usize::try_from(group)
            .ok()
            .and_then(|number| filled.get_mut(number).map(|filled| (number, filled)))
        else {
            let problem = format!("[{col}] is {group}, and there are {groups} groups");
            return Err(index.error(problem));
        };
        if *filled == size {
            let problem = format!("group {group} has more than {size} of {cols} columns");
            return Err(index.error(problem));
        }
        order[number * size + *filled] = col as u32;
        *filled += 1;
    }
    // No group has too many columns, so each has all of its own.
    let is_sorted = order.iter().enumerate().all(|(place, &col)| place as u32 == col);
    Ok((!is_sorted).then(|| order.into()))
}

/// The order that a file in the kernels' layout has for a matrix.
///
/// # Errors
/// If the tensor is no permutation of `cols` columns.
pub(crate) fn stored(tensor: &Tensor, cols: usize) -> Result<Order> {
    let mut seen = zeros::<bool>(cols, tensor.name())?;
    let order = integers(tensor, cols)?;
    for &col in &order {
        let is_new = usize::try_from(col).ok().and_then(|col| seen.get_mut(col));
        match is_new {
            Some(seen) if !*seen => *seen = true,
            _ => {
                let problem = format!("is no order of {cols} columns: {col} is twice or too large");
                return Err(tensor.error(problem));
            }
        }
    }
    Ok(order.into_iter().map(|col| col as u32).collect())
}

fn integers(tensor: &Tensor, cols: usize) -> Result<Vec<i32>> {
    tensor.expect(&[Dtype::I32, Dtype::I64], &[cols])?;
    let bytes = tensor.bytes();
    let mut integers = room(cols, tensor.name())?;
    match tensor.dtype() {
        Dtype::I32 => {
            integers.extend(bytes.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)));
        }
        _ => {
            let words = bytes.as_chunks().0.iter().map(|word| i64::from_le_bytes(*word));
            integers.extend(words.map(|word| i32::try_from(word).unwrap_or(i32::MAX)));
        }
    }
    Ok(integers)
}
