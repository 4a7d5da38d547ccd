//! `glm generate`: one prompt, one answer.

use anyhow::{Result, ensure};
use glm_model::{Message, Role, Template, Tokenizer};
use serde_json::{Value, json};

use crate::answer::{Answerer, Reply};
use crate::args::Generate;
use crate::interrupt::{self, Again};
use crate::output::{self, note, say};
use crate::{input, open};

pub fn run(args: &Generate) -> Result<()> {
    args.answering.check()?;
    let Prompt { ids, tokenizer, template } = prompt(args)?;
    let model = open::model(&args.model, tokenizer.as_ref())?;
    let cancel = interrupt::token(Again::Exits)?;
    let mut answerer = Answerer::new(&model, &args.answering, cancel)?;
    if let (Some(template), Some(tokenizer)) = (&template, &tokenizer) {
        answerer = answerer.ending_as(template, tokenizer);
    }
    if args.ignore_eos {
        answerer = answerer.endless();
    }
    let mut show = |piece: &str| if args.json { Ok(()) } else { say(piece) };
    let reply = answerer.answer(&ids, tokenizer.as_ref(), &mut show)?;
    match (&tokenizer, args.json) {
        (_, true) => output::json(&json(&reply, &tokenizer, &answerer))?,
        (Some(_), false) => output::line("")?,
        (None, false) => output::json(&json!(reply.ids))?,
    }
    reply.close(args.stats)
}

/// What is answered.
struct Prompt {
    ids: Vec<u32>,
    /// Where there is one: ids can do without.
    tokenizer: Option<Tokenizer>,
    /// How the prompt was written, unless it was given as ids.
    template: Option<Template>,
}

fn prompt(args: &Generate) -> Result<Prompt> {
    let tokenizer = open::tokenizer(&args.model.source);
    let Some(ids) = &args.ids else {
        let text = input::text(args.prompt.as_deref().or(args.text.as_deref()), "the prompt")?;
        let tokenizer = tokenizer?;
        let template = open::template(&args.model.source, args.template.as_deref(), &tokenizer)?;
        let ids = template.prompt_ids(&tokenizer, &[Message::new(Role::User, text)])?;
        return Ok(Prompt { ids, tokenizer: Some(tokenizer), template: Some(template) });
    };
    ensure!(!ids.0.is_empty(), "--ids is an empty list");
    let ids = ids.0.clone();
    // Ids need no text, unless the text is to end the answer.
    match tokenizer {
        Err(error) if args.answering.stop.is_empty() => {
            note(&format!("ids only, no text: {error}"));
            Ok(Prompt { ids, tokenizer: None, template: None })
        }
        tokenizer => Ok(Prompt { ids, tokenizer: Some(tokenizer?), template: None }),
    }
}

fn json(reply: &Reply, tokenizer: &Option<Tokenizer>, answerer: &Answerer) -> Value {
    let text = tokenizer.as_ref().map(|_| &reply.text);
    reply.json(answerer.seed(), json!({ "text": text }))
}
