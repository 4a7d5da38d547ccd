//! Matrices that tasks write by rows.

use std::marker::PhantomData;
use std::ops::Range;

use super::for_each;

/// A matrix whose elements tasks write concurrently, each task its own.
pub struct SharedRows<'a, T = f32> {
    start: *mut T,
    rows: usize,
    width: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: elements are accessed only through `row`, whose callers promise that no element is accessed twice at a time.
unsafe impl<T: Send> Sync for SharedRows<'_, T> {}
// SAFETY: as for `Sync`; the pointer is borrowed from a slice that is itself `Send`.
unsafe impl<T: Send> Send for SharedRows<'_, T> {}

impl<'a, T> SharedRows<'a, T> {
    /// `values` as rows of `width` elements.
    ///
    /// # Panics
    /// If `width` is 0, or `values` is not a whole number of rows.
    #[track_caller]
    pub fn new(values: &'a mut [T], width: usize) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "rows of {width}");
        let rows = values.len() / width;
        Self { start: values.as_mut_ptr(), rows, width, borrow: PhantomData }
    }

    /// Elements `columns` of row `row`.
    ///
    /// # Panics
    /// If they are outside the matrix.
    ///
    /// # Safety
    /// While they are borrowed, no other borrow includes any of them.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn row(&self, row: usize, columns: Range<usize>) -> &mut [T] {
        let fits = row < self.rows && columns.start <= columns.end && columns.end <= self.width;
        assert!(fits, "elements outside the matrix");
        // SAFETY: the assertion keeps the range inside the slice; the caller promises exclusive access.
        unsafe {
            let start = self.start.add(row * self.width + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        }
    }
}

/// Calls `task` with the index and the elements of every row of `values`, in parallel as [`for_each`] does.
///
/// # Panics
/// If `width` is 0, `values` is not a whole number of rows, or a task panics.
pub fn for_each_row<T: Send>(
    values: &mut [T],
    width: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = SharedRows::new(values, width);
    // SAFETY: each row belongs to one task.
    for_each(rows.rows, |row| task(row, unsafe { rows.row(row, 0..width) }));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_row_reaches_its_task() {
        let mut values = [0; 12];
        for_each_row(&mut values, 3, |row, to| to.fill(row));
        assert_eq!(values, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
        for_each_row(&mut [0; 0], 3, |_, _| unreachable!());
    }
}
