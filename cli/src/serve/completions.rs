//! `POST /v1/completions`: a text that is continued, or whose blank is filled.

use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use glm_model::{Message, Role, TextStream, Tokenizer, fill_prompt};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Answers, Reader, Step, Usage};
use super::body::Body;
use super::chat::StreamOptions;
use super::error::{ApiError, ErrorBody, Result};
use super::listen::Peer;
use super::log::Record;
use super::logprobs::{CompletionLogprobs, TokenLogprob};
use super::sampling::sampled_request;
use super::served::{Question, Served, client, now, response_id};
use super::usage::UsageBody;
use super::{App, sse};

/// Tokens of an answer for which no number is given, as in OpenAI's API. A model that continues texts knows no end.
const FEW: usize = 16;

/// Most alternatives of a token, as in OpenAI's API.
const MOST_LOGPROBS: usize = 5;

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
        /// Not supported above `n`.
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

/// Continues texts.
#[utoipa::path(
    post,
    path = "/v1/completions",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The texts; with `stream`, events with pieces of them", body = Completion),
        (status = "4XX", description = "The request is wrong", body = ErrorBody),
        (status = "5XX", description = "There is no answer now", body = ErrorBody),
    )
)]
pub async fn complete(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(peer): Extension<Peer>,
    Body(mut request): Body<CompletionRequest>,
) -> Result<Response> {
    let served = app.served()?;
    let deadline = app.deadline();
    served.check_name(request.model.as_deref())?;
    let choices = request.n.unwrap_or(1).max(1);
    check(&request, choices)?;
    let mut sampled = request.sampled();
    sampled.max_tokens.get_or_insert(FEW);
    let mut answer = sampled.request(served.bundle())?;
    answer.logprobs = request.logprobs;
    let prompts =
        served.encode(|| prompts(served, request.prompt, request.suffix.as_deref())).await?;
    let stream = TextStream::new(served.tokenizer()).without_special().stopping_at(sampled.stop)?;
    let count = prompts.len().saturating_mul(choices);
    served.check_answers(count)?;
    let readers = vec![Reader::new(stream, None); count];
    let question = Question {
        prompts,
        choices,
        request: answer,
        readers,
        client: client(peer, request.user.as_deref()),
        deadline,
    };
    let mut answers = served.ask(question).await?;
    let mut texts = Texts {
        id: response_id("cmpl"),
        created: now(),
        model: served.name().to_owned(),
        tokenizer: served.tokenizer(),
        has_logprobs: request.logprobs.is_some(),
        with_usage: request.stream_options.is_some_and(|options| options.include_usage),
        offsets: vec![0; answers.len()],
    };
    if request.stream.unwrap_or(false) {
        return Ok(sse::respond(answers, texts, record));
    }
    let collected = texts.collect(&mut answers).await;
    record.set(answers.usage());
    Ok(Json(texts.body(collected?, Some(Some(answers.usage().into())))).into_response())
}

fn check(request: &CompletionRequest, choices: usize) -> Result<()> {
    if request.echo == Some(true) {
        return Err(ApiError::field("echo", "echo is not supported"));
    }
    if request.best_of.is_some_and(|best| best > choices) {
        return Err(ApiError::field("best_of", "best_of above n is not supported"));
    }
    if request.logprobs.is_some_and(|most| most > MOST_LOGPROBS) {
        return Err(ApiError::field(
            "logprobs",
            format!("logprobs must be from 0 to {MOST_LOGPROBS}"),
        ));
    }
    Ok(())
}

/// The ids of the prompts.
fn prompts(served: &Served, prompt: Prompt, suffix: Option<&str>) -> Result<Vec<Vec<u32>>> {
    let texts = match prompt {
        Prompt::Text(text) => vec![text],
        Prompt::Texts(texts) => texts,
        Prompt::Ids(_) | Prompt::ManyIds(_) if suffix.is_some() => {
            return Err(ApiError::field("suffix", "suffix needs a prompt of text"));
        }
        Prompt::Ids(ids) => return some(vec![ids]),
        Prompt::ManyIds(ids) => return some(ids),
    };
    let tokenizer = served.tokenizer();
    let ids = texts.into_iter().map(|text| match suffix {
        None => Ok(served.plain().prompt_ids(tokenizer, &[Message::new(Role::User, text)])?),
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
struct Texts {
    id: String,
    created: u64,
    model: String,
    tokenizer: &'static Tokenizer,
    has_logprobs: bool,
    with_usage: bool,
    /// Characters of the tokens of each answer.
    offsets: Vec<usize>,
}

impl Texts {
    fn body(&self, choices: Vec<CompletionChoice>, usage: Option<Option<UsageBody>>) -> Completion {
        let (id, model) = (self.id.clone(), self.model.clone());
        Completion { id, object: "text_completion", created: self.created, model, choices, usage }
    }

    /// What a step adds to its answer.
    fn piece(&mut self, step: Step) -> CompletionChoice {
        let (index, text, finish_reason) = (step.choice, step.text(), step.finish_name());
        let mut logprobs = self.has_logprobs.then(CompletionLogprobs::default);
        let token = step.token.and_then(|token| TokenLogprob::new(self.tokenizer, &token));
        if let (Some(logprobs), Some(token)) = (&mut logprobs, token) {
            let offset = &mut self.offsets[index];
            let length = token.length();
            logprobs.push(token, *offset);
            *offset += length;
        }
        CompletionChoice { text, index, logprobs, finish_reason }
    }

    async fn collect(&mut self, answers: &mut Answers) -> Result<Vec<CompletionChoice>> {
        let choice = |index| CompletionChoice {
            index,
            logprobs: self.has_logprobs.then(CompletionLogprobs::default),
            ..CompletionChoice::default()
        };
        let mut choices: Vec<_> = (0..answers.len()).map(choice).collect();
        while let Some(step) = answers.next().await? {
            let piece = self.piece(step);
            let choice = &mut choices[piece.index];
            choice.text += &piece.text;
            if let (Some(logprobs), Some(more)) = (&mut choice.logprobs, piece.logprobs) {
                logprobs.append(more);
            }
            choice.finish_reason = piece.finish_reason.or(choice.finish_reason);
        }
        Ok(choices)
    }
}

impl sse::Events for Texts {
    fn begin(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn step(&mut self, step: Step) -> Vec<Event> {
        let is_silent = step.parts.is_empty() && step.finish.is_none() && !self.has_logprobs;
        if is_silent {
            return Vec::new();
        }
        let piece = self.piece(step);
        vec![sse::data(&self.body(vec![piece], self.with_usage.then_some(None)))]
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let usage =
            self.with_usage.then(|| sse::data(&self.body(Vec::new(), Some(Some(usage.into())))));
        usage.into_iter().chain([Event::default().data("[DONE]")]).collect()
    }
}
