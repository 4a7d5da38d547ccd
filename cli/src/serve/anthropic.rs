//! `POST /v1/messages` and `/v1/messages/count_tokens`: an answer in a conversation, in the form of Anthropic's API.

mod error;
mod events;
mod request;
mod response;

use axum::Json;
use axum::response::{IntoResponse, Response};

pub use self::error::shape_errors;

use self::error::AnthropicError;
use self::events::MessageEvents;
use self::request::MessagesRequest;
use self::response::{Head, MessageBody, TokenCount};
use super::body::Body;
use super::caller::Caller;
use super::error::Result;
use crate::api::blocks::Blocks;

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/messages",
    request_body = MessagesRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, events with pieces of it", content((MessageBody = "application/json"), (String = "text/event-stream"))),
        (status = "4XX", description = "The request is wrong", body = AnthropicError),
        (status = "5XX", description = "There is no answer now", body = AnthropicError),
    )
)]
pub async fn create(caller: Caller, Body(request): Body<MessagesRequest>) -> Result<Response> {
    request.check()?;
    let (answers, head) = caller
        .ask(request.user(), |served| {
            let question = request.question(served)?;
            Ok((question, Head::new(served.answering_name(request.model.as_deref()))))
        })
        .await?;
    if request.stream.unwrap_or(false) {
        let events = MessageEvents::new(head, answers.usage());
        return Ok(caller.stream(answers, events));
    }
    let mut blocks = Blocks::default();
    let usage = caller.collect(answers, |step| drop(blocks.step(step))).await?;
    Ok(Json(MessageBody::finished(head, blocks, usage)).into_response())
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
    caller: Caller,
    Body(request): Body<MessagesRequest>,
) -> Result<Json<TokenCount>> {
    let user = request.user();
    let question = caller.encode(user, |served| request.question(served)).await?;
    Ok(Json(TokenCount { input_tokens: question.prompts.iter().map(Vec::len).sum() }))
}
