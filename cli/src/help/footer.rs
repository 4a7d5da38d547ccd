//! The text below the arguments: paragraphs, and indented examples.

use super::wrap;

/// A part of a footer.
pub enum Block {
    /// Prose, on one line.
    Paragraph(String),
    /// Lines that are printed as they are.
    Examples(Vec<String>),
}

/// The parts of a footer. Lines that follow each other are one paragraph; a line that ends with a colon ends it, and so does an
/// empty one.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut continues = false;
    for line in text.lines() {
        match (line.starts_with(' '), blocks.last_mut()) {
            _ if line.is_empty() => {}
            (true, Some(Block::Examples(lines))) if continues => lines.push(line.to_owned()),
            (true, _) => blocks.push(Block::Examples(vec![line.to_owned()])),
            (false, Some(Block::Paragraph(text))) if continues => {
                text.push(' ');
                text.push_str(line);
            }
            (false, _) => blocks.push(Block::Paragraph(line.to_owned())),
        }
        continues = !line.is_empty() && (line.starts_with(' ') || !line.ends_with(':'));
    }
    blocks
}

/// The footer with its paragraphs broken into lines of `columns`. Paragraphs are apart from each other, and examples follow the line
/// that introduces them.
pub fn wrapped(text: &str, columns: usize) -> String {
    let mut wrapped = String::new();
    let mut introduces = false;
    for block in blocks(text) {
        if !wrapped.is_empty() {
            wrapped.push_str(if introduces { "\n" } else { "\n\n" });
        }
        match block {
            Block::Paragraph(text) => {
                introduces = text.ends_with([':', '：']);
                wrapped.push_str(&wrap::lines(&text, columns).join("\n"));
            }
            Block::Examples(lines) => {
                introduces = false;
                wrapped.push_str(&lines.join("\n"));
            }
        }
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_joined_and_examples_are_left() {
        let text = "A text of\ntwo lines.\n\nExamples:\n  glm a b c d e f g\n  glm h\n\nThe end.";
        let expected =
            "A text\nof two\nlines.\n\nExamples:\n  glm a b c d e f g\n  glm h\n\nThe end.";
        assert_eq!(wrapped(text, 8), expected);
    }
}
