//! The patterns of `adapter_config.json`: regular expressions for the paths of modules.

use crate::limits::adapter::{MAX_PATTERN, MAX_PATTERN_TEXT, MAX_PATTERNS, MAX_REGEX, MAX_REGEXES};
use regex_automata::meta::{Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::util::syntax;

/// Compiles the patterns of a file, as long as they are no more than a file may have.
pub(super) struct Compiler {
    patterns: usize,
    text: usize,
    regexes: usize,
}

impl Default for Compiler {
    fn default() -> Self {
        Self { patterns: MAX_PATTERNS, text: MAX_PATTERN_TEXT, regexes: MAX_REGEXES }
    }
}

impl Compiler {
    /// The regular expression for paths that end as `pattern` says.
    ///
    /// # Errors
    /// What is wrong with the field of the pattern.
    pub(super) fn compile(&mut self, pattern: &str) -> Result<Regex, String> {
        let spend = |left: &mut usize, count: usize, most: usize, of: &str| {
            let rest = left.checked_sub(count);
            *left = rest.ok_or_else(|| {
                format!("makes the patterns of the file too many: at most {most} {of}")
            })?;
            Ok::<_, String>(())
        };
        spend(&mut self.patterns, 1, MAX_PATTERNS, "patterns are read")?;
        if pattern.len() > MAX_PATTERN {
            let len = pattern.len();
            return Err(format!("has a pattern of {len} bytes, more than {MAX_PATTERN}"));
        }
        spend(&mut self.text, pattern.len(), MAX_PATTERN_TEXT, "bytes of patterns are read")?;
        // Without a lazy DFA and without groups, whose caches would take more memory than the pattern. Paths are short and matched once.
        let config = Config::new()
            .nfa_size_limit(Some(MAX_REGEX))
            .hybrid(false)
            .which_captures(WhichCaptures::None);
        // Paths are ASCII, and the classes of Unicode are large. peft begins at the start of the path, or behind any of its dots.
        let regex = Regex::builder()
            .syntax(syntax::Config::new().utf8(false).unicode(false))
            .configure(config)
            .build(&format!(r"^(?:.*\.)?(?:{pattern})$"))
            .map_err(|error| match error.size_limit() {
                Some(limit) => {
                    format!("has the pattern {pattern:?}, which takes more than {limit} bytes")
                }
                None => format!("has the pattern {pattern:?}, which cannot be read"),
            })?;
        let of = "bytes of compiled patterns are kept";
        spend(&mut self.regexes, regex.memory_usage(), MAX_REGEXES, of)?;
        Ok(regex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many patterns `make` gives until one is refused, and how it is.
    fn refused(make: impl Fn(usize) -> String) -> (usize, String) {
        let mut compiler = Compiler::default();
        let mut each = (0..).map(|index| (index, compiler.compile(&make(index))));
        let refused = each.find_map(|(index, result)| result.err().map(|error| (index, error)));
        refused.unwrap()
    }

    #[test]
    fn the_patterns_of_a_file_are_bounded() {
        for (make, count, problem) in [
            ((|_| "q".to_owned()) as fn(usize) -> String, 2048..2049, "at most 2048 patterns"),
            (|_| "q".repeat(1 << 10), 128..129, "at most 131072 bytes of patterns"),
            (|_| "(a|b){300}".to_owned(), 200..1000, "at most 8388608 bytes of compiled patterns"),
            (|_| r"\w{9999}".to_owned(), 0..1, "more than 65536 bytes"),
            (|_| r"\w(".to_owned(), 0..1, "cannot be read"),
            (|_| "q".repeat(1025), 0..1, "has a pattern of 1025 bytes, more than 1024"),
        ] {
            let (found, error) = refused(make);
            assert!(count.contains(&found) && error.contains(problem), "{found}: {error}");
        }
    }

    #[test]
    fn classes_are_those_of_ascii() {
        let pattern = r"\w+\.(?:\w+\.)*layers\.\d+\.\w*(?:attn|attention)\.[^.]{1,99}";
        let regex = Compiler::default().compile(pattern).unwrap();
        assert!(regex.is_match("base.model.layers.12.self_attn.q_proj"));
        assert!(!regex.is_match("base.model.layers.x.self_attn.q_proj"));
        assert!(!regex.is_match("base.model.layers.12.self_attn.q.proj"));
    }

    /// With them, a match took 20 MB.
    #[test]
    fn groups_take_no_memory_when_they_match() {
        let pattern = format!("{}(?:a?){{400}}", "()".repeat(400));
        let regex = Compiler::default().compile(&pattern).unwrap();
        assert!(regex.is_match("model.a"));
        assert!(regex.create_cache().memory_usage() < 1 << 20);
    }

    /// A rank and an alpha for each module of the largest model.
    #[test]
    fn every_module_may_have_its_own() {
        let mut compiler = Compiler::default();
        for layer in 0..122 {
            for module in ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"] {
                compiler.compile(&format!("model.layers.{layer}.self_attn.{module}")).unwrap();
            }
        }
    }
}
