//! Responses that come in pieces, as events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;

use super::answer::{Answers, Step, Usage};
use super::error::ApiError;
use super::log::Record;

/// How long a stream is silent before a comment shows that it lives.
const SILENCE: Duration = Duration::from_secs(10);

/// The events of a response.
pub trait Events: Send + 'static {
    /// Before the first token.
    fn begin(&mut self) -> Vec<Event>;
    fn step(&mut self, step: Step) -> Vec<Event>;
    /// After the last token.
    fn end(&mut self, usage: Usage) -> Vec<Event>;
    /// In place of the rest, if the answer fails.
    fn fail(&mut self, error: &ApiError) -> Vec<Event> {
        vec![named("error", &error.body())]
    }
}

/// An event with a JSON value.
pub fn data(value: &impl Serialize) -> Event {
    with_data(Event::default(), value)
}

/// An event with a name and a JSON value. The name is the first of its lines.
pub fn named(name: &str, value: &impl Serialize) -> Event {
    with_data(Event::default().event(name), value)
}

fn with_data(event: Event, value: &impl Serialize) -> Event {
    // The types of responses have no maps with other keys than strings.
    event.json_data(value).unwrap_or_default()
}

/// A response of events. An error is the last of them.
pub fn respond(answers: Answers, mut events: impl Events, record: Arc<Record>) -> Response {
    let ready = VecDeque::from(events.begin());
    let state = State { answers: Some(answers), events, record, ready };
    let stream = stream::unfold(state, |mut state| async move {
        let event = state.next().await?;
        Some((Ok::<_, Infallible>(event), state))
    });
    let silence = KeepAlive::new().interval(SILENCE);
    let mut response = Sse::new(stream).keep_alive(silence).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would collect the events.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct State<E> {
    /// `None` after the end.
    answers: Option<Answers>,
    events: E,
    record: Arc<Record>,
    ready: VecDeque<Event>,
}

impl<E: Events> State<E> {
    async fn next(&mut self) -> Option<Event> {
        while self.ready.is_empty() {
            let answers = self.answers.as_mut()?;
            let step = answers.next().await;
            let usage = answers.usage();
            self.record.set(usage);
            match step {
                Ok(Some(step)) => self.ready.extend(self.events.step(step)),
                Ok(None) => {
                    self.answers = None;
                    self.ready.extend(self.events.end(usage));
                }
                Err(error) => {
                    self.answers = None;
                    self.ready.extend(self.events.fail(&error));
                }
            }
        }
        self.ready.pop_front()
    }
}
