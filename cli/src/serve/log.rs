//! A line on stderr for each request, when its response has ended or its client has gone. It has nothing of the prompt.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};

use super::answer::Usage;
use super::{App, page};
use crate::messages;
use crate::output::{harmless, note};

/// Tokens of a request, which its handler records.
#[derive(Default)]
pub struct Record {
    prompt: AtomicUsize,
    cached: AtomicUsize,
    answer: AtomicUsize,
}

impl Record {
    pub fn set(&self, usage: Usage) {
        self.prompt.store(usage.prompt, Relaxed);
        self.cached.store(usage.cached, Relaxed);
        self.answer.store(usage.answer, Relaxed);
    }
}

/// Logs and counts requests.
pub async fn log(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let record = Arc::new(Record::default());
    request.extensions_mut().insert(Arc::clone(&record));
    let matched = request.extensions().get::<MatchedPath>();
    let label = matched.map_or("other", MatchedPath::as_str).to_owned();
    let path: String = request.uri().path().chars().take(100).collect();
    let line = format!("{} {}", request.method(), harmless(&path));
    // Dropped with the response, or without one if the client has gone.
    let mut entry = Entry { app, record, label, line, started: Instant::now(), status: None };
    let response = next.run(request).await;
    entry.status = Some(response.status());
    response.map(|body| Body::new(Logged { body, _entry: entry }))
}

struct Entry {
    app: Arc<App>,
    record: Arc<Record>,
    label: String,
    line: String,
    started: Instant,
    status: Option<StatusCode>,
}

/// Paths that are asked for all the time. Their successes are not logged, and neither are those of the files of the page.
const WATCHED: [&str; 2] = ["/health", "/metrics"];

/// The status in log and metrics of a request whose client has gone before it was answered, as nginx has it.
const GONE: u16 = 499;

impl Drop for Entry {
    fn drop(&mut self) {
        let time = self.started.elapsed();
        let status = self.status.map_or(GONE, |status| status.as_u16());
        self.app.metrics.request(&self.label, status, time);
        let is_frequent = WATCHED.contains(&self.label.as_str()) || page::has(&self.label);
        if status == 200 && is_frequent {
            return;
        }
        let seconds = format!("{:.3}", time.as_secs_f64());
        let Record { prompt, cached, answer } = &*self.record;
        let line = &self.line;
        note(&match prompt.load(Relaxed) {
            0 => messages::request_done(line, status, seconds),
            prompt => {
                let (cached, answer) = (cached.load(Relaxed), answer.load(Relaxed));
                messages::request_answered(line, status, prompt, cached, answer, seconds)
            }
        });
    }
}

/// A body that is logged when it is dropped.
struct Logged {
    body: Body,
    _entry: Entry,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
