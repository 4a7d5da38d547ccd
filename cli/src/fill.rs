//! `glm fill`: fills the blanks in a text from left to right.

use std::io::{IsTerminal, stdout};

use anyhow::Result;
use glm_model::{
    AnswerEvent, Error, Fill, FinishReason, Generation, Model, Request, TextStream, Tokenizer,
};
use serde_json::{Value, json};

use crate::answer::{self, Show, Shown};
use crate::args;
use crate::interrupt::{self, Again};
use crate::output::{self, say};
use crate::{input, messages, open};

pub fn run(args: &args::Fill) -> Result<()> {
    let text = input::text(args.text.as_deref(), messages::no_text)?;
    let tokenizer = open::tokenizer(&args.model.source)?;
    let mut fill = Fill::new(&tokenizer, &text)?;
    let model = open::model(&args.model, Some(&tokenizer))?;
    open::note_unusable(args.answering.unusable(&model));
    let mut request = args.answering.request(&model);
    request.cancel = interrupt::token(Again::Exits)?;

    // On a terminal the words are shown as they are generated. A pipe gets the text at the end, and nothing if nothing was filled.
    let streams = !args.json && stdout().is_terminal();
    let mut spans: Vec<Span> = Vec::new();
    let mut ended = Ok(());
    while let (Some(prompt), Ok(())) = (fill.prompt(), &ended) {
        let before = &fill.texts()[spans.len()];
        // The bar of the prompt clears its line, so text is printed after it, and there is no bar once there is text.
        let mut began = false;
        let mut show = |event: &AnswerEvent| {
            if streams && !std::mem::replace(&mut began, true) {
                say(before)?;
            }
            if streams { answer::say_text(event) } else { Ok(()) }
        };
        let is_first = spans.is_empty();
        let shown = answer(args, &model, &tokenizer, &prompt, &request, is_first, &mut show);
        let shown = match shown {
            Err(error) if !is_first => {
                ended = Err(error);
                break;
            }
            shown => shown?,
        };
        show(&AnswerEvent::Text(String::new()))?;
        let seed = answer::seed(&request.sampling);
        request.sampling.seed = request.sampling.seed.wrapping_add(1);
        ended = put(&mut fill, &tokenizer, &shown);
        let stops = matches!(shown.finish, FinishReason::Cancelled | FinishReason::Context);
        spans.push(Span { shown, seed });
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
    spans.iter().try_for_each(|span| span.shown.close(args.stats))?;
    ended
}

/// Generates what fills the next blank. To cancel it before its first id is an error: the blank is left.
fn answer(
    args: &args::Fill,
    model: &Model,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    request: &Request,
    with_bar: bool,
    show: &mut Show<'_>,
) -> Result<Shown> {
    let sequence = model.sequence(args.answering.context)?;
    let stream = TextStream::new(tokenizer).without_special().stopping_at(&args.answering.stop)?;
    let mut text = Generation::new(model, sequence, prompt, request.clone())?.text(stream);
    let shown = answer::show(&mut text, with_bar, show)?;
    match shown.finish {
        FinishReason::Cancelled if shown.ids.is_empty() => Err(Error::Cancelled.into()),
        _ => Ok(shown),
    }
}

/// Puts an answer in its blank: its ids, or its text if a stop string ended it.
fn put(fill: &mut Fill, tokenizer: &Tokenizer, shown: &Shown) -> Result<()> {
    match shown.is_cut {
        false => Ok(fill.fill(tokenizer, &shown.ids)?),
        true => Ok(fill.fill(tokenizer, &tokenizer.encode(&shown.text)?)?),
    }
}

/// The text behind the first `shown` blanks, with the other blanks as they were written.
fn rest(fill: &Fill, shown: usize) -> String {
    let blanks = fill.blanks()[shown..].iter().map(|blank| blank.name()).chain([""]);
    fill.texts()[shown..].iter().zip(blanks).map(|(text, blank)| format!("{text}{blank}")).collect()
}

/// The answer that filled a blank.
struct Span {
    shown: Shown,
    seed: Option<u64>,
}

/// The filled text, the spans, and the answers.
fn json(fill: &Fill, spans: &[Span]) -> Value {
    let answer = |span: &Span| span.shown.json(span.seed, json!({ "text": span.shown.text }));
    json!({ "text": fill.written(), "spans": fill.spans(), "answers": spans.iter().map(answer).collect::<Vec<_>>() })
}
