//! The instruction sets of this CPU, and the choice of one.

use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "aarch64")]
use crate::simd::neon::{dotprod::Dotprod, i8mm::I8mm, plain::Plain};
use crate::simd::scalar::Scalar;
#[cfg(target_arch = "x86_64")]
use crate::simd::x86::{avx_vnni::AvxVnni, avx2::Avx2, avx512::Avx512};
use crate::simd::{Kernel, PairKernel};

/// The environment variable that forces an instruction set by name.
pub const ISA_VARIABLE: &str = "GLM_ISA";

/// An instruction set of this CPU. A value proves that the CPU has it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust.
    Scalar(Scalar),
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX2 with AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// NEON.
    #[cfg(target_arch = "aarch64")]
    Neon(Plain),
    /// NEON with dot products.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(Dotprod),
    /// NEON with dot products and 8-bit matrix products.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm(I8mm),
}

/// A name that is not that of an instruction set of this CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownIsa(String);

impl Isa {
    /// All instruction sets of this CPU, the slowest first.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut all = vec![Isa::Scalar(Scalar)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::detect().map(Isa::Avx2));
            all.extend(AvxVnni::detect().map(Isa::AvxVnni));
            all.extend(Avx512::detect().map(Isa::Avx512));
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.extend(Plain::detect().map(Isa::Neon));
            all.extend(Dotprod::detect().map(Isa::NeonDotprod));
            all.extend(I8mm::detect().map(Isa::NeonI8mm));
        }
        all
    }

    /// The fastest instruction set of this CPU, or the one named by `GLM_ISA`.
    ///
    /// # Errors
    /// If `GLM_ISA` names one that this CPU lacks; the message lists those present.
    pub fn choose() -> Result<Isa, UnknownIsa> {
        match std::env::var_os(ISA_VARIABLE) {
            Some(name) if !name.is_empty() => name.to_string_lossy().parse(),
            _ => Ok(Isa::available().pop().unwrap_or(Isa::Scalar(Scalar))),
        }
    }

    /// Its name, as `GLM_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(_) => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(_) => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(_) => "neon-i8mm",
        }
    }

    /// Each kernel and the instructions that it uses.
    pub fn kernels(self) -> [(&'static str, &'static str); 7] {
        [
            ("INT4 and INT8 weights, 8-bit activations", self.products()),
            ("weights of any kind, f32 activations", self.vectors()),
            ("attention", self.pairs()),
            ("norms", self.vectors()),
            ("activation functions", self.vectors()),
            ("quantizing activations", self.vectors()),
            ("rotation of positions", "plain Rust"),
        ]
    }

    /// The instructions for products of 8-bit integers.
    fn products(self) -> &'static str {
        match self {
            Isa::Scalar(_) => "plain Rust",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "vpmaddubsw, 256 bits",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(_) => "vpdpbusd, 256 bits",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "vpdpbusd, 512 bits",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) => "smlal, 128 bits",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(_) => "sdot, 128 bits",
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(_) => "smmla (one token: sdot), 128 bits",
        }
    }

    /// The instructions for floats.
    fn vectors(self) -> &'static str {
        match self {
            Isa::Scalar(_) => "plain Rust",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) | Isa::AvxVnni(_) | Isa::Avx512(_) => "AVX2, FMA and F16C, 256 bits",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(_) | Isa::NeonDotprod(_) | Isa::NeonI8mm(_) => "NEON, 128 bits",
        }
    }

    /// The instructions for pairs of vectors.
    fn pairs(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "AVX-512, 512 bits (softmax: 256)",
            _ => self.vectors(),
        }
    }

    /// Runs a kernel compiled for these instructions.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Scalar(simd) => kernel.run(simd),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => simd.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(simd) => simd.avx2().run(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => simd.avx2().run(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(simd) => simd.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(simd) => simd.plain().run(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(simd) => simd.plain().run(kernel),
        }
    }

    /// Runs a kernel of pairs compiled for these instructions.
    #[inline]
    pub fn run_pairs<K: PairKernel>(self, kernel: K) -> K::Output {
        match self {
            Isa::Scalar(simd) => kernel.run(simd),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(simd) => simd.run_pairs(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(simd) if K::INTEGERS => simd.run_pairs(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(simd) => simd.avx2().run_pairs(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(simd) => simd.run_pairs(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon(simd) => simd.run_pairs(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(simd) if K::INTEGERS => simd.run_pairs(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod(simd) => simd.plain().run_pairs(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(simd) if K::INTEGERS => simd.run_pairs(kernel),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm(simd) => simd.plain().run_pairs(kernel),
        }
    }
}

impl FromStr for Isa {
    type Err = UnknownIsa;
    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        let found = Isa::available().into_iter().find(|isa| isa.name() == name);
        found.ok_or_else(|| UnknownIsa(name.to_owned()))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        write!(
            f,
            "{ISA_VARIABLE}={}: not an instruction set of this CPU, which has {}",
            self.0,
            present.join(", ")
        )
    }
}

impl std::error::Error for UnknownIsa {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_list_those_present() {
        for isa in Isa::available() {
            assert_eq!(isa.name().parse::<Isa>().map(Isa::name), Ok(isa.name()));
        }
        let message = "altivec".parse::<Isa>().map(Isa::name).unwrap_err().to_string();
        assert!(message.contains("altivec") && message.contains("scalar"), "{message}");
    }

    /// CI emulates CPUs, each for one instruction set; this checks that it is chosen.
    #[test]
    fn the_expected_one_is_chosen() {
        match std::env::var("GLM_EXPECT_ISA") {
            Ok(expected) => assert_eq!(Isa::choose().map(Isa::name), Ok(&expected[..])),
            Err(_) => println!("none is expected"),
        }
    }
}
