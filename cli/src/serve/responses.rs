//! `POST /v1/responses`: an answer in a conversation, in the form of OpenAI's newer API. Nothing is stored.

mod events;

use axum::Json;
use axum::response::{IntoResponse, Response};

use self::events::ResponseEvents;
use super::body::Body;
use super::caller::Caller;
use super::error::{ErrorBody, Result};
use crate::api::blocks::Blocks;
use crate::api::responses::request::{ResponsesRequest, renamed};
use crate::api::responses::response::ResponseBody;

/// Answers a conversation.
#[utoipa::path(
    post,
    path = "/v1/responses",
    request_body = ResponsesRequest,
    responses(
        (status = 200, description = "The answer; with `stream`, events with pieces of it", content((ResponseBody = "application/json"), (String = "text/event-stream"))),
        (status = "4XX", description = "The request is wrong", body = ErrorBody),
        (status = "5XX", description = "There is no answer now", body = ErrorBody),
    )
)]
pub async fn create(caller: Caller, Body(request): Body<ResponsesRequest>) -> Result<Response> {
    let streams = request.stream.unwrap_or(false);
    let user = request.user.clone();
    let asked = caller.ask(user.as_deref(), |served| request.question(served)).await;
    let (answers, head) = asked.map_err(renamed)?;
    if streams {
        return Ok(caller.stream(answers, ResponseEvents::new(head)));
    }
    let mut blocks = Blocks::default();
    let usage = caller.collect(answers, |step| drop(blocks.step(step))).await?;
    Ok(Json(ResponseBody::finished(&head, &blocks, usage)).into_response())
}
