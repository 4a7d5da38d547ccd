//! `POST /v1/chat/completions`: an answer in a conversation.

use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use glm_model::{FinishReason, Message, Tokenizer, messages_from_json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::answer::{Answers, Step, Usage};
use super::body::Body;
use super::error::{ApiError, ErrorBody, Result};
use super::listen::Peer;
use super::log::Record;
use super::logprobs::{ChatLogprobs, TokenLogprob};
use super::sampling::sampled_request;
use super::served::{MOST_LOGPROBS, Question, Served, client, now, response_id};
use super::usage::UsageBody;
use super::{App, sse};

sampled_request! {
    /// A conversation that is to be answered.
    pub struct ChatRequest {
        /// The messages: objects with `role` (system, user, assistant, tool) and `content`, a text or a list of text parts.
        pub messages: Vec<Value>,
        /// Most tokens of an answer, prompt excluded.
        pub max_completion_tokens: Option<usize>,
        /// Number of answers.
        pub n: Option<usize>,
        /// Send the answer in pieces, as events.
        pub stream: Option<bool>,
        pub stream_options: Option<StreamOptions>,
        /// Report the probability of each token.
        pub logprobs: Option<bool>,
        /// Alternatives of each token; up to 20.
        pub top_logprobs: Option<usize>,
    }
}

/// What a stream has beside the answer.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Send the numbers of tokens at the end.
    #[serde(default)]
    pub include_usage: bool,
}

/// The answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatCompletion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: UsageBody,
}

/// An answer.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChatChoice {
    index: usize,
    message: ChatMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: &'static str,
}

/// The message of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatMessage {
    role: &'static str,
    content: String,
}

impl Default for ChatMessage {
    fn default() -> Self {
        Self { role: ASSISTANT, content: String::new() }
    }
}

const ASSISTANT: &str = "assistant";

/// A piece of the answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChunk {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    choices: Vec<ChunkChoice>,
    /// In the last piece, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageBody>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
}

/// What a piece adds to the message.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answers; with `stream`, events with pieces of them", body = ChatCompletion),
        (status = "4XX", description = "The request is wrong", body = ErrorBody),
        (status = "5XX", description = "There is no answer now", body = ErrorBody),
    )
)]
pub async fn complete(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(peer): Extension<Peer>,
    Body(mut request): Body<ChatRequest>,
) -> Result<Response> {
    let served = app.served()?;
    let deadline = app.deadline();
    served.check_name(request.model.as_deref())?;
    let mut sampled = request.sampled();
    sampled.max_tokens = request.max_completion_tokens.or(sampled.max_tokens);
    let logprobs = match (request.logprobs.unwrap_or(false), request.top_logprobs) {
        (_, Some(top)) if top > MOST_LOGPROBS => {
            return Err(ApiError::field(
                "top_logprobs",
                format!("top_logprobs must be from 0 to {MOST_LOGPROBS}"),
            ));
        }
        (false, Some(1..)) => {
            return Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs"));
        }
        (true, top) => Some(top.unwrap_or(0)),
        (false, _) => None,
    };
    let answer = sampled.request(served.bundle())?;
    let prompt = served.encode(|| prompt(served, &request)).await?;
    let stream = served.bundle().template().stream(served.tokenizer()).stopping_at(sampled.stop)?;
    let question = Question {
        prompts: vec![prompt],
        choices: request.n.unwrap_or(1).max(1),
        request: answer,
        logprobs,
        stream,
        client: client(peer, request.user.as_deref()),
        deadline,
    };
    let mut answers = served.ask(question).await?;
    let head =
        Head { id: response_id("chatcmpl"), created: now(), model: served.name().to_owned() };
    if request.stream.unwrap_or(false) {
        let with_usage = request.stream_options.is_some_and(|options| options.include_usage);
        let chunks = Chunks {
            head,
            tokenizer: served.tokenizer(),
            choices: answers.len(),
            has_logprobs: logprobs.is_some(),
            with_usage,
        };
        return Ok(sse::respond(answers, chunks, record));
    }
    let collected = collect(&mut answers, served.tokenizer(), logprobs.is_some()).await;
    record.set(answers.usage());
    let Head { id, created, model } = head;
    let (choices, usage) = (collected?, answers.usage().into());
    let object = "chat.completion";
    Ok(Json(ChatCompletion { id, object, created, model, choices, usage }).into_response())
}

/// The ids of the conversation.
fn prompt(served: &Served, request: &ChatRequest) -> Result<Vec<u32>> {
    if request.messages.is_empty() {
        return Err(ApiError::field("messages", "messages must have at least one message"));
    }
    let messages: Vec<Message> = messages_from_json(&json!(request.messages).to_string())
        .map_err(|error| ApiError::from(error).with_param("messages"))?;
    let ids = served.bundle().template().prompt_ids(served.tokenizer(), &messages);
    ids.map_err(|error| ApiError::from(error).with_param("messages"))
}

/// The whole answers.
async fn collect(
    answers: &mut Answers,
    tokenizer: &Tokenizer,
    has_logprobs: bool,
) -> Result<Vec<ChatChoice>> {
    let choice = |index| ChatChoice {
        index,
        logprobs: has_logprobs.then(ChatLogprobs::default),
        ..ChatChoice::default()
    };
    let mut choices: Vec<_> = (0..answers.len()).map(choice).collect();
    while let Some(step) = answers.next().await? {
        let choice = &mut choices[step.choice];
        choice.message.content += &step.text;
        if let (Some(logprobs), Some(token)) = (&mut choice.logprobs, &step.token) {
            logprobs.content.extend(TokenLogprob::new(tokenizer, token));
        }
        choice.finish_reason = step.finish.map_or(choice.finish_reason, finish_name);
    }
    Ok(choices)
}

/// The name of a reason in OpenAI's API.
pub fn finish_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        _ => "length",
    }
}

/// What all pieces of a response have.
struct Head {
    id: String,
    created: u64,
    model: String,
}

/// Pieces of answers, as OpenAI's API sends them.
struct Chunks {
    head: Head,
    tokenizer: &'static Tokenizer,
    choices: usize,
    has_logprobs: bool,
    with_usage: bool,
}

impl Chunks {
    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<UsageBody>) -> Event {
        let Head { id, created, model } = &self.head;
        sse::data(&ChatChunk {
            id: id.clone(),
            object: "chat.completion.chunk",
            created: *created,
            model: model.clone(),
            choices,
            // Null in all pieces but the last.
            usage: self.with_usage.then_some(usage),
        })
    }
}

impl sse::Events for Chunks {
    fn begin(&mut self) -> Vec<Event> {
        let begin = |index| {
            let delta = Delta { role: Some(ASSISTANT), content: Some(String::new()) };
            self.chunk(
                vec![ChunkChoice { index, delta, logprobs: None, finish_reason: None }],
                None,
            )
        };
        (0..self.choices).map(begin).collect()
    }

    fn step(&mut self, step: Step) -> Vec<Event> {
        let Step { choice: index, text, token, finish } = step;
        let mut events = Vec::new();
        let token = token.filter(|_| self.has_logprobs);
        let logprob = token.and_then(|token| TokenLogprob::new(self.tokenizer, &token));
        if !text.is_empty() || logprob.is_some() {
            let delta = Delta { content: Some(text), ..Delta::default() };
            let logprobs = logprob.map(|logprob| ChatLogprobs { content: vec![logprob] });
            events.push(
                self.chunk(vec![ChunkChoice { index, delta, logprobs, finish_reason: None }], None),
            );
        }
        if let Some(finish) = finish {
            let finish_reason = Some(finish_name(finish));
            let choice =
                ChunkChoice { index, delta: Delta::default(), logprobs: None, finish_reason };
            events.push(self.chunk(vec![choice], None));
        }
        events
    }

    fn end(&mut self, usage: Usage) -> Vec<Event> {
        let usage = self.with_usage.then(|| self.chunk(Vec::new(), Some(usage.into())));
        usage.into_iter().chain([Event::default().data("[DONE]")]).collect()
    }
}
