//! GLM-4's calls: a line with the name of a tool, and an object.

use super::super::literal::Literal;
use super::cursor::{Cursor, Problem};
use super::{Step, feed};
use crate::text::chat::tools::Offered;

/// A line with the name of a tool, and then the beginning of an object.
pub(super) fn begin(cursor: &mut Cursor, offered: &Offered) -> Result<String, Problem> {
    let name = cursor.tool(offered)?.to_owned();
    cursor.space()?;
    let after = cursor.at;
    cursor.expect("{")?;
    cursor.space()?;
    let is_object = matches!(cursor.next()?, '"' | '\'' | '}');
    cursor.at = after;
    if is_object { Ok(name) } else { Err(Problem::Other) }
}

/// The object of the arguments.
#[derive(Debug, Clone)]
pub(in crate::text::chat::answer) struct Arguments(Literal);

impl Arguments {
    pub(super) fn new() -> Self {
        Arguments(Literal::new())
    }

    pub(super) fn read(&mut self, held: &mut String, at_end: bool, out: &mut String) -> Step {
        feed(&mut self.0, held, at_end, out)
    }
}
