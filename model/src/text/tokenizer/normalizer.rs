//! The normalization of SentencePiece.

use super::trie::Trie;
use crate::limits::tokenizer::{MAX_KEY, MAX_REPLACEMENT};

/// The character for a blank inside pieces.
pub(super) const BLANK: &str = "▁";

/// Normalizes a text: replaces characters by the map of the model (NFKC and more; ChatGLM2 has no map), puts one blank before
/// the text, and writes each blank as `▁`. If the model says so, it also collapses runs of blanks and strips blanks at both
/// ends.
pub(super) struct Normalizer {
    map: CharsMap,
    collapse: bool,
    /// Pieces that are not normalized, such as `<n>`.
    verbatim: Trie,
}

impl Normalizer {
    /// `map` is the `precompiled_charsmap` of the model, and `verbatim` are its user-defined pieces, sorted. `collapse` says
    /// whether superfluous blanks are removed.
    ///
    /// # Errors
    /// If the map is not valid, or the memory cannot be allocated.
    pub(super) fn new(
        map: &[u8],
        verbatim: &[(&str, u32)],
        collapse: bool,
    ) -> Result<Self, String> {
        Ok(Normalizer { map: CharsMap::parse(map)?, collapse, verbatim: Trie::new(verbatim)? })
    }

    /// The length of the longest user-defined piece that is a prefix of `text`.
    pub(super) fn verbatim(&self, text: &str) -> Option<usize> {
        self.verbatim.prefixes(text.as_bytes()).last().map(|(length, _)| length)
    }

    /// The normalized text. `None` if it has more than `most` bytes.
    pub(super) fn normalize(&self, text: &str, most: usize) -> Option<String> {
        let mut out = String::with_capacity(text.len() + text.len() / 4 + BLANK.len());
        let mut after_blank = true;
        let mut rest = text;
        while let Some((mut part, length)) = self.step(rest) {
            rest = &rest[length..];
            if self.collapse && after_blank {
                part = part.trim_start_matches(' ');
            }
            if part.is_empty() {
                continue;
            }
            if out.is_empty() {
                out.push_str(BLANK);
            }
            for c in part.chars() {
                if c == ' ' { out.push_str(BLANK) } else { out.push(c) }
            }
            after_blank = part.ends_with(' ');
            if out.len() > most {
                return None;
            }
        }
        if self.collapse {
            out.truncate(out.trim_end_matches(BLANK).len());
        }
        Some(out)
    }

    /// The replacement of the start of `text`, and the number of bytes that it replaces.
    fn step<'a>(&'a self, text: &'a str) -> Option<(&'a str, usize)> {
        let first = text.chars().next()?;
        if let Some(length) = self.verbatim(text) {
            return Some((&text[..length], length));
        }
        let replaced = self.map.longest(text);
        Some(replaced.unwrap_or((&text[..first.len_utf8()], first.len_utf8())))
    }
}

/// The character map: a Darts-clone double array of keys. The values are offsets into a blob of NUL-terminated replacements.
///
/// A unit has, from the lowest bit: 8 bits of label, 1 bit for whether it has a value, 1 bit for whether the offset counts in
/// steps of 256, and 22 bits of offset. A unit with the highest bit set is a value.
#[derive(Default)]
struct CharsMap {
    units: Vec<u32>,
    replacements: String,
}

impl CharsMap {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Some((size, rest)) = bytes.split_first_chunk() else {
            return if bytes.is_empty() {
                Ok(Self::default())
            } else {
                Err("the character map is cut short".into())
            };
        };
        let size = u32::from_le_bytes(*size) as usize;
        let (units, blob) = rest.split_at_checked(size).ok_or("the character map is cut short")?;
        let replacements =
            std::str::from_utf8(blob).map_err(|_| "the character map is not UTF-8")?.to_owned();
        if replacements.split('\0').any(|r| r.len() > MAX_REPLACEMENT) {
            return Err("a replacement in the character map is too long".into());
        }
        let units =
            units.chunks_exact(4).map(|u| u32::from_le_bytes([u[0], u[1], u[2], u[3]])).collect();
        Ok(CharsMap { units, replacements })
    }

    /// The replacement of the longest key that is a prefix of `text`, and the length of the key.
    ///
    /// SentencePiece uses the longest key as well. It matters where several characters compose to one, such as the three of a
    /// decomposed `ậ`.
    fn longest(&self, text: &str) -> Option<(&str, usize)> {
        const HAS_VALUE: u32 = 1 << 8;
        const IS_VALUE: u32 = 1 << 31;
        let mut place = offset(*self.units.first()?);
        let mut found = None;
        for (i, &byte) in text.as_bytes().iter().take(MAX_KEY).enumerate() {
            place ^= u32::from(byte);
            let Some(&unit) = self.units.get(place as usize) else { break };
            if unit & (IS_VALUE | 0xff) != u32::from(byte) {
                break;
            }
            place ^= offset(unit);
            if unit & HAS_VALUE != 0 {
                found = self.units.get(place as usize).map(|value| (value & !IS_VALUE, i + 1));
            }
        }
        let (start, length) = found?;
        let replacement = self.replacements.get(start as usize..)?;
        // A key of a damaged map may end inside a character.
        text.is_char_boundary(length)
            .then(|| (replacement.split('\0').next().unwrap_or(""), length))
    }
}

fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A map of `A` to `a` and `_` to a blank.
    fn small_map() -> Vec<u8> {
        const FIRST: u32 = 256 << 10;
        let mut units = vec![0_u32; 1024];
        units[0] = FIRST; // the children of the root are at 256 ^ byte
        for (byte, values, replacement) in [(b'A', 512, 0), (b'_', 768, 2)] {
            let place = 256 ^ u32::from(byte);
            units[place as usize] = ((place ^ values) << 10) | (1 << 8) | u32::from(byte);
            units[values as usize] = (1 << 31) | replacement;
        }
        let mut map = (units.len() as u32 * 4).to_le_bytes().to_vec();
        map.extend(units.iter().flat_map(|u| u.to_le_bytes()));
        map.extend(b"a\0 \0");
        map
    }

    fn normalizer(map: &[u8]) -> Normalizer {
        Normalizer::new(map, &[("<A>", 0)], true).expect("a sound map")
    }

    #[test]
    fn blanks_collapse_and_one_comes_in_front() {
        let n = normalizer(&[]);
        assert_eq!(n.normalize("a  b", 100).unwrap(), "▁a▁b");
        assert_eq!(n.normalize("  a ", 100).unwrap(), "▁a");
        assert_eq!(n.normalize("  ", 100).unwrap(), "");
        assert_eq!(n.normalize("", 100).unwrap(), "");
    }

    #[test]
    fn blanks_may_stay_as_they_are() {
        let n = Normalizer::new(&[], &[("<A>", 0)], false).expect("no map");
        assert_eq!(n.normalize("a  b ", 100).unwrap(), "▁a▁▁b▁");
        assert_eq!(n.normalize(" ", 100).unwrap(), "▁▁");
        assert_eq!(n.normalize(" <A> ", 100).unwrap(), "▁▁<A>▁");
        assert_eq!(n.normalize("", 100).unwrap(), "");
    }

    #[test]
    fn the_map_replaces_outside_verbatim_pieces() {
        let n = normalizer(&small_map());
        assert_eq!(n.normalize("AxA", 100).unwrap(), "▁axa");
        assert_eq!(n.normalize("_A_ _b__", 100).unwrap(), "▁a▁b");
        assert_eq!(n.normalize("<A>A", 100).unwrap(), "▁<A>a");
        assert_eq!(n.normalize("AxA", 5), None);
    }

    #[test]
    fn damaged_maps_are_refused() {
        assert!(CharsMap::parse(&[1, 2]).is_err());
        assert!(CharsMap::parse(&[255, 255, 255, 255, 0]).is_err());
        assert!(CharsMap::parse(&[0, 0, 0, 0, 0xff]).is_err());
        let long = [&[0; 4], [b'x'; MAX_REPLACEMENT + 1].as_slice()].concat();
        assert!(CharsMap::parse(&long).is_err());
    }

    proptest! {
        #[test]
        fn no_map_makes_it_panic(units in proptest::collection::vec(any::<u32>(), 0..600), text in "\\PC{0,20}") {
            let mut map = (units.len() as u32 * 4).to_le_bytes().to_vec();
            map.extend(units.iter().flat_map(|u| (u & 0x800f_ffff).to_le_bytes()));
            map.extend("é\0 ".as_bytes());
            normalizer(&map).normalize(&text, 100);
        }
    }
}
