//! Errors as Anthropic's API reports them.

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::serve::error::ApiError;

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnthropicError {
    /// Always `error`.
    #[serde(rename = "type")]
    kind: &'static str,
    error: AnthropicDetails,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnthropicDetails {
    /// The kind of error.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What was wrong and what to do.
    message: String,
}

impl From<&ApiError> for AnthropicError {
    fn from(error: &ApiError) -> Self {
        let kind = match error.status().as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        let message = error.body().error.message;
        Self { kind: "error", error: AnthropicDetails { kind, message } }
    }
}

/// Gives errors of the paths of Anthropic's API its shape, also those of keys and hosts.
pub async fn shape_errors(request: Request, next: Next) -> Response {
    let is_ours = request.uri().path().starts_with("/v1/messages");
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions().get::<ApiError>().filter(|_| is_ours) {
        // The type has no maps with other keys than strings.
        let body = serde_json::to_vec(&AnthropicError::from(error)).unwrap_or_default();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
    }
    response
}
