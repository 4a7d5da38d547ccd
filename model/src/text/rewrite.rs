//! Text replacement in a stream.

/// `str::replace` for a text that arrives in parts. The outputs of all `push` calls and of `finish`, joined, are the whole
/// text with every `from` replaced, wherever the parts begin.
///
/// It holds back fewer bytes than `from` has, so the cost of a part does not grow with the text before it.
#[derive(Debug, Clone)]
pub(crate) struct Replace {
    from: &'static str,
    to: &'static str,
    held: String,
}

impl Replace {
    pub(crate) fn new(from: &'static str, to: &'static str) -> Self {
        Replace { from, to, held: String::new() }
    }

    /// Takes the next part of the text. Appends to `out` what no later part can change.
    pub(crate) fn push(&mut self, part: &str, out: &mut String) {
        self.held.push_str(part);
        let mut rest = self.held.as_str();
        while let Some((before, after)) = rest.split_once(self.from) {
            out.push_str(before);
            out.push_str(self.to);
            rest = after;
        }
        let (sure, open) = rest.split_at(rest.len() - overlap(rest, self.from));
        out.push_str(sure);
        let keep = open.len();
        self.held.drain(..self.held.len() - keep);
    }

    /// Ends the text: appends what was held back.
    pub(crate) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

/// The length in bytes of the longest proper prefix of `word` that `text` ends with.
pub(crate) fn overlap(text: &str, word: &str) -> usize {
    let longest = text.len().min(word.len().saturating_sub(1));
    (1..=longest).rev().find(|&n| text.as_bytes().ends_with(&word.as_bytes()[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn overlap_is_the_longest_unfinished_word() {
        assert_eq!(overlap("x aba", "abab"), 3);
        assert_eq!(overlap("x aba", "aba"), 1);
        assert_eq!(overlap("aba", "c"), 0);
        assert_eq!(overlap("", "abc"), 0);
        assert_eq!(overlap("问", "问："), 3);
    }

    proptest! {
        #[test]
        fn parts_join_to_str_replace(parts in proptest::collection::vec("[ab训]{0,5}", 0..8)) {
            for word in ["a", "ab", "aab", "abab", "训a训"] {
                let mut replace = Replace::new(word, "-");
                let mut out = String::new();
                for part in &parts {
                    replace.push(part, &mut out);
                    prop_assert!(replace.held.len() < word.len());
                }
                replace.finish(&mut out);
                prop_assert_eq!(&out, &parts.concat().replace(word, "-"));
            }
        }
    }
}
