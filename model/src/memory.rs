//! Memory whose size a file, a flag or a request decides. Where it cannot be allocated, that is an error, and does not end the process.
//!
//! `what` names the tensor, the file or the work that needs it.

use std::fmt::Display;

use bytemuck::Zeroable;
use bytemuck::allocation::try_zeroed_vec;

use crate::error::{Error, Result};

/// `n` zeros. The operating system gives their memory on the first access.
pub(crate) fn zeros<T: Zeroable>(n: usize, what: impl Display) -> Result<Vec<T>> {
    try_zeroed_vec(n).map_err(|()| no_room::<T>(n, what))
}

/// An empty vector with room for `n` elements.
pub(crate) fn room<T>(n: usize, what: impl Display) -> Result<Vec<T>> {
    let mut room = Vec::new();
    room.try_reserve_exact(n).map_err(|_| no_room::<T>(n, what))?;
    Ok(room)
}

/// A copy of `values`.
pub(crate) fn copy<T: Copy>(values: &[T], what: impl Display) -> Result<Vec<T>> {
    let mut copy = room(values.len(), what)?;
    copy.extend_from_slice(values);
    Ok(copy)
}

/// A copy of a text.
pub(crate) fn copy_text(text: &str, what: impl Display) -> Result<String> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len()).map_err(|_| no_room::<u8>(text.len(), what))?;
    copy.push_str(text);
    Ok(copy)
}

/// Gives `values` room for `more` elements behind its own.
pub(crate) fn reserve<T>(values: &mut Vec<T>, more: usize, what: impl Display) -> Result<()> {
    values
        .try_reserve_exact(more)
        .map_err(|_| no_room::<T>(values.len().saturating_add(more), what))
}

fn no_room<T>(n: usize, what: impl Display) -> Error {
    no_memory((n as u64).saturating_mul(size_of::<T>() as u64), what)
}

/// The error for `bytes` that cannot be allocated.
pub(crate) fn no_memory(bytes: u64, what: impl Display) -> Error {
    Error::OutOfMemory { what: what.to_string(), bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_allocated_is_an_error_that_names_it() {
        let n = usize::MAX / 8;
        for error in [
            zeros::<u8>(n, "layers.0.weight").unwrap_err(),
            room::<u8>(n, "layers.0.weight").unwrap_err(),
            reserve(&mut Vec::<u8>::new(), n, "layers.0.weight").unwrap_err(),
            zeros::<u64>(usize::MAX, "layers.0.weight").unwrap_err(),
        ] {
            let error = error.to_string();
            assert!(error.starts_with("layers.0.weight: "), "{error}");
            assert!(error.ends_with(" TB of memory cannot be allocated"), "{error}");
        }
        assert_eq!(copy(&[1, 2], "x").unwrap(), [1, 2]);
        assert_eq!(copy_text("ab", "x").unwrap(), "ab");
    }
}
