//! `POST /v1/responses`: an answer in a conversation, in the form of OpenAI's newer API. Nothing is stored.

mod events;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use self::events::ResponseEvents;
use super::body::Body;
use super::error::{ErrorBody, Result};
use super::listen::Peer;
use super::log::Record;
use super::served::client;
use super::{App, sse};
use crate::api::responses::request::ResponsesRequest;
use crate::api::responses::response::ResponseBody;

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/responses",
    request_body = ResponsesRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, events with pieces of it", body = ResponseBody),
        (status = "4XX", description = "The request is wrong", body = ErrorBody),
        (status = "5XX", description = "There is no answer now", body = ErrorBody),
    )
)]
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(peer): Extension<Peer>,
    Body(request): Body<ResponsesRequest>,
) -> Result<Response> {
    let served = app.served()?;
    let deadline = app.deadline();
    let streams = request.stream.unwrap_or(false);
    let client = client(peer, request.user.as_deref());
    let (question, head) = served.encode(|| request.question(served)).await?;
    let mut answers = served.ask(question, client, deadline).await?;
    if streams {
        return Ok(sse::respond(answers, ResponseEvents::new(head), record));
    }
    let blocks = answers.blocks().await;
    record.set(answers.usage());
    Ok(Json(ResponseBody::finished(&head, &blocks?, answers.usage())).into_response())
}
