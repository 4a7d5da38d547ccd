//! `glm fill`: the blanks in a text, filled from left to right.

use std::io::{IsTerminal, stdout};

use anyhow::Result;
use glm_model::{Fill, Finish, Tokenizer};
use serde_json::{Value, json};

use crate::answer::{Answerer, Reply};
use crate::args;
use crate::interrupt::{self, Again};
use crate::output::{self, say};
use crate::{input, open};

pub fn run(args: &args::Fill) -> Result<()> {
    args.answering.check()?;
    let text = input::text(args.text.as_deref(), "the text")?;
    let tokenizer = open::tokenizer(&args.model.source)?;
    let mut fill = Fill::new(&tokenizer, &text)?;
    let model = open::model(&args.model, Some(&tokenizer))?;
    let cancel = interrupt::token(Again::Exits)?;
    let mut answerer = Answerer::new(&model, &args.answering, cancel)?;

    // A reader gets to see the words as they come; a pipe gets the text at the end, and none of which nothing was filled.
    let streams = !args.json && stdout().is_terminal();
    let mut spans: Vec<Span> = Vec::new();
    let mut ended = Ok(());
    while let (Some(prompt), Ok(())) = (fill.prompt(), &ended) {
        let before = &fill.texts()[spans.len()];
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
        ended = put(&mut fill, &tokenizer, &reply);
        let stops = matches!(reply.finish, Finish::Cancelled | Finish::Context);
        spans.push(Span { reply, seed });
        if stops {
            break;
        }
    }
    if args.json {
        output::json(&json(&fill, &spans))?;
    } else if streams {
        output::line(&rest(&fill, spans.len()))?;
    } else if !fill.spans().is_empty() {
        output::line(&fill.written())?;
    }
    spans.iter().try_for_each(|span| span.reply.close(args.stats))?;
    ended
}

/// Puts an answer in its blank: its ids, or its text where that was cut off.
fn put(fill: &mut Fill, tokenizer: &Tokenizer, reply: &Reply) -> Result<()> {
    match reply.is_cut {
        false => Ok(fill.fill(tokenizer, &reply.ids)?),
        true => Ok(fill.fill(tokenizer, &tokenizer.encode(&reply.text)?)?),
    }
}

/// What is left of the text after as many answers as were shown.
fn rest(fill: &Fill, shown: usize) -> String {
    let blanks = fill.blanks()[shown..].iter().map(|blank| blank.name()).chain([""]);
    fill.texts()[shown..].iter().zip(blanks).map(|(text, blank)| format!("{text}{blank}")).collect()
}

/// What a blank was filled with.
struct Span {
    reply: Reply,
    seed: Option<u64>,
}

/// The filled text, its spans, and what is said of every answer.
fn json(fill: &Fill, spans: &[Span]) -> Value {
    let answer = |span: &Span| span.reply.json(span.seed, json!({ "text": span.reply.text }));
    json!({ "text": fill.written(), "spans": fill.spans(), "answers": spans.iter().map(answer).collect::<Vec<_>>() })
}
