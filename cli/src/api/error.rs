//! Errors as OpenAI's API reports them.

use glm_model::Error;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// The result of a request.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// The body of an error.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorBody {
    pub error: ErrorDetails,
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ErrorDetails {
    /// What was wrong and what to do.
    pub message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field of the request that is wrong, if it is one.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

/// An error with its status.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    details: ErrorDetails,
    /// Seconds after which the client should try again.
    retry_after: Option<u64>,
}

/// The code of a request for more answers than `--max-sequences` allows. With a higher flag it would be answered.
pub const TOO_MANY_ANSWERS: &str = "too_many_answers";

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let kind = if status.is_server_error() { SERVER } else { INVALID };
        let details = ErrorDetails { message: message.into(), kind, param: None, code: None };
        Self { status, details, retry_after: None }
    }

    /// A request that cannot be answered as it is.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field of a request that is wrong.
    pub fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(message).with_param(name)
    }

    /// All places are taken.
    pub fn queue_is_full(retry_after: u64) -> Self {
        let mut error = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests are waiting: try again later",
        );
        error.details.kind = "rate_limit_error";
        error.retry_after = Some(retry_after);
        error.with_code("queue_full")
    }

    /// The server cannot answer now.
    pub fn unavailable(message: impl Into<String>, retry_after: u64) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// The server is about to end.
    pub fn draining() -> Self {
        Self::unavailable("the server is shutting down", 5).with_code("shutting_down")
    }

    /// The time of a request is over.
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, message).with_code("timeout")
    }

    /// A fault of the server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.details.code = Some(code);
        self
    }

    #[must_use]
    pub fn with_param(mut self, name: impl Into<String>) -> Self {
        self.details.param = Some(name.into());
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn code(&self) -> Option<&'static str> {
        self.details.code
    }

    /// Seconds after which the client should try again.
    pub fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    pub fn body(&self) -> ErrorBody {
        ErrorBody { error: self.details.clone() }
    }
}

/// Errors of the library are those of the request, unless the server lacks memory or is at fault.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::ContextFull { .. } => {
                Self::invalid(message).with_code("context_length_exceeded")
            }
            Error::Setting { setting, .. } => {
                Self::field(setting.replace([' ', '-'], "_"), message)
            }
            Error::Ids(_) | Error::Prompt(_) | Error::Grammar(_) => Self::invalid(message),
            Error::KvBudget { .. } | Error::Memory { .. } => {
                Self::unavailable(message, 5).with_code("out_of_memory")
            }
            // Where the model is does not concern the client.
            Error::FileChanged { path, change } => {
                let path = path.file_name().unwrap_or_default().into();
                Self::internal(Error::FileChanged { path, change }.to_string())
                    .with_code("file_changed")
            }
            _ => Self::internal(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use glm_model::FileChange;

    use super::*;

    fn status(error: Error) -> u16 {
        ApiError::from(error).status().as_u16()
    }

    #[test]
    fn errors_of_the_library_have_a_status() {
        assert_eq!(status(Error::Prompt("no".into())), 400);
        assert_eq!(status(Error::ContextFull { needed: 9, capacity: 8, max: 8 }), 400);
        assert_eq!(status(Error::KvBudget { needed: 1, free: 0, budget: 0 }), 503);
        assert_eq!(status(Error::NotFinite), 500);
        let path = "/home/ann/model.safetensors".into();
        let changed = ApiError::from(Error::FileChanged { path, change: FileChange::Modified });
        assert_eq!((changed.status().as_u16(), changed.code()), (500, Some("file_changed")));
        assert!(changed.body().error.message.starts_with("model.safetensors: was changed"));
    }

    #[test]
    fn a_setting_is_named_as_the_field() {
        let setting = Error::Setting { setting: "top-p", range: "x".into(), found: "2".into() };
        assert_eq!(ApiError::from(setting).body().error.param.as_deref(), Some("top_p"));
    }
}
