//! `POST /tokenize` and `POST /detokenize`: text to ids, and back.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::Body;
use super::caller::Caller;
use super::error::{ApiError, ErrorBody, Result};
use super::served::Served;
use crate::api::fields::Fields;

/// A text.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    #[serde(alias = "content", alias = "prompt")]
    pub text: String,
}

impl Fields for TokenizeRequest {}

/// The ids of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Tokens {
    tokens: Vec<u32>,
    count: usize,
}

/// Ids.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DetokenizeRequest {
    #[serde(alias = "ids")]
    pub tokens: Vec<u32>,
}

impl Fields for DetokenizeRequest {}

/// The text of ids.
#[derive(Debug, Serialize, ToSchema)]
pub struct Text {
    text: String,
}

/// Converts a text to ids. Nothing is added to them.
#[utoipa::path(
    post,
    path = "/tokenize",
    request_body = TokenizeRequest,
    responses(
        (status = 200, description = "The ids", body = Tokens),
        (status = "4XX", description = "The request is wrong", body = ErrorBody),
    )
)]
pub async fn tokenize(
    caller: Caller,
    Body(request): Body<TokenizeRequest>,
) -> Result<Json<Tokens>> {
    let tokens =
        caller.encode(None, |served| Ok(served.tokenizer().encode(&request.text)?)).await?;
    Ok(Json(Tokens { count: tokens.len(), tokens }))
}

/// Converts ids to text.
#[utoipa::path(
    post,
    path = "/detokenize",
    request_body = DetokenizeRequest,
    responses(
        (status = 200, description = "The text", body = Text),
        (status = "4XX", description = "The request is wrong", body = ErrorBody),
    )
)]
pub async fn detokenize(
    caller: Caller,
    Body(request): Body<DetokenizeRequest>,
) -> Result<Json<Text>> {
    let decode = |served: &Served| {
        let text = served.tokenizer().decode(&request.tokens);
        text.map_err(|error| ApiError::from(error).with_param("tokens"))
    };
    Ok(Json(Text { text: caller.encode(None, decode).await? }))
}
