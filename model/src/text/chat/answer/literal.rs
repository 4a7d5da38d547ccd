//! Values in JSON or in Python, one character at a time, become JSON. Nothing is evaluated.
//!
//! Both notations are read wherever a value is expected, because models mix them: numbers, texts in any quotes, lists, tuples,
//! objects, and `true`, `True`, `false`, `False`, `null`, `None`. What is written is always the beginning of valid JSON, without
//! white space.

use crate::limits::answer::{MAX_DEPTH, MAX_WORD};
use serde_json::{Number, Value};

/// What became of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is part of the value, and more may follow.
    Taken,
    /// It ended the value.
    Last,
    /// The value ended before it.
    After,
    /// It cannot follow.
    Wrong,
}

/// Reads one value.
#[derive(Debug, Clone)]
pub(super) struct Literal {
    open: Vec<Open>,
    expected: Expected,
    token: Token,
    /// The first half of a character that JSON writes as two escapes.
    high: Option<u32>,
}

/// A list or an object that is not complete.
#[derive(Debug, Clone)]
struct Open {
    closed_by: char,
    has_elements: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    ValueOrEnd,
    NameOrEnd,
    Colon,
    CommaOrEnd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    None,
    /// A number or a word.
    Word(String),
    /// After the first or the second quote of a text.
    Opening(char, usize),
    Text(Quotes),
    /// After a backslash in a text.
    Escape(Quotes, Option<Code>),
}

/// The quotes around a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quotes {
    quote: char,
    /// How many end the text: one or three.
    needed: usize,
    /// How many of them there were in a row.
    seen: usize,
}

/// The number of a character, as an escape writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Code {
    radix: u32,
    digits: usize,
    value: u32,
}

impl Literal {
    /// A value that has not begun.
    pub(super) fn new() -> Self {
        Literal { open: Vec::new(), expected: Expected::Value, token: Token::None, high: None }
    }

    /// Takes the next character, and appends to `out` the JSON that it makes certain. After [`Step::Last`], [`Step::After`] and
    /// [`Step::Wrong`] it takes no more.
    pub(super) fn push(&mut self, c: char, out: &mut String) -> Step {
        match std::mem::replace(&mut self.token, Token::None) {
            Token::None => self.between(c, out),
            Token::Word(word) if word.len() > MAX_WORD => self.wrong(word),
            Token::Word(word) if c.is_ascii_alphanumeric() || "+-._".contains(c) => {
                self.token = Token::Word(word + c.encode_utf8(&mut [0; 4]));
                Step::Taken
            }
            Token::Word(word) => match json_word(&word) {
                Some(word) => {
                    out.push_str(&word);
                    self.complete();
                    self.again(c, out)
                }
                None => self.wrong(word),
            },
            Token::Opening(quote, 1) if c == quote => {
                self.token = Token::Opening(quote, 2);
                Step::Taken
            }
            Token::Opening(quote, 1) => self.text(c, Quotes { quote, needed: 1, seen: 0 }, out),
            Token::Opening(quote, _) if c == quote => {
                self.token = Token::Text(Quotes { quote, needed: 3, seen: 0 });
                Step::Taken
            }
            Token::Opening(..) => {
                out.push('"');
                self.complete();
                self.again(c, out)
            }
            Token::Text(quotes) => self.text(c, quotes, out),
            Token::Escape(quotes, None) => self.escape(c, quotes, out),
            Token::Escape(quotes, Some(code)) => self.code(c, quotes, code, out),
        }
    }

    /// Ends a value that was broken off: appends the word or number that was held back, if it is one.
    pub(super) fn finish(&mut self, out: &mut String) {
        match std::mem::replace(&mut self.token, Token::None) {
            Token::Word(word) => match json_word(&word) {
                Some(word) => {
                    out.push_str(&word);
                    self.complete();
                }
                None => self.token = Token::Word(word),
            },
            other => self.token = other,
        }
    }

    /// What it has taken that is no value: a word, once the value is wrong or has been [finished](Self::finish).
    pub(super) fn untaken(&mut self) -> Option<String> {
        match std::mem::replace(&mut self.token, Token::None) {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    /// A word that is no value.
    fn wrong(&mut self, word: String) -> Step {
        self.token = Token::Word(word);
        Step::Wrong
    }

    /// A character that is not part of a token.
    fn between(&mut self, c: char, out: &mut String) -> Step {
        let closes = self.open.last().is_some_and(|open| open.closed_by == c);
        match self.expected {
            _ if c.is_whitespace() => Step::Taken,
            Expected::ValueOrEnd | Expected::NameOrEnd | Expected::CommaOrEnd if closes => {
                self.open.pop();
                self.expected = Expected::Value;
                out.push(if c == '}' { '}' } else { ']' });
                self.complete();
                if self.open.is_empty() { Step::Last } else { Step::Taken }
            }
            Expected::CommaOrEnd if c == ',' => {
                let is_object = self.open.last().is_some_and(|open| open.closed_by == '}');
                self.expected = if is_object { Expected::NameOrEnd } else { Expected::ValueOrEnd };
                Step::Taken
            }
            Expected::Colon if c == ':' => {
                out.push(':');
                self.expected = Expected::Value;
                Step::Taken
            }
            Expected::NameOrEnd if matches!(c, '"' | '\'') => self.value(c, out),
            Expected::Value | Expected::ValueOrEnd => self.value(c, out),
            _ => Step::Wrong,
        }
    }

    /// The first character of a value, or of a name.
    fn value(&mut self, c: char, out: &mut String) -> Step {
        // Python allows a comma before the end, so it is written before the next element.
        let is_element = matches!(self.expected, Expected::ValueOrEnd | Expected::NameOrEnd);
        let follows = is_element && self.open.last().is_some_and(|open| open.has_elements);
        let comma = if follows { "," } else { "" };
        match c {
            '{' | '[' | '(' if self.open.len() < MAX_DEPTH => {
                out.push_str(comma);
                let (shown, closed_by) = match c {
                    '{' => ('{', '}'),
                    '[' => ('[', ']'),
                    _ => ('[', ')'),
                };
                out.push(shown);
                self.open.push(Open { closed_by, has_elements: false });
                let is_object = c == '{';
                self.expected = if is_object { Expected::NameOrEnd } else { Expected::ValueOrEnd };
            }
            '"' | '\'' => {
                out.push_str(comma);
                out.push('"');
                self.token = Token::Opening(c, 1);
            }
            c if c.is_ascii_alphanumeric() || "+-.".contains(c) => {
                out.push_str(comma);
                self.token = Token::Word(c.into());
            }
            _ => return Step::Wrong,
        }
        Step::Taken
    }

    /// A value or a name is complete.
    fn complete(&mut self) {
        if self.expected == Expected::NameOrEnd {
            self.expected = Expected::Colon;
            return;
        }
        self.expected = Expected::CommaOrEnd;
        if let Some(open) = self.open.last_mut() {
            open.has_elements = true;
        }
    }

    /// A character after a token that it is no part of.
    fn again(&mut self, c: char, out: &mut String) -> Step {
        if self.open.is_empty() { Step::After } else { self.between(c, out) }
    }

    fn text(&mut self, c: char, mut quotes: Quotes, out: &mut String) -> Step {
        if c == quotes.quote {
            quotes.seen += 1;
            if quotes.seen == quotes.needed {
                self.pair(None, out);
                out.push('"');
                self.complete();
                return if self.open.is_empty() { Step::Last } else { Step::Taken };
            }
        } else {
            for _ in 0..std::mem::take(&mut quotes.seen) {
                self.character(quotes.quote, out);
            }
            if c == '\\' {
                self.token = Token::Escape(quotes, None);
                return Step::Taken;
            }
            self.character(c, out);
        }
        self.token = Token::Text(quotes);
        Step::Taken
    }

    /// The character after a backslash.
    fn escape(&mut self, c: char, quotes: Quotes, out: &mut String) -> Step {
        let code = |radix, digits| Some(Code { radix, digits, value: 0 });
        let code = match c {
            'x' => code(16, 2),
            'u' => code(16, 4),
            'U' => code(16, 8),
            '0'..='7' => code(8, 3),
            _ => None,
        };
        match code {
            Some(code) if code.radix == 8 => return self.code(c, quotes, code, out),
            Some(code) => {
                self.token = Token::Escape(quotes, Some(code));
                return Step::Taken;
            }
            None => {}
        }
        match c {
            'n' => self.character('\n', out),
            't' => self.character('\t', out),
            'r' => self.character('\r', out),
            'b' => self.character('\u{8}', out),
            'f' => self.character('\u{c}', out),
            'a' => self.character('\u{7}', out),
            'v' => self.character('\u{b}', out),
            '\\' | '"' | '\'' | '/' => self.character(c, out),
            // A line that goes on.
            '\n' => {}
            // Python keeps the backslash.
            _ => {
                self.character('\\', out);
                self.character(c, out);
            }
        }
        self.token = Token::Text(quotes);
        Step::Taken
    }

    /// The next digit of the number of a character.
    fn code(&mut self, c: char, quotes: Quotes, mut code: Code, out: &mut String) -> Step {
        match c.to_digit(code.radix) {
            Some(digit) => {
                code.value = code.value.saturating_mul(code.radix).saturating_add(digit);
                code.digits -= 1;
                if code.digits > 0 {
                    self.token = Token::Escape(quotes, Some(code));
                    return Step::Taken;
                }
                self.pair(Some(code.value), out);
                self.token = Token::Text(quotes);
                Step::Taken
            }
            // Only octal numbers may be shorter.
            None if code.radix == 8 => {
                self.pair(Some(code.value), out);
                self.text(c, quotes, out)
            }
            None => Step::Wrong,
        }
    }

    /// Writes the character with this number, which may be the first or the second half of one. `None` ends a half that
    /// stands alone.
    fn pair(&mut self, code: Option<u32>, out: &mut String) {
        let high = self.high.take();
        match (high, code) {
            (Some(high), Some(low @ 0xdc00..=0xdfff)) => {
                let c = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                write(char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER), out);
                return;
            }
            (Some(_), _) => write(char::REPLACEMENT_CHARACTER, out),
            (None, _) => {}
        }
        match code {
            Some(high @ 0xd800..=0xdbff) => self.high = Some(high),
            Some(code) => write(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), out),
            None => {}
        }
    }

    fn character(&mut self, c: char, out: &mut String) {
        self.pair(None, out);
        write(c, out);
    }
}

/// Appends a character as it is in a text of JSON.
pub(super) fn write(c: char, out: &mut String) {
    match c {
        '"' | '\\' => out.extend(['\\', c]),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push(c),
    }
}

/// A number or a word of Python as JSON writes it.
fn json_word(word: &str) -> Option<String> {
    let word = match word {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        word => word,
    };
    if serde_json::from_str::<Value>(word).is_ok() {
        return Some(word.to_owned());
    }
    // Numbers that only Python has: +1, .5, 5., 1_000.
    let is_number = |c: char| c.is_ascii_digit() || "+-._eE".contains(c);
    let number: f64 = word.replace('_', "").parse().ok().filter(|_| word.chars().all(is_number))?;
    if number.fract() == 0.0 && !word.contains(['.', 'e', 'E']) && number.abs() < 9e15 {
        return Some((number as i64).to_string());
    }
    Number::from_f64(number).map(|number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// The JSON of a value, and what follows it.
    fn read(text: &str) -> Option<(Value, &str)> {
        let (mut literal, mut out) = (Literal::new(), String::new());
        for (at, c) in text.char_indices() {
            let rest = match literal.push(c, &mut out) {
                Step::Taken => continue,
                Step::Last => &text[at + c.len_utf8()..],
                Step::After => &text[at..],
                Step::Wrong => return None,
            };
            return Some((serde_json::from_str(&out).expect(&out), rest));
        }
        None
    }

    #[test]
    fn both_notations_are_read() {
        for (text, value) in [
            (
                r#"{"a": [1, -2.5e3, true, null, {}], 'b': ()}"#,
                json!({"a": [1, -2500.0, true, null, {}], "b": []}),
            ),
            ("{'it': False, 'n': None,}", json!({"it": false, "n": null})),
            ("(1, 'a', [2,],)", json!([1, "a", [2]])),
            ("[+1, .5, 5., 1_000, 007]", json!([1, 0.5, 5.0, 1000, 7])),
            (r#"'a"b\'c\\d\ne\x41\u00e9\101\0\q'"#, json!("a\"b'c\\d\neAéA\0\\q")),
            (r#"["\ud83d\ude00", "\ud83d", "\ud83dx\/"]"#, json!(["😀", "\u{fffd}", "\u{fffd}x/"])),
            ("'''a'b''c\n''d'''", json!("a'b''c\n''d")),
            (r#"["", '', """"""]"#, json!(["", "", ""])),
            (" 12 ", json!(12)),
        ] {
            let whole = format!("{text};x");
            let (found, rest) = read(&whole).expect(text);
            assert_eq!(found, value, "{text}");
            assert!(rest.ends_with(";x"), "{text}: {rest}");
        }
        assert_eq!(read("5, b=6)"), Some((json!(5), ", b=6)")));
        assert_eq!(read("''), x"), Some((json!(""), "), x")));
    }

    #[test]
    fn nothing_else_is() {
        for text in [
            "os.system('x');",
            "f(1) ",
            "{1: 2}",
            "[1 2]",
            "{'a' 1}",
            "{'a': }",
            "[1;]",
            ",",
            "}",
            "{]",
            "(1]",
            "'\\xg0'",
            "nan ",
            "inf ",
            "0x10 ",
            "1+1 ",
            "'a' 'b']",
            "[,]",
            "{,}",
            "lambda: 0 ",
            "f'a'",
            "{**a}",
        ] {
            let whole = format!("[{text}]");
            let found = read(&whole);
            assert!(found.is_none(), "{text}: {found:?}");
        }
        assert!(read(&"[".repeat(MAX_DEPTH)).is_none());
        assert!(read(&("[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH))).is_some());
        assert!(read(&("[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1))).is_none());
        assert!(read(&("1".repeat(MAX_WORD + 1) + " ")).is_none());
    }

    proptest! {
        /// What was written is valid JSON as soon as its texts, lists and objects are closed.
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}(),:'\"\\\\ux0-9a-fA-FTrueNon.\\n -]{0,40}") {
            if let Some((value, _)) = read(&text) {
                prop_assert!(value.to_string().len() <= 12 * text.len() + 8);
            }
        }

        #[test]
        fn json_is_read_as_itself(values in proptest::collection::vec((".{0,8}", any::<i64>(), any::<bool>()), 0..4)) {
            let value = json!({ "list": values, "o": { "": null } });
            let text = format!("{value:#}");
            prop_assert_eq!(read(&text), Some((value, "")));
        }
    }
}
