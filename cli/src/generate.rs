//! `glm generate`: one prompt, one answer.

use anyhow::{Result, ensure};
use glm_model::{Message, Role, Tokenizer};
use serde_json::{Value, json};

use crate::answer::{Answerer, Reply};
use crate::args::Generate;
use crate::interrupt::{self, Again};
use crate::output::{self, note, say};
use crate::{input, open};

pub fn run(args: &Generate) -> Result<()> {
    args.answering.sampling()?;
    let (prompt, tokenizer) = prompt(args)?;
    let model = open::model(&args.model, tokenizer.as_ref())?;
    let cancel = interrupt::token(Again::Exits)?;
    let mut answerer = Answerer::new(&model, &args.answering, cancel)?;
    if args.ignore_eos {
        answerer = answerer.endless();
    }
    let mut show = |piece: &str| if args.json { Ok(()) } else { say(piece) };
    let reply = answerer.answer(&prompt, tokenizer.as_ref(), &mut show)?;
    match (&tokenizer, args.json) {
        (_, true) => output::json(&json(&reply, &tokenizer, &answerer))?,
        (Some(_), false) => output::line("")?,
        (None, false) => output::json(&json!(reply.ids))?,
    }
    reply.close(args.stats)
}

/// The ids of the prompt, and the tokenizer where there is one.
fn prompt(args: &Generate) -> Result<(Vec<u32>, Option<Tokenizer>)> {
    let tokenizer = open::tokenizer(&args.model.source);
    let Some(ids) = &args.ids else {
        let text = input::text(args.prompt.as_deref(), "the prompt")?;
        let tokenizer = tokenizer?;
        let template = open::template(&args.model.source, &tokenizer)?;
        let ids = template.prompt_ids(&tokenizer, &[Message::new(Role::User, text)])?;
        return Ok((ids, Some(tokenizer)));
    };
    ensure!(!ids.0.is_empty(), "--ids is an empty list");
    // Ids need no text, unless the text is to end the answer.
    if let Err(error) = &tokenizer
        && args.answering.stop.is_empty()
    {
        note(&format!("ids only, no text: {error}"));
        return Ok((ids.0.clone(), None));
    }
    Ok((ids.0.clone(), Some(tokenizer?)))
}

fn json(reply: &Reply, tokenizer: &Option<Tokenizer>, answerer: &Answerer) -> Value {
    let text = tokenizer.as_ref().map(|_| &reply.text);
    reply.json(answerer.seed(), json!({ "text": text }))
}
