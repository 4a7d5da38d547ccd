//! Ids to text, one id at a time.
//!
//! The official decoder joins the pieces, writes out `<n>`, `<|tab|>` and `<|blank_k|>`, and then
//! takes blanks away before punctuation, eleven passes over the whole text in all. Here each pass
//! is a stage that holds back the few bytes which a later id could still change, and the text flows
//! through all of them:
//!
//! ```text
//! id → piece, bytes joined to characters → markers written out → " ." to "." → … → " 're" to "'re" → text
//! ```
//!
//! Decoding a whole answer uses the same stages, so streamed and whole text cannot differ.

use super::sentencepiece::{Kind, SentencePiece, surface};
use super::{LONGEST_RUN, NEWLINE, TAB};
use crate::rewrite::Replace;

/// The clean-up of transformers, in its order: each is one pass over the text that the one before
/// it left.
const CLEAN_UP: [(&str, &str); 10] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

/// The decoder's state between two ids.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    /// Bytes that are not yet a whole character: at most three.
    bytes: Vec<u8>,
    /// Whether any text came; until then a piece loses its leading blank.
    started: bool,
    markers: Markers,
    clean_up: Vec<Replace>,
    /// Buffers between the stages.
    between: [String; 2],
}

impl Decoder {
    pub(super) fn new() -> Self {
        Decoder {
            bytes: Vec::new(),
            started: false,
            markers: Markers::default(),
            clean_up: CLEAN_UP.map(|(from, to)| Replace::new(from, to)).into(),
            between: Default::default(),
        }
    }

    /// Takes the piece with this id and appends to `out` the text that no later piece can change.
    /// An id that the model does not have is passed over.
    pub(super) fn push(&mut self, model: &SentencePiece, id: usize, out: &mut String) {
        let Some(piece) = model.piece(id) else { return };
        if let Kind::Byte(byte) = piece.kind {
            self.bytes.push(byte);
            return self.join_bytes(false, out);
        }
        self.join_bytes(true, out);
        match piece.kind {
            Kind::Control => {}
            Kind::Unknown => self.push_text(model.unknown_surface(), out),
            _ => self.push_text(&surface(&piece.text, !self.started), out),
        }
    }

    /// Takes text that stands for itself.
    pub(super) fn push_verbatim(&mut self, text: &str, out: &mut String) {
        self.join_bytes(true, out);
        self.push_text(text, out);
    }

    /// There are no more ids: appends what was held back.
    pub(crate) fn finish(&mut self, out: &mut String) {
        self.join_bytes(true, out);
        self.run_stages("", true, out);
    }

    /// Makes characters of the bytes at hand. A byte that is no part of one becomes U+FFFD, each of
    /// them its own.
    fn join_bytes(&mut self, at_end: bool, out: &mut String) {
        while !self.bytes.is_empty() {
            // Bytes come one at a time, so these are one character, the beginning of one, or begin
            // with a wrong one.
            let c = match std::str::from_utf8(&self.bytes) {
                Ok(text) => text.chars().next(),
                Err(e) if e.error_len().is_none() && !at_end => return,
                Err(_) => None,
            };
            self.bytes.drain(..c.map_or(1, char::len_utf8));
            self.push_text(c.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut [0; 4]), out);
        }
    }

    fn push_text(&mut self, text: &str, out: &mut String) {
        self.started |= !text.is_empty();
        self.run_stages(text, false, out);
    }

    fn run_stages(&mut self, part: &str, at_end: bool, out: &mut String) {
        let [text, cleaned] = &mut self.between;
        text.clear();
        self.markers.push(part, text);
        if at_end {
            self.markers.finish(text);
        }
        for replace in &mut self.clean_up {
            cleaned.clear();
            replace.push(text, cleaned);
            if at_end {
                replace.finish(cleaned);
            }
            std::mem::swap(text, cleaned);
        }
        out.push_str(text);
    }
}

/// Writes out the markers `<n>`, `<|tab|>` and `<|blank_2|>` to `<|blank_80|>`, however they came
/// about.
///
/// Officially these are 81 passes, one per marker. One pass does the same: each marker begins with
/// the only `<` in it and ends with the only `>`, so they cannot overlap, and nothing that is put
/// in their places can make one.
#[derive(Debug, Clone, Default)]
struct Markers {
    held: String,
}

impl Markers {
    fn push(&mut self, part: &str, out: &mut String) {
        self.held.push_str(part);
        let kept = self.write_out(out);
        self.held.drain(..self.held.len() - kept);
    }

    fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Appends what is certain, and returns how many bytes at the end are not.
    fn write_out(&self, out: &mut String) -> usize {
        let mut rest = self.held.as_str();
        while let Some(at) = rest.find('<') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            match rest.find('>') {
                None if may_become_marker(rest) => return rest.len(),
                Some(end) if write_marker(&rest[..=end], out) => rest = &rest[end + 1..],
                _ => {
                    out.push('<');
                    rest = &rest[1..];
                }
            }
        }
        out.push_str(rest);
        0
    }
}

fn may_become_marker(text: &str) -> bool {
    NEWLINE.starts_with(text) || (text.starts_with("<|") && text.len() < "<|blank_80|>".len())
}

/// Writes what a marker stands for, if it is one.
fn write_marker(marker: &str, out: &mut String) -> bool {
    match marker {
        NEWLINE => out.push('\n'),
        TAB => out.push('\t'),
        _ => {
            let Some(length) = blank_run(marker) else { return false };
            out.extend(std::iter::repeat_n(' ', length));
        }
    }
    true
}

fn blank_run(marker: &str) -> Option<usize> {
    let digits = marker.strip_prefix("<|blank_")?.strip_suffix("|>")?;
    let length = digits.parse().ok().filter(|n| (2..=LONGEST_RUN).contains(n))?;
    // `parse` also takes "+5" and "05".
    (length.to_string() == digits).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The official passes, one after the other over the whole text.
    fn official(text: &str) -> String {
        let mut text = text.replace("<n>", "\n").replace("<|tab|>", "\t");
        for n in 2..=80 {
            text = text.replace(&format!("<|blank_{n}|>"), &" ".repeat(n));
        }
        CLEAN_UP.iter().fold(text, |text, (from, to)| text.replace(from, to))
    }

    fn staged(parts: &[String]) -> String {
        let mut decoder = Decoder::new();
        let mut out = String::new();
        parts.iter().for_each(|part| decoder.push_text(part, &mut out));
        decoder.finish(&mut out);
        out
    }

    fn decode(ids: &[u32]) -> String {
        testing::tokenizer().decode(ids).expect("known ids")
    }

    #[test]
    fn blanks_go_where_transformers_takes_them() {
        for text in [
            "hello , world !",
            "do n't",
            "x  .",
            "a ' b ' c",
            " ' 's",
            "we 've . . ?",
            "< n>",
            "<|blank_81|>",
        ] {
            assert_eq!(staged(&[text.to_owned()]), official(text), "{text:?}");
        }
        assert_eq!(staged(&["do n't , I 'm".to_owned()]), "don't, I'm");
    }

    #[test]
    fn only_exact_markers_are_written_out() {
        for marker in [
            "<|blank_1|>",
            "<|blank_81|>",
            "<|blank_05|>",
            "<|blank_+5|>",
            "<|blank_|>",
            "<|Tab|>",
            "<n >",
        ] {
            assert!(!write_marker(marker, &mut String::new()), "{marker:?}");
        }
        assert_eq!(staged(&["<<n><|blank_3|>|<|tab|>".to_owned()]), "<\n   |\t");
    }

    #[test]
    fn bytes_become_characters_or_each_its_own_replacement() {
        let byte = |b: u8| testing::byte_id(b);
        assert_eq!(decode(&[byte(0xe4), byte(0xbd), byte(0xa0)]), "你");
        assert_eq!(decode(&[byte(0xe4), byte(0xbd)]), "\u{fffd}\u{fffd}");
        assert_eq!(decode(&[byte(0xe4), byte(b'a'), byte(0xff)]), "\u{fffd}a\u{fffd}");
        // A surrogate and an overlong form are no characters.
        assert_eq!(decode(&[byte(0xed), byte(0xa0), byte(0x80)]), "\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(decode(&[byte(0xc0), byte(0x80)]), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn control_pieces_part_bytes_and_padding_does_not() {
        let special = testing::tokenizer().special();
        let [a, b, c] = [0xe4, 0xbd, 0xa0].map(testing::byte_id);
        assert_eq!(decode(&[a, special.pad, b, c]), "你");
        assert_eq!(decode(&[a, special.eos, b, c]), "\u{fffd}\u{fffd}\u{fffd}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn stages_are_the_official_passes(
            parts in vec("[ .,?!'ntmsver<|>]{0,4}|<n>|<\\|tab\\|>|<\\|blank_[0-9]{1,2}\\|>", 0..12),
        ) {
            prop_assert_eq!(staged(&parts), official(&parts.concat()));
        }
    }
}
