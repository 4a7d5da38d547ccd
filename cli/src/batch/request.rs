//! A line of the input becomes a question, and its answers a line of the output.

use glm_model::{MOST_JSON_VALUES, check_json_values};
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::input::Line;
use crate::api::answer::{Step, Usage};
use crate::api::blocks::Blocks;
use crate::api::body::parse;
use crate::api::chat::ChatRequest;
use crate::api::chat::response::Chat;
use crate::api::completions::{CompletionRequest, Texts};
use crate::api::error::{ApiError, Result, TOO_MANY_ANSWERS};
use crate::api::fields::Fields;
use crate::api::model::{ApiModel, Question};
use crate::api::responses::request::{ResponsesRequest, renamed};
use crate::api::responses::response::{Head, ResponseBody};

/// What is on a line.
#[derive(Deserialize)]
struct Envelope {
    custom_id: String,
    method: Option<String>,
    url: String,
    #[serde(default)]
    body: Value,
}

/// A request.
pub struct Request {
    pub custom_id: Option<String>,
    /// What is asked, or why it cannot be answered.
    pub asked: std::result::Result<(Question, Response), Problem>,
}

/// Why there is no answer.
pub enum Problem {
    /// The line is no request.
    Line(String),
    /// The request has failed.
    Request(ApiError),
}

/// Whether a request that failed with this status and code may succeed when it is tried again, perhaps with other flags. A fault of the
/// program or of the model does not pass.
pub fn may_pass(status: u16, code: Option<&str>) -> bool {
    matches!(status, 429 | 502 | 503 | 504) || code == Some(TOO_MANY_ANSWERS)
}

impl Problem {
    /// Whether the request may succeed when it is tried again.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Request(error) if may_pass(error.status().as_u16(), error.code()))
    }
}

/// The form of a response, and what it has so far.
pub enum Response {
    Chat(Chat),
    Texts(Texts),
    Blocks(Box<Head>, Blocks),
}

impl Request {
    /// The request on a line.
    pub fn new(model: &ApiModel, line: &Line) -> Self {
        let Some(bytes) = &line.bytes else {
            let problem = "the line is too long".to_owned();
            return Self { custom_id: None, asked: Err(Problem::Line(problem)) };
        };
        if let Err(problem) = check_json_values(bytes, MOST_JSON_VALUES) {
            let problem = format!("the line {problem}");
            return Self { custom_id: None, asked: Err(Problem::Line(problem)) };
        }
        match serde_json::from_slice::<Envelope>(bytes) {
            Ok(envelope) => {
                let asked = asked(model, &envelope);
                Self { custom_id: Some(envelope.custom_id), asked }
            }
            Err(error) => {
                let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
                let custom_id = value["custom_id"].as_str().map(str::to_owned);
                let problem = format!("the line is no request: {error}");
                Self { custom_id, asked: Err(Problem::Line(problem)) }
            }
        }
    }
}

fn asked(
    model: &ApiModel,
    envelope: &Envelope,
) -> std::result::Result<(Question, Response), Problem> {
    let method = envelope.method.as_deref().unwrap_or("POST");
    if method != "POST" {
        return Err(Problem::Line(format!("the method must be POST, and is {method}")));
    }
    match envelope.url.as_str() {
        "/v1/chat/completions" => chat(model, &envelope.body),
        "/v1/completions" => texts(model, &envelope.body),
        "/v1/responses" => blocks(model, &envelope.body),
        url => {
            let problem =
                "the url must be /v1/chat/completions, /v1/completions or /v1/responses, and is";
            return Err(Problem::Line(format!("{problem} {url}")));
        }
    }
    .map_err(Problem::Request)
}

fn chat(model: &ApiModel, body: &Value) -> Result<(Question, Response)> {
    let (mut question, head) = read::<ChatRequest>(body)?.question(model)?;
    model.constrain(&mut question)?;
    let choices = question.readers.len();
    Ok((question, Response::Chat(Chat::new(head, choices))))
}

fn texts(model: &ApiModel, body: &Value) -> Result<(Question, Response)> {
    let (question, texts) = read::<CompletionRequest>(body)?.question(model)?;
    Ok((question, Response::Texts(texts)))
}

fn blocks(model: &ApiModel, body: &Value) -> Result<(Question, Response)> {
    let (mut question, head) = read::<ResponsesRequest>(body)?.question(model)?;
    model.constrain(&mut question).map_err(renamed)?;
    Ok((question, Response::Blocks(Box::new(head), Blocks::default())))
}

/// Unknown fields are ignored.
fn read<T: DeserializeOwned + Fields>(body: &Value) -> Result<T> {
    Ok(parse(body.to_string().as_bytes())?.0)
}

impl Response {
    pub fn add(&mut self, step: Step) {
        match self {
            Self::Chat(chat) => chat.add(step),
            Self::Texts(texts) => texts.add(step),
            Self::Blocks(_, blocks) => {
                blocks.step(step);
            }
        }
    }

    /// The body of the response.
    pub fn finish(self, usage: Usage) -> Value {
        // The types of responses have no maps with other keys than strings. Through text, because a value would write a probability with
        // the digits of an f64.
        fn value(body: &impl Serialize) -> Value {
            let text = serde_json::to_string(body).unwrap_or_default();
            serde_json::from_str(&text).unwrap_or_default()
        }
        match self {
            Self::Chat(chat) => value(&chat.finish(usage)),
            Self::Texts(texts) => value(&texts.finish(usage)),
            Self::Blocks(head, blocks) => value(&ResponseBody::finished(&head, &blocks, usage)),
        }
    }
}

/// A line of the output.
pub fn line(
    id: &str,
    custom_id: Option<&str>,
    result: &std::result::Result<Value, Problem>,
) -> String {
    let request_id = id.trim_start_matches("batch_");
    let response = |status: StatusCode, body: Value| json!({ "status_code": status.as_u16(), "request_id": request_id, "body": body });
    let (response, error) = match result {
        Ok(body) => (response(StatusCode::OK, body.clone()), Value::Null),
        Err(Problem::Request(error)) => {
            let body = serde_json::to_value(error.body()).unwrap_or_default();
            (response(error.status(), body), Value::Null)
        }
        Err(Problem::Line(problem)) => {
            (Value::Null, json!({ "code": "invalid_line", "message": problem }))
        }
    };
    json!({ "id": id, "custom_id": custom_id, "response": response, "error": error }).to_string()
}
