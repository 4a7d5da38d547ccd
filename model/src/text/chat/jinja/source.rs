//! What transformers adds to the language, and what this engine lacks, written in terms of what it has:
//!
//! ```text
//! {% generation %} … {% endgeneration %}     {% with %} … {% endwith %}     marks what the assistant says, for training
//! '%s: %d' % (name, count)                   '%s: %d'|percent((name, count))
//! {% set space.name = value %}               {% set space.name = (value)|held %}     see held.rs
//! ```
//!
//! Lines stay where they are, so that errors name them. What is no valid template stays invalid.

use std::ops::Range;

/// The filter for Python's `%` with a text.
pub(super) const PERCENT: &str = "percent";

/// The filter for what a namespace holds.
pub(super) const HELD: &str = "held";

/// A word, a text or a character of a tag.
#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    at: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    Text,
    Other,
}

/// The template in the terms of the engine.
pub(super) fn rewritten(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = next_tag(rest) {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        if tag.starts_with("{#") {
            let end = tag.find("#}").map_or(tag.len(), |end| end + 2);
            out.push_str(&tag[..end]);
            rest = &tag[end..];
            continue;
        }
        let (tokens, end) = tokens(tag);
        let is_block = tag.starts_with("{%");
        let edits = edits(tag, &tokens, is_block);
        out.push_str(&edited(&tag[..end], edits));
        rest = &tag[end..];
        let mut words = tokens.iter().map(|token| &tag[token.at.clone()]);
        if is_block && words.find(|word| !is_sign(word)) == Some("raw") {
            let end = rest.find("endraw").unwrap_or(rest.len());
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out + rest
}

/// Where the next tag or comment begins.
fn next_tag(text: &str) -> Option<usize> {
    let starts = text.match_indices('{').map(|(at, _)| at);
    starts.into_iter().find(|&at| matches!(text.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')))
}

/// The tokens of the tag that a text begins with, and the end of the tag: behind its last character.
fn tokens(tag: &str) -> (Vec<Token>, usize) {
    let bytes = tag.as_bytes();
    let close: &[u8] = if tag.starts_with("{%") { b"%}" } else { b"}}" };
    let mut tokens = Vec::new();
    let (mut at, mut depth) = (2, 0_usize);
    while at < bytes.len() {
        let start = at;
        let c = bytes[at];
        if depth == 0 && bytes[at..].starts_with(close) {
            return (tokens, at + 2);
        }
        let kind = match c {
            b'\'' | b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != c {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                Kind::Text
            }
            _ if is_of_word(c) => {
                at += bytes[at..].iter().take_while(|&&c| is_of_word(c)).count();
                Kind::Word
            }
            _ => {
                match c {
                    b'(' | b'[' | b'{' => depth += 1,
                    b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                at += 1;
                Kind::Other
            }
        };
        if !c.is_ascii_whitespace() {
            tokens.push(Token { kind, at: start..at.min(bytes.len()) });
        }
    }
    (tokens, tag.len())
}

fn is_of_word(c: u8) -> bool {
    c == b'_' || c.is_ascii_alphanumeric() || !c.is_ascii()
}

fn is_sign(word: &str) -> bool {
    matches!(word, "-" | "+")
}

/// Replacements of parts of a tag, in order.
type Edits = Vec<(Range<usize>, String)>;

fn edits(tag: &str, tokens: &[Token], is_block: bool) -> Edits {
    let of = |index: usize| tokens.get(index).map_or("", |token| &tag[token.at.clone()]);
    let mut edits = Edits::new();
    // `{%-` and `-%}` remove white space.
    let signs = |index: usize| is_sign(of(index));
    let first = usize::from(signs(0));
    let last = tokens.len() - usize::from(tokens.len() > first + 1 && signs(tokens.len() - 1));
    if is_block && last == first + 1 {
        let replaced = match of(first) {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => return edits,
        };
        return vec![(tokens[first].at.clone(), replaced.to_owned())];
    }
    let closers = closers(tag, &tokens[..last]);
    for (index, token) in tokens[..last].iter().enumerate() {
        if token.kind == Kind::Text && of(index + 1) == "%" {
            let end = operand(tag, &tokens[..last], &closers, index + 2);
            if end > index + 2 {
                edits.push((tokens[index + 1].at.clone(), format!("|{PERCENT}(")));
                edits.push((tokens[end - 1].at.end..tokens[end - 1].at.end, ")".to_owned()));
            }
        }
    }
    // Last, because the sort is stable and this encloses all others.
    if is_block
        && of(first) == "set"
        && let Some(equals) = assignment(tag, &tokens[..last])
    {
        let (start, end) = (tokens[equals].at.end, tokens[last - 1].at.end);
        edits.push((start..start, "(".to_owned()));
        edits.push((end..end, format!(")|{HELD}")));
    }
    edits.sort_by_key(|(at, _)| at.start);
    edits
}

/// The `=` of an assignment to an attribute.
fn assignment(tag: &str, tokens: &[Token]) -> Option<usize> {
    let of = |index: usize| tokens.get(index).map_or("", |token| &tag[token.at.clone()]);
    let equals = (0..tokens.len()).find(|&index| of(index) == "=")?;
    let is_attribute = (0..equals).any(|index| of(index) == ".");
    (is_attribute && of(equals + 1) != "=" && equals + 1 < tokens.len()).then_some(equals)
}

/// The end of the operand that begins at `index`: a value with its attributes, subscripts, calls and filters.
fn operand(tag: &str, tokens: &[Token], closers: &[usize], index: usize) -> usize {
    let of = |index: usize| tokens.get(index).map_or("", |token| &tag[token.at.clone()]);
    let mut at = index + usize::from(matches!(of(index), "-" | "+"));
    match of(at) {
        "" => return index,
        "(" | "[" | "{" => at = closers[at],
        _ if tokens[at].kind == Kind::Other => return index,
        _ => at += 1,
    }
    loop {
        match of(at) {
            "(" | "[" => at = closers[at],
            "." | "|" => at += 2,
            _ => return at.min(tokens.len()),
        }
    }
}

/// For each opening bracket, the index behind the one that closes it.
fn closers(tag: &str, tokens: &[Token]) -> Vec<usize> {
    let mut closers = vec![tokens.len(); tokens.len()];
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match &tag[token.at.clone()] {
            "(" | "[" | "{" => open.push(at),
            ")" | "]" | "}" => {
                if let Some(start) = open.pop() {
                    closers[start] = at + 1;
                }
            }
            _ => {}
        }
    }
    closers
}

fn edited(tag: &str, edits: Edits) -> String {
    let mut out = String::with_capacity(tag.len());
    let mut from = 0;
    for (at, replacement) in edits {
        // One inside another's end is possible only in what is no expression.
        let Some(kept) = tag.get(from..at.start) else { continue };
        out.push_str(kept);
        out.push_str(&replacement);
        from = at.end;
    }
    out + &tag[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_engine_lacks_is_rewritten() {
        for (source, expected) in [
            ("{%- generation -%}\na{% endgeneration %}", "{%- with -%}\na{% endwith %}"),
            ("{{ '%s' % x }}", "{{ '%s' |percent( x) }}"),
            (
                "{{ '%s-%d' % (a.b[0], 'c') ~ 1 % 2 }}",
                "{{ '%s-%d' |percent( (a.b[0], 'c')) ~ 1 % 2 }}",
            ),
            ("{{ f('%s' % a.b(1)|trim, 2) }}", "{{ f('%s' |percent( a.b(1)|trim), 2) }}"),
            ("{% set n.x = a, b %}", "{% set n.x =( a, b)|held %}"),
            ("{%- set n.x='%s' % a -%}", "{%- set n.x=('%s' |percent( a))|held -%}"),
            ("{% set x = n.y == 1 %}{% set n.x %}a{% endset %}", ""),
            ("{# {% generation %} '%s' % x #}{% raw %}{% generation %}{% endraw %}", ""),
            ("{{ {'a': {'b': '%}'}} }}{% generation", "{{ {'a': {'b': '%}'}} }}{% with"),
            ("{%- raw -%}{{ '%s' % x }}{%- endraw %}", ""),
            ("{{ {'a': {'b': '%}'}} }}{% if", ""),
            ("{{ '%' }}{{ 'a' %", ""),
            ("{{ \"it\\\"s\" % }}{%%}{{}}{", ""),
        ] {
            let expected = if expected.is_empty() { source } else { expected };
            assert_eq!(rewritten(source), expected);
        }
    }
}
