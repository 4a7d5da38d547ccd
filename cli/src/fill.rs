//! `glm fill`: the blanks in a text, filled from left to right.

use std::io::{IsTerminal, stdout};

use anyhow::{Result, anyhow};
use glm_model::{Blank, Finish, blank, fill_prompt};
use serde_json::{Value, json};

use crate::answer::{Answerer, Reply};
use crate::args::Fill;
use crate::interrupt::{self, Again};
use crate::output::{self, say};
use crate::{input, open};

pub fn run(args: &Fill) -> Result<()> {
    args.answering.sampling()?;
    let text = input::text(args.text.as_deref(), "the text")?;
    let tokenizer = open::tokenizer(&args.model.source)?;
    let name = blank(&tokenizer, &text)?.name();
    let model = open::model(&args.model, Some(&tokenizer))?;
    let cancel = interrupt::token(Again::Exits)?;
    let mut answerer = Answerer::new(&model, &args.answering, cancel)?;

    // A reader gets to see the words as they come; a pipe gets nothing of a text that is not finished.
    let streams = !args.json && stdout().is_terminal();
    let mut filled = String::new();
    let mut rest = text.as_str();
    let mut spans = Vec::new();
    let mut ended = Ok(());
    while let Some((before, after)) = rest.split_once(name) {
        // What was put in a blank is text for those after it.
        let prompt = fill_prompt(&tokenizer, &format!("{filled}{rest}"))?;
        // The bar that shows how the prompt is read clears its line: text comes after it, and no bar once there is text.
        let mut began = false;
        let mut show = |piece: &str| {
            if streams && !std::mem::replace(&mut began, true) {
                say(before)?;
            }
            if streams { say(piece) } else { Ok(()) }
        };
        let seed = answerer.seed();
        let reply = match answerer.answer(&prompt, Some(&tokenizer), &mut show) {
            Err(error) if !spans.is_empty() => {
                ended = Err(error);
                break;
            }
            reply => reply?,
        };
        show("")?;
        answerer.next_seed();
        answerer = answerer.without_bar();
        filled = format!("{filled}{before}{}", reply.text);
        rest = after;
        let stops = matches!(reply.finish, Finish::Cancelled | Finish::Context);
        let confuses = [Blank::Mask, Blank::Smask, Blank::Gmask]
            .iter()
            .any(|blank| reply.text.contains(blank.name()));
        spans.push(Span { reply, seed });
        if confuses {
            ended = Err(anyhow!(
                "the answer has a blank of its own, and those after it stay as they are"
            ));
        }
        if stops || confuses {
            break;
        }
    }
    filled += rest;
    if args.json {
        output::json(&json(&filled, &spans))?;
    } else {
        output::line(if streams { rest } else { &filled })?;
    }
    spans.iter().try_for_each(|span| span.reply.close(args.stats))?;
    ended
}

/// What a blank was filled with.
struct Span {
    reply: Reply,
    seed: Option<u64>,
}

/// The filled text, its spans, and what is said of every answer.
fn json(text: &str, spans: &[Span]) -> Value {
    let texts: Vec<_> = spans.iter().map(|span| &span.reply.text).collect();
    let answer = |span: &Span| span.reply.json(span.seed, json!({ "text": span.reply.text }));
    json!({ "text": text, "spans": texts, "answers": spans.iter().map(answer).collect::<Vec<_>>() })
}
