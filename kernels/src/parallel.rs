//! Work among the threads of the current rayon pool. Rows are split, sums never: any number of threads gives the same bits.

use std::marker::PhantomData;

use rayon::prelude::*;

/// Calls `task` for every index below `n`, in any order, on the threads of the current pool.
pub(crate) fn for_each(n: usize, task: impl Fn(usize) + Sync + Send) {
    if n <= 1 || rayon::current_num_threads() == 1 {
        (0..n).for_each(task);
    } else {
        (0..n).into_par_iter().for_each(task);
    }
}

/// A row-major matrix of which each worker writes its own elements.
pub(crate) struct SharedRows<'a> {
    start: *mut f32,
    rows: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the only access is `write`, whose caller promises that no element has two writers.
unsafe impl Sync for SharedRows<'_> {}
// SAFETY: as for `Sync`; the pointer is borrowed from a slice that is itself `Send`.
unsafe impl Send for SharedRows<'_> {}

impl<'a> SharedRows<'a> {
    /// `values` as rows of `stride` elements.
    #[track_caller]
    pub(crate) fn new(values: &'a mut [f32], stride: usize) -> Self {
        assert!(stride > 0 && values.len().is_multiple_of(stride));
        let rows = values.len() / stride;
        Self { start: values.as_mut_ptr(), rows, stride, borrow: PhantomData }
    }

    /// Copies `values` to `row`, from column `col` on; panics where that is outside the matrix.
    ///
    /// # Safety
    /// No other thread writes any of these elements while this matrix is shared.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, row: usize, col: usize, values: &[f32]) {
        assert!(row < self.rows && col <= self.stride && values.len() <= self.stride - col);
        // SAFETY: the assertion keeps the range inside the slice; the caller is its only writer.
        unsafe {
            let to = self.start.add(row * self.stride + col);
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
        }
    }
}

/// Work on up to four tokens at a time.
pub(crate) trait Tile {
    /// Does tokens `first..first + T`.
    fn tile<const T: usize>(&mut self, first: usize);
}

/// Hands all of `tokens` to `work`, four at a time and then the rest at once.
#[inline(always)]
pub(crate) fn tiles(tokens: usize, work: &mut impl Tile) {
    let whole = tokens / 4 * 4;
    for first in (0..whole).step_by(4) {
        work.tile::<4>(first);
    }
    match tokens - whole {
        3 => work.tile::<3>(whole),
        2 => work.tile::<2>(whole),
        1 => work.tile::<1>(whole),
        _ => {}
    }
}
