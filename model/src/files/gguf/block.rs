//! The quantized types of GGUF files: blocks of 32 or 256 values of a row, each with its scales.
//!
//! | type | values of a block | weight |
//! |---|---|---|
//! | Q4_0, Q5_0, Q8_0 | 32 | `d · q`, `q` of 4, 5 or 8 bits around 0 |
//! | Q4_1, Q5_1 | 32 | `d · q + m`, `q` from 0 |
//! | Q4_K, Q5_K | 8 × 32 | `d · s · q − m · t`, with `s` and `t` of 6 bits for each 32 |
//! | Q6_K | 16 × 16 | `d · s · q`, with `s` of 8 bits for each 16 |
//! | IQ4_NL | 32 | `d · level(q)` |
//! | IQ4_XS | 8 × 32 | `d · s · level(q)`, with `s` of 6 bits around 0 |
//!
//! The kernels' groups of 32 columns hold these as follows. What is not exact is rounded once.
//!
//! | type | groups of 32 | exact |
//! |---|---|---|
//! | Q4_0 | INT4 | yes |
//! | Q8_0, Q5_0, IQ4_NL | INT8 | yes |
//! | IQ4_XS | INT8 | but for `d · s` in `f16` |
//! | Q4_1, Q4_K | INT4 with a minimum | but for scale and offset in `f16` |
//! | Q5_1, Q5_K, Q6_K | INT8 | no: quantized again, with a relative RMS of 0.004 to 0.005 |

use std::fmt;

use glm_kernels::{Bits, GroupForm};
use half::f16;

/// A quantized type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are the usual ones")]
#[allow(non_camel_case_types, reason = "the names are the usual ones")]
pub enum BlockType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
}

/// Columns of a group of the kernels.
pub(crate) const GROUP: usize = 32;

/// The values of the indices of IQ4_NL and IQ4_XS.
const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Names of types that are not read, by number.
const OTHERS: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

impl BlockType {
    /// The type of this number in a file.
    ///
    /// # Errors
    /// If it is not read.
    pub(super) fn of(code: u32) -> Result<Self, String> {
        Ok(match code {
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            20 => Self::IQ4_NL,
            23 => Self::IQ4_XS,
            _ => {
                let name = OTHERS.iter().find(|(other, _)| *other == code);
                let shown = name.map_or_else(|| code.to_string(), |(_, name)| (*name).to_owned());
                return Err(format!(
                    "is of type {shown}, which is not supported: use a file in Q4_K_M, Q4_0, Q5_K_M, Q6_K, Q8_0, F16 or BF16"
                ));
            }
        })
    }

    /// Values of a block.
    pub(crate) fn values(self) -> usize {
        match self {
            Self::Q4_K | Self::Q5_K | Self::Q6_K | Self::IQ4_XS => 256,
            _ => GROUP,
        }
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Q4_0 | Self::IQ4_NL => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
            Self::IQ4_XS => 136,
        }
    }

    /// The form of groups of 32 columns that is exact, or exact but for the rounding of scale and offset. `None` if there is none.
    pub(crate) fn form(self) -> Option<(Bits, GroupForm)> {
        match self {
            Self::Q4_0 => Some((Bits::Four, GroupForm::Scale)),
            Self::Q4_1 | Self::Q4_K => Some((Bits::Four, GroupForm::Minimum)),
            Self::Q5_0 | Self::Q8_0 | Self::IQ4_NL | Self::IQ4_XS => {
                Some((Bits::Eight, GroupForm::Scale))
            }
            Self::Q5_1 | Self::Q5_K | Self::Q6_K => None,
        }
    }

    /// Calls `each` with every group of 32 values of a row of whole blocks, in order.
    fn groups(self, row: &[u8], mut each: impl FnMut(Group)) {
        for block in row.chunks_exact(self.bytes()) {
            match self {
                Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::IQ4_NL => {
                    each(self.small(block));
                }
                Self::Q8_0 => {
                    let mut group = Group::new(half(block, 0));
                    group.integers.copy_from_slice(bytemuck::cast_slice(&block[2..]));
                    each(group);
                }
                Self::Q4_K | Self::Q5_K => self.with_minima(block, &mut each),
                Self::Q6_K => six_bits(block, &mut each),
                Self::IQ4_XS => nonlinear(block, &mut each),
            }
        }
    }

    /// A block of 32 values of four bits and, in some types, a fifth.
    fn small(self, block: &[u8]) -> Group {
        let (rest, nibbles) = block.split_at(block.len() - 16);
        let mut group = Group::new(half(rest, 0));
        nibbles_to(nibbles, &mut group.integers);
        match self {
            Self::Q4_0 => group.integers.iter_mut().for_each(|q| *q -= 8),
            Self::IQ4_NL => group.integers.iter_mut().for_each(|q| *q = LEVELS[*q as usize]),
            _ => {}
        }
        if matches!(self, Self::Q4_1 | Self::Q5_1) {
            group.minimum = half(rest, 1);
        }
        if matches!(self, Self::Q5_0 | Self::Q5_1) {
            let fifth = &rest[rest.len() - 4..];
            let least = if self == Self::Q5_0 { 16 } else { 0 };
            for (i, q) in group.integers.iter_mut().enumerate() {
                *q = (*q | ((fifth[i / 8] >> (i % 8) & 1) << 4) as i8) - least;
            }
        }
        group
    }

    /// Q4_K and Q5_K: eight groups.
    fn with_minima(self, block: &[u8], each: &mut impl FnMut(Group)) {
        let [d, dmin] = [half(block, 0), half(block, 1)];
        let packed = &block[4..16];
        let (fifth, nibbles) = block[16..].split_at(if self == Self::Q5_K { 32 } else { 0 });
        for (index, pair) in nibbles.chunks_exact(32).enumerate() {
            for high in 0..2 {
                let place = 2 * index + high;
                let (scale, minimum) = six_bit_pair(packed, place);
                let mut group = Group::new(d * scale);
                group.minimum = -(dmin * minimum);
                for (i, (q, byte)) in group.integers.iter_mut().zip(pair).enumerate() {
                    let fifth = fifth.get(i).map_or(0, |bits| bits >> place & 1);
                    *q = ((byte >> (4 * high) & 15) | fifth << 4) as i8;
                }
                each(group);
            }
        }
    }

    /// Writes the values of a row, exactly as the definition of the type says in `f32`.
    pub(crate) fn widen(self, row: &[u8], out: &mut [f32]) {
        let mut groups = out.chunks_exact_mut(GROUP);
        self.groups(row, |group| {
            let Some(out) = groups.next() else { return };
            for (i, (out, &q)) in out.iter_mut().zip(&group.integers).enumerate() {
                let scale = group.scales[i / (GROUP / 2)];
                let scaled = scale * f32::from(q);
                *out = if group.minimum == 0.0 { scaled } else { scaled + group.minimum };
            }
        });
    }

    /// Whether groups of this shape hold the type as [`form`](Self::form) does.
    pub(crate) fn fits(self, bits: Bits, form: GroupForm) -> bool {
        match (self.form(), bits, form) {
            (Some((Bits::Four, _)), Bits::Four, GroupForm::Minimum) => true,
            (Some((_, GroupForm::Scale)), Bits::Eight, GroupForm::Scale) => true,
            (own, bits, form) => own == Some((bits, form)),
        }
    }

    /// Writes the integers of a row, and for each group of 32 the scale, and the offset if `form` has one. The groups must
    /// [fit](Self::fits).
    pub(crate) fn pack(self, row: &[u8], form: GroupForm, integers: &mut [i8], scales: &mut [f16]) {
        // Where there is a minimum, values begin at 0 and the integers at −8.
        let least = match self.form() {
            Some((_, GroupForm::Minimum)) => 8,
            _ => 0,
        };
        let mut to = integers.chunks_mut(GROUP).zip(scales.chunks_exact_mut(form.numbers()));
        self.groups(row, |group| {
            let Some((integers, scales)) = to.next() else { return };
            let scale = group.scales[0];
            scales[0] = f16::from_f32(scale);
            if let Some(offset) = scales.get_mut(1) {
                // Of the exact scale: then the rounding of the scale counts from the middle of the range and not from its end.
                *offset = f16::from_f32(group.minimum + f32::from(least) * scale);
            }
            integers.iter_mut().zip(&group.integers).for_each(|(to, q)| *to = q - least);
        });
    }
}

impl fmt::Display for BlockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Thirty-two values: `scale · integer + minimum`.
struct Group {
    integers: [i8; GROUP],
    /// That of each half.
    scales: [f32; 2],
    minimum: f32,
}

impl Group {
    fn new(scale: f32) -> Self {
        Self { integers: [0; GROUP], scales: [scale; 2], minimum: 0.0 }
    }
}

/// The `index`-th `f16` of a block.
fn half(block: &[u8], index: usize) -> f32 {
    f16::from_le_bytes([block[2 * index], block[2 * index + 1]]).to_f32()
}

/// The low halves of sixteen bytes, then the high halves.
fn nibbles_to(bytes: &[u8], out: &mut [i8; GROUP]) {
    for (i, byte) in bytes.iter().take(GROUP / 2).enumerate() {
        out[i] = (byte & 15) as i8;
        out[i + GROUP / 2] = (byte >> 4) as i8;
    }
}

/// The scale and the minimum of group `j` among the twelve bytes that Q4_K and Q5_K pack eight of each into: six bits each, of which
/// the last four groups have the upper two in the bytes of the first four.
fn six_bit_pair(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = match j < 4 {
        true => (packed[j] & 63, packed[j + 4] & 63),
        false => (
            packed[j + 4] & 15 | packed[j - 4] >> 2 & 0x30,
            packed[j + 4] >> 4 | packed[j] >> 2 & 0x30,
        ),
    };
    (scale.into(), minimum.into())
}

/// Q6_K: low four bits, upper two bits, a scale for each 16 values, `d`.
fn six_bits(block: &[u8], each: &mut impl FnMut(Group)) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = half(d, 0);
    for index in 0..8 {
        let (part, quarter) = (index / 4, index % 4);
        let low = &low[part * 64 + quarter % 2 * 32..][..32];
        let high = &high[part * 32..][..32];
        let mut group = Group::new(0.0);
        group.scales = [0, 1].map(|half| d * f32::from(scales[2 * index + half] as i8));
        for (i, q) in group.integers.iter_mut().enumerate() {
            let four = low[i] >> (4 * (quarter / 2)) & 15;
            let two = high[i] >> (2 * quarter) & 3;
            *q = (four | two << 4) as i8 - 32;
        }
        each(group);
    }
}

/// IQ4_XS: `d`, the upper two bits of eight scales, the lower four, indices.
fn nonlinear(block: &[u8], each: &mut impl FnMut(Group)) {
    let d = half(block, 0);
    let upper = u16::from_le_bytes([block[2], block[3]]);
    let (lower, indices) = block[4..].split_at(4);
    for (index, bytes) in indices.chunks_exact(16).enumerate() {
        let two = (upper >> (2 * index) & 3) as u8;
        let scale = (lower[index / 2] >> (4 * (index % 2)) & 15 | two << 4) as i8 - 32;
        let mut group = Group::new(d * f32::from(scale));
        nibbles_to(bytes, &mut group.integers);
        group.integers.iter_mut().for_each(|q| *q = LEVELS[*q as usize]);
        each(group);
    }
}

#[cfg(test)]
mod tests {
    use glm_kernels::Shape;
    use glm_kernels::quantize::quantize_row;

    use super::*;
    use crate::files::checkpoint::{Checkpoint, Dtype, Format};

    /// Two rows of random blocks of each type, and the numbers that gguf-py reads from them; see `blocks.py` there.
    const BLOCKS: &[u8] = include_bytes!("../../../tests/models/gguf/blocks.gguf");

    /// Each type with its two rows, and their values.
    fn recorded() -> Vec<(BlockType, Vec<u8>, Vec<f32>)> {
        let checkpoint = Checkpoint::from_bytes(Format::Gguf, BLOCKS).unwrap();
        let tensors = checkpoint.names().map(|name| checkpoint.tensor(name).unwrap());
        let blocks = tensors.filter_map(|tensor| match tensor.dtype() {
            Dtype::Block(block) => Some((block, tensor)),
            _ => None,
        });
        let values = |name: &str| {
            let values = checkpoint.tensor(&format!("{name}.values")).unwrap();
            values.expect(&[Dtype::F32], &[2, 256]).unwrap();
            values.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        let all: Vec<_> = blocks
            .map(|(block, tensor)| {
                assert_eq!(tensor.name(), block.to_string());
                assert_eq!(tensor.shape(), [2, 256]);
                (block, tensor.bytes().to_vec(), values(tensor.name()))
            })
            .collect();
        assert_eq!(all.len(), 10);
        all
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn blocks_have_the_values_that_gguf_py_reads() {
        for (block, bytes, expected) in recorded() {
            let mut values = vec![f32::NAN; 512];
            let rows = bytes.chunks_exact(bytes.len() / 2).zip(values.chunks_exact_mut(256));
            rows.for_each(|(row, values)| block.widen(row, values));
            assert_eq!(bits(&values), bits(&expected), "{block}");
        }
    }

    /// The values of a row in groups, computed as the kernels do it.
    fn unpacked(integers: &[i8], scales: &[f16], form: GroupForm) -> Vec<f32> {
        let numbers = scales.chunks_exact(form.numbers());
        let groups = integers.chunks_exact(GROUP).zip(numbers);
        let value = |q: &i8, numbers: &[f16]| {
            let offset = numbers.get(1).map_or(0.0, |offset| offset.to_f32());
            numbers[0].to_f32() * f32::from(*q) + offset
        };
        groups.flat_map(|(group, numbers)| group.iter().map(move |q| value(q, numbers))).collect()
    }

    #[test]
    fn groups_hold_the_values_exactly_or_but_for_the_rounding_of_scales() {
        for (block, bytes, expected) in recorded() {
            let Some((own_bits, own_form)) = block.form() else { continue };
            for (form_bits, form) in [
                (Bits::Four, GroupForm::Scale),
                (Bits::Four, GroupForm::Minimum),
                (Bits::Eight, GroupForm::Scale),
            ] {
                if !block.fits(form_bits, form) {
                    assert_ne!((own_bits, own_form), (form_bits, form), "{block}");
                    continue;
                }
                let row = &bytes[..bytes.len() / 2];
                let mut integers = [i8::MIN; 256];
                let mut scales = vec![f16::NAN; 8 * form.numbers()];
                block.pack(row, form, &mut integers, &mut scales);
                let values = unpacked(&integers, &scales, form);
                // Relative RMS. Measured: Q4_1 1.6e-4, IQ4_XS 2.6e-4.
                let limit = match block {
                    BlockType::Q4_1 | BlockType::Q4_K | BlockType::IQ4_XS => 4e-4,
                    _ => 0.0,
                };
                let relative = relative_error(&values, &expected[..256]);
                println!("{block} {form:?} {relative:e}");
                assert!(relative <= limit, "{block} {form:?}: {relative:e}");
                let range = if form_bits == Bits::Four { -8..=7 } else { i8::MIN..=i8::MAX };
                assert!(integers.iter().all(|q| range.contains(q)), "{block} {form:?}");
            }
        }
    }

    /// The relative RMS of what is quantized again with eight bits. By the definition: Q5_1 and Q5_K 0.0040, Q6_K 0.0048.
    #[test]
    fn what_fits_in_no_groups_loses_little() {
        for (block, bytes, _) in recorded().into_iter().filter(|(block, ..)| block.form().is_none())
        {
            let shape = Shape::grouped(1, 256, Bits::Eight, GROUP);
            for row in bytes.chunks_exact(bytes.len() / 2) {
                let mut values = [0.0; 256];
                block.widen(row, &mut values);
                let (mut integers, mut scales) = ([0; 256], [f16::ZERO; 8]);
                quantize_row(&shape, &values, &mut integers, &mut scales).unwrap();
                let again = unpacked(&integers, &scales, GroupForm::Scale);
                let relative = relative_error(&again, &values);
                println!("{block} {relative:e}");
                assert!((1e-3..6e-3).contains(&relative), "{block}: {relative:e}");
            }
        }
    }

    fn relative_error(values: &[f32], expected: &[f32]) -> f64 {
        let square = |sum: f64, x: f32| sum + f64::from(x).powi(2);
        let errors = values.iter().zip(expected).map(|(a, b)| a - b);
        (errors.fold(0.0, square) / expected.iter().copied().fold(0.0, square)).sqrt()
    }

    #[test]
    fn what_fits_is_the_smallest_and_what_includes_it() {
        let fits = |block: BlockType| {
            [
                (Bits::Four, GroupForm::Scale),
                (Bits::Four, GroupForm::Minimum),
                (Bits::Eight, GroupForm::Scale),
            ]
            .map(|(bits, form)| block.fits(bits, form))
        };
        assert_eq!(fits(BlockType::Q4_0), [true, true, true]);
        assert_eq!(fits(BlockType::Q4_K), [false, true, false]);
        assert_eq!(fits(BlockType::Q5_0), [false, false, true]);
        assert_eq!(fits(BlockType::Q6_K), [false, false, false]);
    }
}
