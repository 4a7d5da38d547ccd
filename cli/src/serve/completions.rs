//! `POST /v1/completions`: a text that is continued, or whose blank is filled.

use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::answer::{Answers, Step, Usage};
use super::body::Body;
use super::error::{ErrorBody, Result};
use super::listen::Peer;
use super::log::Record;
use super::served::client;
use super::{App, sse};
use crate::api::completions::{Completion, CompletionRequest, Texts};

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
    let (question, texts) = served.encode(|| request.question(served)).await?;
    let client = client(peer, request.user.as_deref());
    let mut answers = served.ask(question, client, deadline).await?;
    if request.stream.unwrap_or(false) {
        return Ok(sse::respond(answers, texts, record));
    }
    let collected = collect(texts, &mut answers).await;
    record.set(answers.usage());
    Ok(Json(collected?.finish(answers.usage())).into_response())
}

/// Waits for the whole texts.
async fn collect(mut texts: Texts, answers: &mut Answers) -> Result<Texts> {
    while let Some(step) = answers.next().await? {
        texts.add(step);
    }
    Ok(texts)
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
