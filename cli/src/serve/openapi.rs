//! `GET /openapi.json`: the description of the requests and responses, made from their types.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::OpenApi;

use super::{anthropic, chat, completions, fill, health, models, responses, tokens};

#[derive(OpenApi)]
#[openapi(
    info(title = "glm serve", description = "GLM models on a CPU, with OpenAI's API"),
    paths(
        chat::complete,
        completions::complete,
        fill::fill,
        responses::create,
        anthropic::create,
        anthropic::count_tokens,
        models::list,
        models::get,
        tokens::tokenize,
        tokens::detokenize,
        health::health,
        health::metrics,
    )
)]
struct Description;

/// Describes the server.
pub async fn description() -> impl IntoResponse {
    // A description that is made of types can be written as JSON.
    static JSON: LazyLock<Bytes> =
        LazyLock::new(|| Description::openapi().to_json().unwrap_or_default().into());
    ([(CONTENT_TYPE, "application/json")], JSON.clone())
}
