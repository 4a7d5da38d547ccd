//! The limits of the machine, to compare kernels with: memory bandwidth and multiply-add throughput.

use std::hint::black_box;

use crate::Isa;
use crate::parallel::for_each;
use crate::simd::{Kernel, PairKernel, Simd, Vectors};

/// Bytes of a task.
const TASK_BYTES: usize = 256 << 10;

/// Reads all of `bytes` once, on all threads, with as little other work as possible.
pub fn read(isa: Isa, bytes: &[u8]) {
    for_each(bytes.len().div_ceil(TASK_BYTES), |task| {
        let end = ((task + 1) * TASK_BYTES).min(bytes.len());
        black_box(isa.run(Read(&bytes[task * TASK_BYTES..end])));
    });
}

struct Read<'a>(&'a [u8]);

impl Kernel for Read<'_> {
    type Output = u64;

    #[inline(always)]
    fn run<S: Vectors>(self, _: S) -> u64 {
        let mut sums = [0u64; 16];
        for chunk in self.0.as_chunks::<128>().0 {
            for (sum, word) in sums.iter_mut().zip(chunk.as_chunks::<8>().0) {
                *sum ^= u64::from_le_bytes(*word);
            }
        }
        sums.iter().fold(0, |all, sum| all ^ sum)
    }
}

/// Runs `threads` tasks of `rounds` rounds of multiply-adds of 8-bit integers in registers; returns the number of multiply-adds,
/// at most `u64::MAX`.
pub fn multiply_adds(isa: Isa, threads: usize, rounds: usize) -> u64 {
    for_each(threads, |_| {
        isa.run_pairs(Multiply(rounds));
    });
    let all = (threads as u64).saturating_mul(rounds as u64);
    all.saturating_mul(isa.run_pairs(Multiply(1)))
}

struct Multiply(usize);

impl PairKernel for Multiply {
    /// Multiply-adds of a round.
    type Output = u64;
    const INTEGERS: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u64 {
        simd.multiply_adds(self.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probes_work() {
        for isa in Isa::available() {
            read(isa, &[1; 1000]);
            assert!(multiply_adds(isa, 3, 10) >= 30, "{isa}");
        }
    }
}
