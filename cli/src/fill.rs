//! `glm fill`: the blank in a text, filled.

use std::io::{IsTerminal, stdout};

use anyhow::Result;
use glm_model::{Blank, Tokenizer, fill_prompt};
use serde_json::json;

use crate::answer::Answerer;
use crate::args::Fill;
use crate::interrupt::{self, Again};
use crate::output::{self, say};
use crate::{input, open};

pub fn run(args: &Fill) -> Result<()> {
    args.answering.sampling()?;
    let text = input::text(args.text.as_deref(), "the text")?;
    let tokenizer = Tokenizer::open(&args.model.model)?;
    let (prompt, blank) = fill_prompt(&tokenizer, &text)?;
    let (before, after) = around(&text, blank);
    let model = open::model(&args.model, Some(&tokenizer))?;
    let cancel = interrupt::token(Again::Exits)?;
    let mut answerer = Answerer::new(&model, &args.answering, cancel)?;

    // A reader gets to see the words as they come; a pipe gets nothing of a text that is not finished.
    let streams = !args.json && stdout().is_terminal();
    let mut began = false;
    let mut show = |piece: &str| {
        if streams && !piece.is_empty() && !std::mem::replace(&mut began, true) {
            say(before)?;
        }
        if streams { say(piece) } else { Ok(()) }
    };
    let reply = answerer.answer(&prompt, Some(&tokenizer), &mut show)?;
    let filled = format!("{before}{}{after}", reply.text);
    if args.json {
        let fields = json!({ "text": filled, "spans": [reply.text] });
        output::json(&reply.json(answerer.seed(), fields))?;
    } else if began {
        output::line(after)?;
    } else {
        output::line(&filled)?;
    }
    reply.close(args.stats)
}

/// What stands on both sides of the blank.
fn around(text: &str, blank: Blank) -> (&str, &str) {
    let name = match blank {
        Blank::Mask => "[MASK]",
        Blank::Gmask => "[gMASK]",
    };
    text.split_once(name).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_around_the_gap_stay() {
        assert_eq!(around("a [MASK] b", Blank::Mask), ("a ", " b"));
        assert_eq!(around("[gMASK]", Blank::Gmask), ("", ""));
    }
}
