//! What the machine can do at best, to measure kernels against: how fast memory is read, and how fast products are summed.

use std::hint::black_box;

use crate::Isa;
use crate::parallel::for_each;
use crate::simd::{Kernel, PairKernel, Simd, Vectors};

/// Bytes that a thread takes at a time.
const TASK_BYTES: usize = 256 << 10;

/// Reads all of `bytes` once, on the threads that there are, and does next to nothing with them.
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

/// Sums products of 8-bit integers that are in registers, on every thread of `threads`; returns how many.
pub fn multiply_adds(isa: Isa, threads: usize, rounds: usize) -> u64 {
    for_each(threads, |_| {
        isa.run_pairs(Multiply(rounds));
    });
    (threads * rounds) as u64 * isa.run_pairs(Multiply(1))
}

struct Multiply(usize);

impl PairKernel for Multiply {
    /// Multiply-adds of a round.
    type Output = u64;

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
