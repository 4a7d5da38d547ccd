//! Breaks lines by the widths of characters. Chinese has no blanks between words: a line can be broken before and after most of its
//! characters.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Characters that no line starts with.
const CLOSING: &str = "，。；：？！、）」》”’…·%";

/// Characters that no line ends with.
const OPENING: &str = "（「《“‘";

/// The lines of a paragraph, each as long as `columns` permits. A longer word has a line of its own.
pub fn lines(text: &str, columns: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for piece in pieces(text) {
        if !line.is_empty() && line.width() + piece.trim_end().width() > columns {
            line.truncate(line.trim_end().len());
            lines.push(std::mem::take(&mut line));
        }
        line.push_str(piece);
    }
    lines.push(line);
    lines
}

/// The same for a text of several lines, as one text.
pub fn text(text: &str, columns: usize) -> String {
    text.lines().flat_map(|line| lines(line, columns)).collect::<Vec<_>>().join("\n")
}

/// The parts between which a line can be broken.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut before) = (0, None);
    for (at, c) in text.char_indices() {
        if before.is_some_and(|before| can_break(before, c)) {
            pieces.push(&text[start..at]);
            start = at;
        }
        before = Some(c);
    }
    pieces.push(&text[start..]);
    pieces
}

fn can_break(before: char, after: char) -> bool {
    let is_wide = |c: char| c.width() == Some(2);
    match (before, after) {
        (_, ' ') => false,
        (' ', _) => true,
        _ => {
            (is_wide(before) || is_wide(after))
                && !CLOSING.contains(after)
                && !OPENING.contains(before)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(lines("to be or not", 5), ["to be", "or", "not"]);
        assert_eq!(lines("unbreakable word", 5), ["unbreakable", "word"]);
        assert_eq!(lines("", 5), [""]);
    }

    #[test]
    fn chinese_is_broken_anywhere_but_at_punctuation() {
        assert_eq!(lines("在终端里对话。", 8), ["在终端里", "对话。"]);
        assert_eq!(lines("在终端，对话", 6), ["在终", "端，对", "话"]);
        assert_eq!(lines("对话（可选）", 6), ["对话", "（可", "选）"]);
        assert_eq!(lines("用 glm chat 对话", 10), ["用 glm", "chat 对话"]);
    }
}
