//! `POST /v1/chat/completions`: an answer in a conversation.

mod chunks;

use axum::Json;
use axum::response::{IntoResponse, Response};

use self::chunks::Chunks;
use super::body::Body;
use super::caller::Caller;
use super::error::{ErrorBody, Result};
use crate::api::chat::ChatRequest;
use crate::api::chat::response::{Chat, ChatCompletion};

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answers; with `stream`, events with pieces of them", content((ChatCompletion = "application/json"), (String = "text/event-stream"))),
        (status = "4XX", description = "The request is wrong", body = ErrorBody),
        (status = "5XX", description = "There is no answer now", body = ErrorBody),
    )
)]
pub async fn complete(caller: Caller, Body(mut request): Body<ChatRequest>) -> Result<Response> {
    let user = request.user.take();
    let (answers, head) = caller.ask(user.as_deref(), |served| request.question(served)).await?;
    if request.stream.unwrap_or(false) {
        let with_usage = request.stream_options.is_some_and(|options| options.include_usage);
        let chunks = Chunks::new(head, answers.len(), with_usage);
        return Ok(caller.stream(answers, chunks));
    }
    let mut chat = Chat::new(head, answers.len());
    let usage = caller.collect(answers, |step| chat.add(step)).await?;
    Ok(Json(chat.finish(usage)).into_response())
}
