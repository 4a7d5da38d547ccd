//! Postprocessing of answers, as the official `chat()` does it.

use crate::text::rewrite::Replace;
use crate::text::tokenizer::is_space;

/// Postprocesses a text that arrives in parts: strips white space at both ends, replaces the placeholder `[[训练时间]]`, and
/// for ChatGLM-6B makes `,` `!` `:` `;` `?` next to a Chinese character full-width.
#[derive(Debug, Clone)]
pub(crate) struct Postprocess {
    /// White space that is dropped if the text ends after it; `None` before the first character that is no white space.
    spaces: Option<String>,
    date: Replace,
    widens: bool,
    after_chinese: bool,
    /// Punctuation whose width depends on the next character.
    held: Option<char>,
}

impl Postprocess {
    /// `widens` says whether punctuation becomes full-width.
    pub(crate) fn new(widens: bool) -> Self {
        let date = Replace::new("[[训练时间]]", "2023年");
        Postprocess { spaces: None, date, widens, after_chinese: false, held: None }
    }

    pub(crate) fn push(&mut self, part: &str, out: &mut String) {
        let mut stripped = String::new();
        for c in part.chars() {
            match &mut self.spaces {
                None if is_space(c) => {}
                Some(spaces) if is_space(c) => spaces.push(c),
                spaces => {
                    stripped.push_str(spaces.get_or_insert_default());
                    *spaces = Some(String::new());
                    stripped.push(c);
                }
            }
        }
        let mut dated = String::new();
        self.date.push(&stripped, &mut dated);
        self.widen(&dated, out);
    }

    pub(crate) fn finish(&mut self, out: &mut String) {
        let mut dated = String::new();
        self.date.finish(&mut dated);
        self.widen(&dated, out);
        out.extend(self.held.take());
    }

    /// Makes punctuation next to a Chinese character full-width.
    fn widen(&mut self, text: &str, out: &mut String) {
        if !self.widens {
            return out.push_str(text);
        }
        for c in text.chars() {
            let is_chinese = ('\u{4e00}'..='\u{9fff}').contains(&c);
            if let Some(held) = self.held.take() {
                out.push(full_width(held).filter(|_| is_chinese).unwrap_or(held));
            }
            match full_width(c) {
                Some(wide) if self.after_chinese => out.push(wide),
                Some(_) => self.held = Some(c),
                None => out.push(c),
            }
            self.after_chinese = is_chinese;
        }
    }
}

fn full_width(c: char) -> Option<char> {
    Some(match c {
        ',' => '，',
        '!' => '！',
        ':' => '：',
        ';' => '；',
        '?' => '？',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn postprocessed(mut postprocess: Postprocess, parts: &[&str]) -> String {
        let mut out = String::new();
        parts.iter().for_each(|part| postprocess.push(part, &mut out));
        postprocess.finish(&mut out);
        out
    }

    #[test]
    fn answers_are_postprocessed() {
        for (decoded, expected) in [
            (" 你好,世界! \n", "你好，世界！"),
            ("a, b!", "a, b!"),
            ("3:中;,中?", "3：中；，中？"),
            ("中,,a", "中，,a"),
            ("[[训练时间]],a", "2023年，a"),
            ("[[训练", "[[训练"),
            ("\u{1f} ", ""),
        ] {
            assert_eq!(postprocessed(Postprocess::new(true), &[decoded]), expected, "{decoded:?}");
        }
        assert_eq!(postprocessed(Postprocess::new(false), &[" 中,[[训练", "时间]] "]), "中,2023年");
    }

    /// The official implementation: passes over the whole text.
    fn official(text: &str) -> String {
        let mut text: Vec<char> =
            text.trim_matches(is_space).replace("[[训练时间]]", "2023年").chars().collect();
        let is_chinese =
            |c: Option<&char>| c.is_some_and(|c| ('\u{4e00}'..='\u{9fff}').contains(c));
        for mark in [',', '!', ':', ';', '?'] {
            for beside in [-1, 1] {
                for i in 0..text.len() {
                    let neighbour = i.checked_add_signed(beside).and_then(|i| text.get(i));
                    if text[i] == mark && is_chinese(neighbour) {
                        text[i] = full_width(mark).unwrap();
                    }
                }
            }
        }
        text.into_iter().collect()
    }

    proptest! {
        #[test]
        fn parts_are_postprocessed_like_the_whole(
            parts in vec("[a中 \n,!?]{0,4}|\\[\\[训练时间\\]\\]|\\[\\[", 0..8),
        ) {
            let refs: Vec<_> = parts.iter().map(String::as_str).collect();
            prop_assert_eq!(postprocessed(Postprocess::new(true), &refs), official(&parts.concat()));
        }
    }
}
