//! `glm score`: how likely given answers are.

use std::io::{IsTerminal, stdin};

use anyhow::{Context, Result};
use glm_model::{Fill, Message, Role, Score, Tokenizer, answer_ids, fill_prompt, has_blank, score};
use serde_json::{Value, json};

use crate::args;
use crate::failure::usage;
use crate::interrupt::{self, Again};
use crate::{input, messages, open, output};

pub fn run(args: &args::Score) -> Result<()> {
    let text = input::text(Some(&args.text), messages::no_question)?;
    let answers = answers(args)?;
    let tokenizer = open::tokenizer(&args.model.source)?;
    let Asked { prompt, answers: ids, mut ends } = asked(args, &tokenizer, &text, &answers)?;
    let model = open::model(&args.model, Some(&tokenizer))?;
    ends.extend(&model.config().special.ends);
    ends.sort_unstable();
    ends.dedup();
    let cancel = interrupt::token(Again::Exits)?;
    let mut sequence = model.sequence(args.context)?;
    let scores = score(&model, &mut sequence, &prompt, &ids, &ends, &cancel)?;
    if args.json {
        let all = answers.iter().zip(&ids).zip(&scores);
        return output::json(&all.map(|((text, ids), score)| json(text, ids, score)).collect());
    }
    let total = |score: &Score| score.log_probability + if args.whole { score.end } else { 0.0 };
    let mut ranked: Vec<_> = answers.iter().zip(&scores).collect();
    ranked.sort_by(|(_, a), (_, b)| total(b).total_cmp(&total(a)));
    ranked.into_iter().try_for_each(|(text, score)| {
        output::line(&format!("{:.4}\t{}\t{text}", total(score), score.tokens))
    })
}

/// The answers in the arguments, or the lines of stdin.
fn answers(args: &args::Score) -> Result<Vec<String>> {
    if !args.answers.is_empty() {
        return Ok(args.answers.clone());
    }
    if stdin().is_terminal() {
        return Err(usage(messages::no_answers()));
    }
    let mut lines = stdin().lock();
    let answers: Vec<_> = std::iter::from_fn(|| input::line(&mut lines).transpose())
        .collect::<Result<_>>()
        .context("stdin")?;
    match answers.is_empty() {
        true => Err(usage(messages::no_answers())),
        false => Ok(answers),
    }
}

/// Prompt and answers, as ids.
struct Asked {
    prompt: Vec<u32>,
    answers: Vec<Vec<u32>>,
    /// Ids that end an answer, in addition to the model's.
    ends: Vec<u32>,
}

/// The prompt for a text with a blank, or for a question.
fn asked(
    args: &args::Score,
    tokenizer: &Tokenizer,
    text: &str,
    answers: &[String],
) -> Result<Asked> {
    if has_blank(tokenizer, text) {
        let blanks = Fill::new(tokenizer, text)?.blanks().len();
        if blanks > 1 {
            return Err(usage(messages::too_many_blanks(blanks)));
        }
        let answers = answers.iter().map(|answer| answer_ids(tokenizer, text, answer));
        let (prompt, answers) = (fill_prompt(tokenizer, text)?, answers.collect::<Result<_, _>>()?);
        return Ok(Asked { prompt, answers, ends: Vec::new() });
    }
    let template = open::template(&args.model.source, args.template.as_deref(), tokenizer)?;
    let question = Message::new(Role::User, text);
    let (prompt, answers) = template.with_answers(tokenizer, &[question], answers)?;
    Ok(Asked { prompt, answers, ends: template.stop_ids(tokenizer) })
}

fn json(text: &str, ids: &[u32], score: &Score) -> Value {
    json!({
        "text": text,
        "ids": ids,
        "log_probability": score.log_probability,
        "end_log_probability": score.end,
    })
}
