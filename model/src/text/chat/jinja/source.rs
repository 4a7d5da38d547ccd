//! What transformers adds to the language, written in terms of what the engine has: `{% generation %} … {% endgeneration %}` marks
//! what the assistant says, for training, and becomes `{% with %} … {% endwith %}`.
//!
//! Lines stay where they are, so that errors name them. What is no valid template stays invalid.

use crate::limits::template::MAX_TAG_TOKENS;
use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

/// The template in the terms of the engine.
///
/// # Errors
/// If a tag is too long.
pub(super) fn rewritten(source: &str, syntax: &SyntaxConfig) -> Result<String, String> {
    let mut out = String::with_capacity(source.len());
    let mut from = 0;
    let mut begins = false;
    let mut tokens = 0;
    // What is wrong is found by the parser.
    for (token, span) in tokenize(source, false, syntax.clone()).map_while(Result::ok) {
        let replaced = match token {
            Token::Ident("generation") if begins => "with",
            Token::Ident("endgeneration") if begins => "endwith",
            _ => "",
        };
        let at = span.start_offset as usize..span.end_offset as usize;
        if let (false, Some(kept)) = (replaced.is_empty(), source.get(from..at.start)) {
            out.push_str(kept);
            out.push_str(replaced);
            from = at.end;
        }
        begins = matches!(token, Token::BlockStart);
        tokens = if begins || matches!(token, Token::VariableStart) { 0 } else { tokens + 1 };
        if tokens > MAX_TAG_TOKENS {
            let line = span.start_line;
            return Err(format!(
                "a tag that ends behind line {line} has more than {MAX_TAG_TOKENS} words and signs"
            ));
        }
    }
    Ok(out + source.get(from..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_engine_lacks_is_rewritten() {
        for (source, expected) in [
            ("{%- generation -%}\na{% endgeneration %}", "{%- with -%}\na{% endwith %}"),
            ("{# {% generation %} #}{% raw %}{% generation %}{% endraw %}", ""),
            ("{% set generation = 1 %}{{ generation }}", ""),
            ("{{ {'a': {'b': '%}'}} }}{% generation", "{{ {'a': {'b': '%}'}} }}{% with"),
            ("{{ 'a' %", ""),
            ("{{ \"it\\\"s\" % }}{%%}{{}}{", ""),
        ] {
            let expected = if expected.is_empty() { source } else { expected };
            assert_eq!(rewritten(source, &SyntaxConfig::default()).unwrap(), expected);
        }
    }
}
