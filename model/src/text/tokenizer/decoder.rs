//! Streaming decoder: ids to text, one id at a time.
//!
//! The official decoders join pieces or bytes and then make passes over the whole text. That of ChatGLM-6B replaces `<n>`,
//! `<|tab|>` and `<|blank_k|>`, and transformers removes blanks before punctuation. Here each pass is a stage of a pipeline.
//! A stage holds back the few bytes that a later id may change:
//!
//! ```text
//! id → piece, bytes joined to characters → markers replaced → " ." to "." → … → " 're" to "'re" → text
//! ```
//!
//! Decoding a whole answer uses the same stages, so streamed and whole text are equal.

use super::sentencepiece::surface;
use super::{NEWLINE, TAB};
use crate::limits::tokenizer::LONGEST_RUN;
use crate::text::rewrite::Replace;

/// The clean-up of transformers in its order. Each entry is one pass over the result of the one before it.
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

/// How a tokenizer's ids become text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Decoding {
    pub(super) marked: Marked,
    /// Whether blanks before punctuation are removed.
    pub(super) clean_up: bool,
    /// The separator between special ids that are decoded separately, and the text between them.
    pub(super) joint: &'static str,
    pub(super) invalid: Invalid,
    /// Whether only the first blank of a text is dropped, instead of all blanks before its first word.
    pub(super) keeps_blanks: bool,
}

impl Decoding {
    /// The text of a piece that is not the first.
    pub(super) fn within(self, piece: &str) -> String {
        match (self.marked, piece) {
            (Marked::Newlines | Marked::Blanks, NEWLINE) => return "\n".to_owned(),
            (Marked::Blanks, TAB) => return "\t".to_owned(),
            (Marked::Blanks, piece) => {
                let count = piece.strip_prefix("<|blank_").and_then(|rest| rest.strip_suffix("|>"));
                if let Some(count) = count.and_then(|count| count.parse().ok()) {
                    return " ".repeat(LONGEST_RUN.min(count));
                }
            }
            _ => {}
        }
        surface(piece, false)
    }
}

/// Which pieces represent white space that SentencePiece would collapse.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Marked {
    #[default]
    Nothing,
    Newlines,
    /// Newlines, tabs and runs of blanks.
    Blanks,
}

/// How invalid UTF-8 is decoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Invalid {
    /// Each byte becomes U+FFFD, as in SentencePiece.
    #[default]
    Each,
    /// An incomplete character becomes one U+FFFD, as in Python.
    Together,
}

/// The state of the decoder between two ids.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    /// The bytes of an incomplete character: at most three.
    bytes: Vec<u8>,
    /// Whether there was any text. Until then a piece loses its leading blank.
    started: bool,
    run: Run,
    /// Whether there was output before this run.
    follows: bool,
    decoding: Decoding,
    stages: Vec<Stage>,
    /// Buffers between the stages.
    between: [String; 2],
}

/// What was decoded since the start, or since the last separate text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Nothing,
    /// Only ids without text.
    Empty,
    Text,
}

impl Decoder {
    pub(super) fn new(decoding: Decoding) -> Self {
        let markers = match decoding.marked {
            Marked::Nothing => None,
            Marked::Newlines => Some(Stage::Replace(Replace::new(NEWLINE, "\n"))),
            Marked::Blanks => Some(Stage::Markers(Markers::default())),
        };
        let clean_up = if decoding.clean_up { &CLEAN_UP[..] } else { &[] };
        let clean_up = clean_up.iter().map(|(from, to)| Stage::Replace(Replace::new(from, to)));
        Decoder {
            bytes: Vec::new(),
            started: false,
            run: Run::Nothing,
            follows: false,
            decoding,
            stages: markers.into_iter().chain(clean_up).collect(),
            between: Default::default(),
        }
    }

    /// Takes bytes. This and the other methods append to `out` the text that no later id can change.
    pub(super) fn push_bytes(&mut self, bytes: &[u8], out: &mut String) {
        self.run = self.run.with_id();
        self.bytes.extend_from_slice(bytes);
        self.join_bytes(false, out);
    }

    /// Takes a SentencePiece piece.
    pub(super) fn push_piece(&mut self, piece: &str, out: &mut String) {
        self.part_bytes(out);
        let text = surface(piece, !self.started);
        self.started |= self.decoding.keeps_blanks;
        self.push_text(&text, out);
    }

    /// Takes text as it is.
    pub(super) fn push_verbatim(&mut self, text: &str, out: &mut String) {
        self.part_bytes(out);
        self.push_text(text, out);
    }

    /// Takes an id without text. Bytes before it and after it are not joined to one character.
    pub(super) fn part_bytes(&mut self, out: &mut String) {
        self.run = self.run.with_id();
        self.join_bytes(true, out);
    }

    /// Takes separate text; see [`super::added::Shown::Apart`].
    pub(super) fn push_apart(&mut self, text: &str, out: &mut String) {
        self.join_bytes(true, out);
        self.follows |= self.run == Run::Text;
        self.run = Run::Nothing;
        self.push_text(text, out);
        (self.run, self.follows, self.started) = (Run::Nothing, true, false);
    }

    /// Ends the text: appends what was held back.
    pub(crate) fn finish(&mut self, out: &mut String) {
        self.join_bytes(true, out);
        let joint = self.run == Run::Empty && self.follows;
        self.run_stages(if joint { self.decoding.joint } else { "" }, true, out);
    }

    /// Joins the bytes so far to characters.
    fn join_bytes(&mut self, at_end: bool, out: &mut String) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (valid, invalid) = match std::str::from_utf8(rest) {
                Ok(text) => (text.len(), 0),
                Err(e) => match e.error_len() {
                    None if !at_end => (e.valid_up_to(), 0),
                    _ if self.decoding.invalid == Invalid::Each => (e.valid_up_to(), 1),
                    length => (e.valid_up_to(), length.unwrap_or(rest.len() - e.valid_up_to())),
                },
            };
            if valid + invalid == 0 {
                break;
            }
            // These bytes are valid UTF-8, so nothing is replaced.
            self.push_text(&String::from_utf8_lossy(&rest[..valid]), out);
            self.push_text(if invalid > 0 { "\u{fffd}" } else { "" }, out);
            rest = &rest[valid + invalid..];
        }
        let kept = rest.len();
        self.bytes = bytes;
        self.bytes.drain(..self.bytes.len() - kept);
    }

    fn push_text(&mut self, text: &str, out: &mut String) {
        if text.is_empty() {
            return;
        }
        self.started = true;
        let first = std::mem::replace(&mut self.run, Run::Text) != Run::Text;
        if first && self.follows {
            self.run_stages(self.decoding.joint, false, out);
        }
        self.run_stages(text, false, out);
    }

    fn run_stages(&mut self, part: &str, at_end: bool, out: &mut String) {
        let [text, next] = &mut self.between;
        text.clear();
        text.push_str(part);
        for stage in &mut self.stages {
            next.clear();
            stage.push(text, next);
            if at_end {
                stage.finish(next);
            }
            std::mem::swap(text, next);
        }
        out.push_str(text);
    }
}

impl Run {
    /// The run after one more id.
    fn with_id(self) -> Self {
        if self == Run::Text { self } else { Run::Empty }
    }
}

/// One pass over the text.
#[derive(Debug, Clone)]
enum Stage {
    Markers(Markers),
    Replace(Replace),
}

impl Stage {
    fn push(&mut self, part: &str, out: &mut String) {
        match self {
            Stage::Markers(markers) => markers.push(part, out),
            Stage::Replace(replace) => replace.push(part, out),
        }
    }

    fn finish(&mut self, out: &mut String) {
        match self {
            Stage::Markers(markers) => markers.finish(out),
            Stage::Replace(replace) => replace.finish(out),
        }
    }
}

/// Replaces the markers `<n>`, `<|tab|>` and `<|blank_2|>` to `<|blank_80|>` by white space, also where several pieces spell
/// one.
///
/// The official code makes 81 passes, one per marker. One pass gives the same result: `<` and `>` occur only at the ends of a
/// marker, so markers cannot overlap, and the white space cannot form a new one.
#[derive(Debug, Clone, Default)]
struct Markers {
    held: String,
}

impl Markers {
    fn push(&mut self, part: &str, out: &mut String) {
        self.held.push_str(part);
        let kept = self.replace(out);
        self.held.drain(..self.held.len() - kept);
    }

    fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }

    /// Appends what no later text can change. Returns the number of remaining bytes at the end.
    fn replace(&self, out: &mut String) -> usize {
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

/// Writes the white space of a marker. Returns whether it is a marker.
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

    /// The official passes over the whole text.
    fn official(text: &str) -> String {
        let mut text = text.replace("<n>", "\n").replace("<|tab|>", "\t");
        for n in 2..=80 {
            text = text.replace(&format!("<|blank_{n}|>"), &" ".repeat(n));
        }
        CLEAN_UP.iter().fold(text, |text, (from, to)| text.replace(from, to))
    }

    fn staged(parts: &[String]) -> String {
        let mut decoder = Decoder::new(super::super::chatglm::DECODING);
        let mut out = String::new();
        parts.iter().for_each(|part| decoder.push_text(part, &mut out));
        decoder.finish(&mut out);
        out
    }

    fn decode(ids: &[u32]) -> String {
        testing::tokenizer().decode(ids).expect("known ids")
    }

    #[test]
    fn blanks_are_removed_as_in_transformers() {
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
    fn only_exact_markers_are_replaced() {
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
        assert_eq!(decode(&[a, special.pad.unwrap(), b, c]), "你");
        assert_eq!(decode(&[a, special.ids.ends[0], b, c]), "\u{fffd}\u{fffd}\u{fffd}");
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
