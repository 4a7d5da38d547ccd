//! `POST /v1/chat/completions`: an answer in a conversation.

mod chunks;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use self::chunks::Chunks;
use super::answer::Answers;
use super::body::Body;
use super::error::{ErrorBody, Result};
use super::listen::Peer;
use super::log::Record;
use super::served::client;
use super::{App, sse};
use crate::api::chat::ChatRequest;
use crate::api::chat::response::{Chat, ChatCompletion, Head};

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
    let (question, head) = served.encode(|| request.question(served)).await?;
    let client = client(peer, request.user.as_deref());
    let mut answers = served.ask(question, client, deadline).await?;
    if request.stream.unwrap_or(false) {
        let with_usage = request.stream_options.is_some_and(|options| options.include_usage);
        let chunks = Chunks::new(head, answers.len(), with_usage);
        return Ok(sse::respond(answers, chunks, record));
    }
    let collected = collect(head, &mut answers).await;
    record.set(answers.usage());
    Ok(Json(collected?.finish(answers.usage())).into_response())
}

/// Waits for the whole answers.
async fn collect(head: Head, answers: &mut Answers) -> Result<Chat> {
    let mut chat = Chat::new(head, answers.len());
    while let Some(step) = answers.next().await? {
        chat.add(step);
    }
    Ok(chat)
}
