//! `GET /health` and `GET /metrics`: for those who watch the server.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, Phase};

/// What the server is doing: ready, loading or draining; or what keeps it from answering: model_changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    status: &'static str,
}

/// Says whether requests are answered.
#[utoipa::path(
    get,
    path = "/health",
    responses(
        (status = 200, description = "Requests are answered", body = Health),
        (
            status = 503,
            description = "The model is being opened, one of its files was changed while it was in use, or the server is about to end",
            body = Health,
        ),
    )
)]
pub async fn health(State(app): State<Arc<App>>) -> impl IntoResponse {
    let (code, status) = match *app.phase.borrow() {
        Phase::Ready if app.is_changed() => (StatusCode::SERVICE_UNAVAILABLE, "model_changed"),
        Phase::Ready => (StatusCode::OK, "ready"),
        Phase::Loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    (code, Json(Health { status }))
}

/// Reports numbers in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "The numbers", body = String, content_type = "application/openmetrics-text"))
)]
pub async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.text())
}
