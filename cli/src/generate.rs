//! `glm generate`: one prompt, one answer.

use anyhow::Result;
use glm_model::{
    AnswerEvent, Generation, Message, PromptOptions, Role, Template, TextStream, Tokenizer,
};
use serde_json::json;

use crate::answer;
use crate::args::Generate;
use crate::chat::thoughts::Thoughts;
use crate::failure::{self, usage};
use crate::interrupt::{self, Again};
use crate::output::{self, note};
#[cfg(feature = "grammar")]
use crate::structure;
use crate::{input, messages, open};

pub fn run(args: &Generate) -> Result<()> {
    let Prompt { ids, tokenizer, template } = prompt(args)?;
    let model = open::model(&args.model, tokenizer.as_ref())?;
    open::note_unusable(args.answering.unusable(&model));
    let mut request = args.answering.request(&model);
    request.cancel = interrupt::token(Again::Exits)?;
    if let (Some(template), Some(tokenizer)) = (&template, &tokenizer) {
        request = request.ending_as(template, tokenizer);
    }
    if args.ignore_eos {
        request.stop_ids.clear();
    }
    #[cfg(feature = "grammar")]
    if let (Some(template), Some(tokenizer)) = (&template, &tokenizer) {
        let ends = &request.stop_ids;
        request.constraint =
            structure::constraint(&args.structure, tokenizer, template, &ids, ends)?;
    }
    let seed = answer::seed(&request.sampling);
    let sequence = model.sequence(args.answering.context)?;
    let generation = Generation::new(&model, sequence, &ids, request)?;
    let shown = match &tokenizer {
        Some(tokenizer) => {
            let stream = TextStream::new(tokenizer).without_special();
            let mut text = generation.text(stream.stopping_at(&args.answering.stop)?);
            let mut thoughts = Thoughts::new(false);
            let mut show = |event: &AnswerEvent| match args.json {
                true => Ok(()),
                false => thoughts.show(event).and_then(|()| answer::say_text(event)),
            };
            let shown = match &template {
                Some(template) => {
                    let parser = template.answer_parser(tokenizer, &ids, None, "");
                    answer::show(&mut text.answer(parser), true, &mut show)
                }
                None => answer::show(&mut text, true, &mut show),
            };
            thoughts.end()?;
            shown?
        }
        None => answer::generate_ids(generation)?,
    };
    if args.json {
        let text = tokenizer.as_ref().map(|_| &shown.text);
        output::json(&shown.json(seed, json!({ "text": text })))?;
    } else if tokenizer.is_some() {
        output::line("")?;
    } else {
        output::json(&json!(shown.ids))?;
    }
    shown.close(args.stats)
}

/// The prompt, and how to turn the answer into text.
struct Prompt {
    ids: Vec<u32>,
    /// `None` if the prompt was given as ids and the model has no tokenizer.
    tokenizer: Option<Tokenizer>,
    /// The template of the prompt; `None` if it was given as ids.
    template: Option<Template>,
}

fn prompt(args: &Generate) -> Result<Prompt> {
    let Some(ids) = &args.ids else {
        let text =
            input::text(args.prompt.as_deref().or(args.text.as_deref()), messages::no_prompt)?;
        let tokenizer = open::tokenizer(&args.model.source)?;
        let template = open::template(&args.model.source, args.template.as_deref(), &tokenizer)?;
        let mut options = PromptOptions::default();
        options.thinking = args.thinking.think;
        let message = Message::new(Role::User, text);
        let ids = template.prompt_ids_with(&tokenizer, &[message], options)?;
        return Ok(Prompt { ids, tokenizer: Some(tokenizer), template: Some(template) });
    };
    if ids.0.is_empty() {
        return Err(usage(messages::no_ids()));
    }
    let ids = ids.0.clone();
    // Ids can do without text, unless stop strings are to be found in it.
    match open::tokenizer(&args.model.source) {
        Err(error) if args.answering.stop.is_empty() => {
            note(&messages::ids_only(failure::message(&error)));
            Ok(Prompt { ids, tokenizer: None, template: None })
        }
        tokenizer => Ok(Prompt { ids, tokenizer: Some(tokenizer?), template: None }),
    }
}
