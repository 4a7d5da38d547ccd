//! Breaks the lines of an answer at the width of the terminal, between words.

use unicode_width::UnicodeWidthChar;

/// Narrower terminals break lines by themselves.
pub const NARROWEST: usize = 20;
/// A fence of a code block, whose lines are not broken.
const FENCE: &str = "```";
/// Punctuation that does not begin a line.
const CLOSING: &str = "，。、；：？！）》」』】〉”’…";

/// Text on its way to the terminal. A word is shown when its end is known.
#[derive(Debug, Default)]
pub struct Wrap {
    /// Width of the current line so far, with `gap` and `word`.
    column: usize,
    /// Blanks before `word`: dropped if the line is broken there.
    gap: String,
    word: String,
    word_width: usize,
    is_code: bool,
    /// Whether lines of code are broken, too.
    breaks_code: bool,
    /// Whether the word is the first of its line.
    is_first: bool,
}

impl Wrap {
    pub fn new() -> Self {
        Self { is_first: true, ..Self::default() }
    }

    /// The same, where no line may be longer than the terminal is wide.
    pub fn breaking_code() -> Self {
        Self { breaks_code: true, ..Self::new() }
    }

    /// Takes a piece of the answer and returns what is to be shown now, in lines of at most `columns`.
    pub fn push(&mut self, piece: &str, columns: Option<usize>) -> String {
        let columns = columns.filter(|&columns| columns >= NARROWEST).unwrap_or(usize::MAX);
        let mut shown = String::with_capacity(piece.len() + 8);
        for c in piece.chars() {
            self.take(c, columns, &mut shown);
        }
        shown
    }

    /// What is left.
    pub fn end(&mut self) -> String {
        let mut shown = String::new();
        self.flush(&mut shown);
        shown
    }

    fn take(&mut self, c: char, columns: usize, shown: &mut String) {
        // What a terminal does not show is replaced by a character of width 1.
        let width = c.width().unwrap_or(1);
        match c {
            '\n' => {
                self.is_code ^= self.is_first && self.word.starts_with(FENCE);
                self.flush(shown);
                shown.push('\n');
                (self.column, self.is_first) = (0, true);
            }
            ' ' | '\t' => {
                self.is_code ^= self.is_first && self.word.starts_with(FENCE);
                if !self.word.is_empty() {
                    self.flush(shown);
                    self.is_first = false;
                }
                self.gap.push(c);
                self.column += if c == '\t' { 8 - self.column % 8 } else { 1 };
            }
            _ if width == 2 => {
                let is_closing = CLOSING.contains(c);
                // Closing punctuation may stand in the last two columns, which other characters leave free.
                let most = if is_closing { columns } else { columns.saturating_sub(2) };
                if !is_closing && !self.word.is_empty() {
                    self.flush(shown);
                }
                self.add(c, width, most, shown);
                self.flush(shown);
                self.is_first = false;
            }
            _ => self.add(c, width, columns, shown),
        }
    }

    /// Appends a character to the word, and moves the word to the next line if it is too long for this one.
    fn add(&mut self, c: char, width: usize, columns: usize, shown: &mut String) {
        let is_full =
            width > 0 && self.column + width > columns && (!self.is_code || self.breaks_code);
        if is_full && self.column > self.word_width {
            self.gap.clear();
            shown.push('\n');
            self.column = self.word_width;
        }
        if is_full && self.column + width > columns {
            // The word is longer than a line.
            self.flush(shown);
            shown.push('\n');
            self.column = 0;
        }
        self.word.push(c);
        self.word_width += width;
        self.column += width;
    }

    /// Shows the word and the blanks before it. Blanks before a line break or the end could only lead to an empty line.
    fn flush(&mut self, shown: &mut String) {
        if !self.word.is_empty() {
            shown.push_str(&self.gap);
        }
        shown.push_str(&self.word);
        self.gap.clear();
        self.word.clear();
        self.word_width = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(pieces: &[&str], columns: usize) -> String {
        let mut wrap = Wrap::new();
        let mut shown: String =
            pieces.iter().map(|piece| wrap.push(piece, Some(columns))).collect();
        shown += &wrap.end();
        shown
    }

    #[test]
    fn words_are_not_split() {
        let text = "The quick brown fox jumps over the lazy dog";
        let expected = "The quick brown fox\njumps over the lazy\ndog";
        assert_eq!(wrapped(&[text], 20), expected);
        let letters: Vec<_> = text.split("").collect();
        assert_eq!(wrapped(&letters, 20), expected);
        assert_eq!(wrapped(&["twenty characters ab cd"], 20), "twenty characters ab\ncd");
    }

    #[test]
    fn wide_characters_fill_two_columns_and_punctuation_does_not_begin_a_line() {
        assert_eq!(wrapped(&["一二三四五六七八九十"], 20), "一二三四五六七八九\n十");
        assert_eq!(wrapped(&["一二三四五六七八九。十"], 20), "一二三四五六七八九。\n十");
        assert_eq!(wrapped(&["模型 GLM 有 long words 和字"], 20), "模型 GLM 有 long\nwords 和字");
    }

    #[test]
    fn longer_words_and_code_stay_whole() {
        let link = "https://example.org/a/very/long/link";
        assert_eq!(wrapped(&["see ", link], 20), "see\nhttps://example.org/\na/very/long/link");
        let code = "```rust\nlet a_long_line = of_code_that_is_not_broken();\n```\n";
        assert_eq!(wrapped(&[code], 20), code);
        let after = format!("{code}The quick brown fox jumps");
        assert_eq!(wrapped(&[&after], 20), format!("{code}The quick brown fox\njumps"));
    }

    #[test]
    fn the_text_is_the_same_but_for_the_breaks() {
        let text = "  an indented\n\nline,\twith 中文，and e\u{301} 👍🏽 marks   at the end  \n";
        for columns in 20..60 {
            let shown = wrapped(&[text], columns);
            let squeezed = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeezed(&shown), squeezed(text));
            let width = |line: &str| line.chars().map(|c| c.width().unwrap_or(1)).sum::<usize>();
            assert!(shown.lines().all(|line| width(line) <= columns), "{columns}: {shown}");
        }
        let narrow = wrapped(&["a narrow terminal breaks lines itself"], 10);
        assert_eq!(narrow, "a narrow terminal breaks lines itself");
        assert_eq!(Wrap::new().push("你好", None), "你好");
    }
}
