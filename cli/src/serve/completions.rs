//! `POST /v1/completions`: a text that is continued, or whose blank is filled.

use axum::Json;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};

use super::answer::{Step, Usage};
use super::body::Body;
use super::caller::Caller;
use super::error::{ErrorBody, Result};
use super::sse;
use crate::api::completions::{Completion, CompletionRequest, Texts};

/// Continues texts.
#[utoipa::path(
    post,
    path = "/v1/completions",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The texts; with `stream`, events with pieces of them", content((Completion = "application/json"), (String = "text/event-stream"))),
        (status = "4XX", description = "The request is wrong", body = ErrorBody),
        (status = "5XX", description = "There is no answer now", body = ErrorBody),
    )
)]
pub async fn complete(
    caller: Caller,
    Body(mut request): Body<CompletionRequest>,
) -> Result<Response> {
    let user = request.user.take();
    let (answers, mut texts) =
        caller.ask(user.as_deref(), |served| request.question(served)).await?;
    if request.stream.unwrap_or(false) {
        return Ok(caller.stream(answers, texts));
    }
    let usage = caller.collect(answers, |step| texts.add(step)).await?;
    Ok(Json(texts.finish(usage)).into_response())
}

impl sse::Events for Texts {
    fn begin(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn step(&mut self, step: Step) -> Vec<Event> {
        let is_silent = step.parts.is_empty() && step.finish.is_none() && !self.has_logprobs();
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
