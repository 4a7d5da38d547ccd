//! Texts that are to be continued, or whose blank is to be filled, and their continuations.

use crate::limits::request::MOST_COMPLETION_LOGPROBS;
use glm_model::{Message, Role, TextStream, fill_prompt};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Reader, Step, Usage};
use super::chat::StreamOptions;
use super::error::{ApiError, Result};
use super::fields::Fields;
use super::logprobs::{CompletionLogprobs, Logprobs};
use super::model::{ApiModel, Question, now, response_id};
use super::sampling::{choices, sampled_request};
use super::usage::UsageBody;

/// Tokens of an answer for which no number is given, as in OpenAI's API. A model that continues texts knows no end.
const FEW: usize = 16;

/// The blank that stands for a text of any length.
const BLANK: &str = "[gMASK]";

sampled_request! {
    /// Texts that are continued.
    pub struct CompletionRequest {
        pub prompt: Prompt,
        /// The text after a blank that is to be filled. Only for models that fill blanks.
        pub suffix: Option<String>,
        /// Number of answers to each prompt.
        pub n: Option<usize>,
        /// Not supported: it must be `n`.
        pub best_of: Option<usize>,
        /// Not supported.
        pub echo: Option<bool>,
        /// Send the answer in pieces, as events.
        pub stream: Option<bool>,
        pub stream_options: Option<StreamOptions>,
        /// Report the probability of each token and of this many alternatives; up to 5.
        pub logprobs: Option<usize>,
    }
}

impl Fields for CompletionRequest {}

/// One text, several, or the ids of one or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of ids, or a list of such lists"
)]
pub enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    ManyIds(Vec<Vec<u32>>),
}

/// The texts that follow the prompts.
#[derive(Debug, Serialize, ToSchema)]
pub struct Completion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageBody>>,
}

/// A text that follows a prompt.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct CompletionChoice {
    text: String,
    index: usize,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
}

impl CompletionRequest {
    /// What is asked of the model, and the form of the response.
    ///
    /// # Errors
    /// If a field is wrong or not supported.
    pub fn question(&mut self, model: &ApiModel) -> Result<(Question, Texts)> {
        let adapter = model.adapter(self.model.as_deref())?;
        let choices = choices(self.n)?;
        check(self, choices)?;
        let mut sampled = self.sampled();
        sampled.max_tokens.get_or_insert(FEW);
        let mut request = sampled.request(model.bundle())?;
        request.logprobs = self.logprobs;
        let prompt = std::mem::replace(&mut self.prompt, Prompt::Ids(Vec::new()));
        let prompts = prompts(model, prompt, self.suffix.as_deref())?;
        let stream = sampled.stopping(TextStream::new(model.tokenizer()).without_special())?;
        model.check_answers(prompts.len(), choices)?;
        let count = prompts.len() * choices;
        let readers = vec![Reader::new(stream, None); count];
        let texts = Texts::new(model, self, count);
        Ok((Question { prompts, adapter, choices, request, form: None, readers }, texts))
    }
}

fn check(request: &CompletionRequest, choices: usize) -> Result<()> {
    if request.echo == Some(true) {
        return Err(ApiError::field("echo", "echo is not supported"));
    }
    if request.best_of.is_some_and(|best| best != choices) {
        return Err(ApiError::field("best_of", "best_of other than n is not supported"));
    }
    if request.logprobs.is_some_and(|most| most > MOST_COMPLETION_LOGPROBS) {
        return Err(ApiError::field(
            "logprobs",
            format!("logprobs must be from 0 to {MOST_COMPLETION_LOGPROBS}"),
        ));
    }
    Ok(())
}

/// The ids of the prompts.
fn prompts(model: &ApiModel, prompt: Prompt, suffix: Option<&str>) -> Result<Vec<Vec<u32>>> {
    let texts = match prompt {
        Prompt::Text(text) => vec![text],
        Prompt::Texts(texts) => texts,
        Prompt::Ids(_) | Prompt::ManyIds(_) if suffix.is_some() => {
            return Err(ApiError::field("suffix", "suffix needs a prompt of text"));
        }
        Prompt::Ids(ids) => return some(vec![ids]),
        Prompt::ManyIds(ids) => return some(ids),
    };
    let tokenizer = model.tokenizer();
    let ids = texts.into_iter().map(|text| match suffix {
        None => Ok(model.plain().prompt_ids(tokenizer, &[Message::new(Role::User, text)])?),
        Some(suffix) => fill_prompt(tokenizer, &format!("{text}{BLANK}{suffix}"))
            .map_err(|error| ApiError::from(error).with_param("suffix")),
    });
    some(ids.collect::<Result<_>>()?)
}

fn some(prompts: Vec<Vec<u32>>) -> Result<Vec<Vec<u32>>> {
    match prompts.is_empty() || prompts.iter().any(Vec::is_empty) {
        true => Err(ApiError::field("prompt", "the prompt is empty")),
        false => Ok(prompts),
    }
}

/// Makes texts, or pieces of them, of answers.
pub struct Texts {
    id: String,
    created: u64,
    model: String,
    logprobs: Option<Logprobs>,
    pub with_usage: bool,
    /// Characters of the tokens of each answer.
    offsets: Vec<usize>,
    choices: Vec<CompletionChoice>,
}

impl Texts {
    /// So many empty texts.
    fn new(model: &ApiModel, request: &CompletionRequest, choices: usize) -> Self {
        let has_logprobs = request.logprobs.is_some();
        let choice = |index| CompletionChoice {
            index,
            logprobs: has_logprobs.then(CompletionLogprobs::default),
            ..CompletionChoice::default()
        };
        Self {
            id: response_id("cmpl"),
            created: now(),
            model: model.answering_name(request.model.as_deref()).to_owned(),
            logprobs: has_logprobs.then(|| Logprobs::new(model.tokenizer())),
            with_usage: request.stream_options.is_some_and(|options| options.include_usage),
            offsets: vec![0; choices],
            choices: (0..choices).map(choice).collect(),
        }
    }

    /// Whether the probabilities of tokens are reported.
    pub fn has_logprobs(&self) -> bool {
        self.logprobs.is_some()
    }

    pub fn body(
        &self,
        choices: Vec<CompletionChoice>,
        usage: Option<Option<UsageBody>>,
    ) -> Completion {
        let (id, model) = (self.id.clone(), self.model.clone());
        Completion { id, object: "text_completion", created: self.created, model, choices, usage }
    }

    /// What a step adds to its answer.
    pub fn piece(&mut self, step: Step) -> CompletionChoice {
        let (index, text, finish_reason) = (step.choice, step.text(), step.finish_name());
        let logprobs = self.logprobs.as_mut().map(|of| {
            let mut logprobs = CompletionLogprobs::default();
            if let Some(token) = step.token.and_then(|token| of.token(index, &token)) {
                let length = token.length();
                logprobs.push(token, self.offsets[index]);
                self.offsets[index] += length;
            }
            logprobs
        });
        CompletionChoice { text, index, logprobs, finish_reason }
    }

    /// Adds a step to its text.
    pub fn add(&mut self, step: Step) {
        let piece = self.piece(step);
        let choice = &mut self.choices[piece.index];
        choice.text += &piece.text;
        if let (Some(logprobs), Some(more)) = (&mut choice.logprobs, piece.logprobs) {
            logprobs.append(more);
        }
        choice.finish_reason = piece.finish_reason.or(choice.finish_reason);
    }

    /// The whole texts.
    pub fn finish(mut self, usage: Usage) -> Completion {
        let choices = std::mem::take(&mut self.choices);
        self.body(choices, Some(Some(usage.into())))
    }
}
