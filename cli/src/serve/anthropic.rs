//! `POST /v1/messages` and `/v1/messages/count_tokens`: an answer in a conversation, in the form of Anthropic's API.

mod error;
mod events;
mod request;
mod response;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

pub use self::error::shape_errors;

use self::error::AnthropicError;
use self::events::MessageEvents;
use self::request::MessagesRequest;
use self::response::{Head, MessageBody, TokenCount};
use super::body::Body;
use super::error::{ApiError, Result};
use super::listen::Peer;
use super::log::Record;
use super::served::client;
use super::{App, sse};

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages",
    request_body = MessagesRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, events with pieces of it", body = MessageBody),
        (status = "4XX", description = "The request is wrong", body = AnthropicError),
        (status = "5XX", description = "There is no answer now", body = AnthropicError),
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(peer): Extension<Peer>,
    Body(request): Body<MessagesRequest>,
) -> Result<Response> {
    let served = app.served()?;
    let deadline = app.deadline();
    if request.max_tokens.is_none() {
        return Err(ApiError::field("max_tokens", "max_tokens is missing"));
    }
    let (question, _) = served.encode(|| request.chat()?.question(served)).await?;
    let client = client(peer, request.user());
    let mut answers = served.ask(question, client, deadline).await?;
    let head = Head::new(served.name());
    if request.stream.unwrap_or(false) {
        let events = MessageEvents::new(head, answers.usage());
        return Ok(sse::respond(answers, events, record));
    }
    let blocks = answers.blocks().await;
    record.set(answers.usage());
    Ok(Json(MessageBody::finished(head, blocks?, answers.usage())).into_response())
}

/// Counts the tokens of a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages/count_tokens",
    request_body = MessagesRequest,
    responses(
        (status = 200, description = "The number of tokens", body = TokenCount),
        (status = "4XX", description = "The request is wrong", body = AnthropicError),
        (status = "5XX", description = "There is no answer now", body = AnthropicError),
    )
)]
pub async fn count_tokens(
    State(app): State<Arc<App>>,
    Body(request): Body<MessagesRequest>,
) -> Result<Json<TokenCount>> {
    let served = app.served()?;
    let (question, _) = served.encode(|| request.chat()?.question(served)).await?;
    Ok(Json(TokenCount { input_tokens: question.prompts.iter().map(Vec::len).sum() }))
}
