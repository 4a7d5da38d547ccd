//! `POST /v1/chat/completions`: an answer in a conversation.

mod chunks;
mod response;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use glm_model::{PromptOptions, TextStream, messages_from_json, offer_tools};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use self::chunks::Chunks;
use self::response::{ChatCompletion, Head, collect};
use super::answer::Reader;
use super::body::Body;
use super::error::{ApiError, ErrorBody, Result};
use super::listen::Peer;
use super::log::Record;
use super::sampling::sampled_request;
use super::served::{MOST_LOGPROBS, Question, Served, client, response_id};
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
        /// The tools that may be called: objects with `type` (function) and `function`.
        pub tools: Option<Vec<Value>>,
        /// Whether tools are called: `auto`, the default with tools, or `none`.
        pub tool_choice: Option<Value>,
        /// The form of the answer: an object whose `type` is `text`.
        pub response_format: Option<Value>,
        pub chat_template_kwargs: Option<TemplateArguments>,
        /// Report the probability of each token.
        pub logprobs: Option<bool>,
        /// Alternatives of each token; up to 20.
        pub top_logprobs: Option<usize>,
    }
}

/// What is asked of the chat template.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
pub struct TemplateArguments {
    /// Whether a model that can think does so before it answers.
    pub enable_thinking: Option<bool>,
}

/// What a stream has beside the answer.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// Send the numbers of tokens at the end.
    #[serde(default)]
    pub include_usage: bool,
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
    let logprobs = logprobs(&request)?;
    let mut sampled = request.sampled();
    sampled.max_tokens = request.max_completion_tokens.or(sampled.max_tokens);
    let mut answer = sampled.request(served.bundle())?;
    answer.logprobs = logprobs;
    let tools = tools(&mut request)?;
    check_format(request.response_format.as_ref())?;
    let prompt = served.encode(|| prompt(served, &request, tools.as_ref())).await?;
    let choices = request.n.unwrap_or(1).max(1);
    served.check_answers(choices)?;
    let template = served.bundle().template();
    let stream: TextStream<'static> =
        template.stream(served.tokenizer()).stopping_at(sampled.stop)?;
    let reader = |_| {
        let id = response_id("call");
        let parser = template.answer_parser(served.tokenizer(), &prompt, tools.as_ref(), id);
        Reader::new(stream.clone(), Some(parser))
    };
    let question = Question {
        choices,
        request: answer,
        readers: (0..choices).map(reader).collect(),
        client: client(peer, request.user.as_deref()),
        deadline,
        prompts: vec![prompt],
    };
    let mut answers = served.ask(question).await?;
    let head = Head::new(served.name(), served.tokenizer(), logprobs.is_some());
    if request.stream.unwrap_or(false) {
        let with_usage = request.stream_options.is_some_and(|options| options.include_usage);
        let chunks = Chunks::new(head, answers.len(), with_usage);
        return Ok(sse::respond(answers, chunks, record));
    }
    let collected = collect(&head, &mut answers).await;
    record.set(answers.usage());
    Ok(Json(ChatCompletion::new(head, collected?, answers.usage())).into_response())
}

/// How many alternatives of each token are asked for, if any.
fn logprobs(request: &ChatRequest) -> Result<Option<usize>> {
    let wrong = |problem: String| Err(ApiError::field("top_logprobs", problem));
    match (request.logprobs.unwrap_or(false), request.top_logprobs) {
        (_, Some(top)) if top > MOST_LOGPROBS => {
            wrong(format!("top_logprobs must be from 0 to {MOST_LOGPROBS}"))
        }
        (false, Some(1..)) => wrong("top_logprobs needs logprobs".to_owned()),
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, _) => Ok(None),
    }
}

/// The tools that may be called.
fn tools(request: &mut ChatRequest) -> Result<Option<Value>> {
    let tools = request.tools.take().filter(|tools| !tools.is_empty());
    for (index, tool) in tools.iter().flatten().enumerate() {
        let name = tool["function"]["name"].as_str().filter(|name| !name.is_empty());
        if tool["type"] != "function" || name.is_none() {
            let path = format!("tools[{index}]");
            let problem =
                format!("{path} is no tool with the type \"function\" and a function with a name");
            return Err(ApiError::field(path, problem));
        }
    }
    match request.tool_choice.as_ref().map(|choice| choice.as_str()) {
        None | Some(Some("auto")) => Ok(tools.map(Value::from)),
        Some(Some("none")) => Ok(None),
        Some(_) => Err(ApiError::field("tool_choice", "tool_choice must be auto or none")),
    }
}

fn check_format(format: Option<&Value>) -> Result<()> {
    match format {
        Some(format) if format["type"] != "text" => {
            Err(ApiError::field("response_format", "the type of response_format must be text"))
        }
        _ => Ok(()),
    }
}

/// The ids of the conversation.
fn prompt(served: &Served, request: &ChatRequest, tools: Option<&Value>) -> Result<Vec<u32>> {
    if request.messages.is_empty() {
        return Err(ApiError::field("messages", "messages must have at least one message"));
    }
    let wrong = |error| ApiError::from(error).with_param("messages");
    let mut messages = messages_from_json(&json!(request.messages).to_string()).map_err(wrong)?;
    if let Some(tools) = tools {
        offer_tools(&mut messages, tools.clone());
    }
    let mut options = PromptOptions::default();
    options.special_names = served.special_names();
    options.thinking = request.chat_template_kwargs.unwrap_or_default().enable_thinking;
    let template = served.bundle().template();
    template.prompt_ids_with(served.tokenizer(), &messages, options).map_err(wrong)
}
