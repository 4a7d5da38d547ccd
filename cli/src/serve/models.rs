//! `GET /v1/models`: the model of the server, under each of its names.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use glm_model::{Blank, has_blank};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::error::{ApiError, ErrorBody, Result};
use super::served::Served;

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelBody {
    id: String,
    object: &'static str,
    /// When it was opened.
    created: u64,
    owned_by: &'static str,
    /// Tokens of a context.
    context_length: usize,
    /// The blanks that the model fills.
    blanks: Vec<&'static str>,
}

/// The models.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelList {
    object: &'static str,
    data: Vec<ModelBody>,
}

fn model(served: &Served, name: &str) -> ModelBody {
    let names = [Blank::Mask, Blank::Smask, Blank::Gmask].map(Blank::name).into_iter();
    let blanks = names.filter(|name| has_blank(served.tokenizer(), name));
    ModelBody {
        id: name.to_owned(),
        object: "model",
        created: served.created(),
        owned_by: "glm",
        context_length: served.context(),
        blanks: blanks.collect(),
    }
}

/// Lists the model under each of its names.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, description = "The models", body = ModelList)))]
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<ModelList>> {
    let served = app.served()?;
    let data = served.names().iter().map(|name| model(served, name)).collect();
    Ok(Json(ModelList { object: "list", data }))
}

/// Describes the model of this name.
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    params(("id" = String, Path, description = "A name of the model")),
    responses(
        (status = 200, description = "The model", body = ModelBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
    )
)]
pub async fn get(
    State(app): State<Arc<App>>,
    id: std::result::Result<Path<String>, PathRejection>,
) -> Result<Json<ModelBody>> {
    let served = app.served()?;
    let Path(id) = id.map_err(|_| ApiError::invalid("the name of the model is not UTF-8"))?;
    served.adapter(Some(&id))?;
    Ok(Json(model(served, &id)))
}
