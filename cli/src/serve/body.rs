//! The body of a request: JSON of a type. Fields that the type does not have are ignored, and named in the log once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use super::App;
use super::error::{ApiError, Result};
use crate::api::body::parse;
use crate::api::fields::Fields;
use crate::limits::request::MOST_NAMES;
use crate::messages;
use crate::output::{harmless, note};

/// Names of fields that were in requests and that the server does not know.
#[derive(Default)]
pub struct Unknown(Mutex<BTreeSet<String>>);

impl Unknown {
    /// Notes names that were not noted before.
    fn note(&self, path: &str, names: BTreeSet<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            if known.len() < MOST_NAMES && known.insert(format!("{path} {name}")) {
                note(&messages::field_is_ignored(path, harmless(&name)));
            }
        }
    }
}

/// The JSON of a request.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + Fields> FromRequest<Arc<App>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, app: &Arc<App>) -> Result<Self> {
        DefaultBodyLimit::max(app.most_body()).apply(&mut request);
        let path = request.uri().path().to_owned();
        let bytes =
            tokio::time::timeout(app.client_timeout, Bytes::from_request(request, app)).await;
        let bytes = bytes.map_err(|_| {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body of the request came too slowly")
        })?;
        let bytes = bytes.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body of the request is longer than {} bytes", app.most_body()),
            ),
            status => ApiError::new(status, rejection.body_text()),
        })?;
        if app.logs_prompts {
            note(&harmless(&format!("{path} {}", String::from_utf8_lossy(&bytes))));
        }
        let (value, names) = parse(&bytes)?;
        app.unknown.note(&path, names);
        Ok(Self(value))
    }
}
