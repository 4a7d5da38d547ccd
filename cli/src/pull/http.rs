//! GET requests that can be stopped, time out when nothing arrives, and are tried again.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};
use std::{fmt, io};

use anyhow::{Error, Result, anyhow};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::redirect;
use super::stop::Stop;
use crate::limits::hub::{MAX_REASON, MAX_REDIRECTS, STALLED};
use crate::messages;

/// How often is looked whether the program shall stop.
const TICK: Duration = Duration::from_millis(100);

/// Bytes of a chunk, and the chunks that may wait for the reader.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 8;

/// A client of HTTP.
pub struct Http {
    agent: Agent,
    pub stalled: Duration,
    pub stop: Stop,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub url: &'a str,
    /// The value of `Authorization`, sent to the origin of the URL, and not to another that it redirects to.
    pub authorization: Option<&'a str>,
    /// The value of `Range`.
    pub range: Option<&'a str>,
}

/// The answer to a request: status 200 or 206.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    body: Receiver<io::Result<Vec<u8>>>,
    stalled: Duration,
    stop: Stop,
}

/// Why a request failed.
#[derive(Debug)]
pub struct Failure {
    pub error: Error,
    /// Whether the same request can succeed later.
    pub is_temporary: bool,
    /// How long the server asks to wait.
    pub wait: Option<Duration>,
}

/// The server refuses a request.
#[derive(Debug)]
pub struct Refused {
    pub url: String,
    pub status: u16,
    /// What the Hugging Face hub calls the reason: `GatedRepo`, `RepoNotFound`, `RevisionNotFound`.
    pub code: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&messages::server_refuses(&self.url, self.status))
    }
}

impl std::error::Error for Refused {}

impl Http {
    pub fn new(stop: Stop) -> Self {
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots()).build())
            .http_status_as_error(false)
            // `follow` does: ureq would send `Authorization` to another port of the same host.
            .max_redirects(0)
            .user_agent(concat!("glm/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            // The thread of a request that was given up ends at last.
            .timeout_per_read(Some(2 * STALLED))
            .build();
        Self { agent: config.into(), stalled: STALLED, stop }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// If the server cannot be reached or does not answer with 200 or 206, or the program shall stop.
    pub fn get(&self, request: Request<'_>) -> Result<Answer, Failure> {
        let Request { url, authorization, range } = request;
        let (agent, place) = (self.agent.clone(), url.to_owned());
        let [authorization, range] = [authorization, range].map(|text| text.map(str::to_owned));
        let (to_head, head) = mpsc::sync_channel(1);
        let (to_body, body) = mpsc::sync_channel(CHUNKS);
        // ureq blocks, and only a thread that is waited for can be left behind.
        thread::spawn(move || match follow(&agent, &place, authorization, range.as_deref()) {
            Ok(response) => {
                let (head, body) = response.into_parts();
                if to_head.send(Ok((head.status.as_u16(), head.headers))).is_ok() {
                    forward(body, &to_body);
                }
            }
            Err(error) => drop(to_head.send(Err(error))),
        });
        let head = receive(&head, self.stalled, &self.stop)?;
        let (status, headers) = match head {
            Some(Ok(head)) => head,
            Some(Err(error)) => return Err(of_request(url, error)),
            None => return Err(Failure::temporary(anyhow!(messages::no_answer(url)))),
        };
        let (stalled, stop) = (self.stalled, self.stop.clone());
        let answer = Answer { status, headers, body, stalled, stop };
        match status {
            200 | 206 => Ok(answer),
            _ => Err(answer.refusal(url)),
        }
    }
}

/// Sends a request, and again to each place that it is redirected to, but without `authorization` once another origin comes.
fn follow(
    agent: &Agent,
    url: &str,
    mut authorization: Option<String>,
    range: Option<&str>,
) -> Result<Response<Body>, ureq::Error> {
    let mut place: Uri = url.parse().map_err(|_| ureq::Error::BadUri(url.to_owned()))?;
    for _ in 0..=MAX_REDIRECTS {
        let mut builder = agent.get(place.clone());
        if let Some(authorization) = &authorization {
            builder = builder.header("Authorization", authorization);
        }
        if let Some(range) = range {
            builder = builder.header("Range", range);
        }
        let response = builder.call()?;
        let Some(location) = redirect::location(&response) else { return Ok(response) };
        let next = redirect::resolve(&place, location);
        let next = next.ok_or_else(|| ureq::Error::BadUri(location.escape_debug().to_string()))?;
        authorization = authorization.filter(|_| redirect::is_same_origin(&place, &next));
        place = next;
    }
    Err(ureq::Error::TooManyRedirects)
}

/// The certificates that the system trusts; Mozilla's where it has none.
fn roots() -> RootCerts {
    let system = rustls_native_certs::load_native_certs().certs;
    let system: Vec<_> = system.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    if system.is_empty() { RootCerts::WebPki } else { RootCerts::new_with_certs(&system) }
}

/// Sends a body piece by piece, until it ends or nobody reads it.
fn forward(body: Body, to: &SyncSender<io::Result<Vec<u8>>>) {
    let mut reader = body.into_reader();
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = io::Read::read(&mut reader, &mut chunk).map(|read| {
            chunk.truncate(read);
            chunk
        });
        let is_last = read.as_ref().map_or(true, Vec::is_empty);
        // An empty piece is the end, so that a reader can tell it from a thread that failed.
        if to.send(read).is_err() || is_last {
            return;
        }
    }
}

/// What another thread sends; `None` if it ended.
fn receive<T>(from: &Receiver<T>, stalled: Duration, stop: &Stop) -> Result<Option<T>, Failure> {
    let started = Instant::now();
    loop {
        stop.check().map_err(Failure::lasting)?;
        match from.recv_timeout(TICK.min(stalled)) {
            Ok(item) => return Ok(Some(item)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if started.elapsed() >= stalled => {
                let seconds = stalled.as_secs_f32();
                return Err(Failure::temporary(anyhow!(messages::stalled(seconds))));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

impl Answer {
    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// If the connection is cut or stalls, or the program shall stop.
    pub fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match receive(&self.body, self.stalled, &self.stop)? {
            Some(Ok(chunk)) if chunk.is_empty() => Ok(None),
            Some(Ok(chunk)) => Ok(Some(chunk)),
            Some(Err(error)) => Err(Failure::temporary(of_io(error))),
            None => Err(Failure::temporary(anyhow!(messages::connection_cut()))),
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk), and if it is longer than `most` bytes.
    pub fn bytes(&mut self, most: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk()? {
            if bytes.len() + chunk.len() > most {
                return Err(Failure::lasting(anyhow!(messages::answer_too_long(most))));
            }
            bytes.extend(chunk);
        }
        Ok(bytes)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn refusal(mut self, url: &str) -> Failure {
        let code = self.header("X-Error-Code").unwrap_or_default().to_owned();
        let wait = self.header("Retry-After").and_then(|wait| wait.trim().parse().ok());
        // A connection whose answer was read can be used again.
        let _ = self.bytes(MAX_REASON);
        let is_temporary = matches!(self.status, 408 | 425 | 429 | 500..);
        let error = Refused { url: url.to_owned(), status: self.status, code }.into();
        Failure { error, is_temporary, wait: wait.map(Duration::from_secs) }
    }
}

impl Failure {
    /// A failure that another try may mend.
    pub fn temporary(error: Error) -> Self {
        Self { error, is_temporary: true, wait: None }
    }

    /// A failure that comes again at every try.
    pub fn lasting(error: impl Into<Error>) -> Self {
        Self { error: error.into(), is_temporary: false, wait: None }
    }
}

fn of_request(url: &str, error: ureq::Error) -> Failure {
    let is_temporary = match &error {
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => true,
        // An unknown certificate stays unknown.
        _ => false,
    };
    let error = match error {
        ureq::Error::Io(error) => of_io(error),
        error => error.into(),
    };
    Failure { error: error.context(url.to_owned()), is_temporary, wait: None }
}

/// An error of a connection. Its kind is not kept: a pipe that breaks is here no reader of stdout that left.
fn of_io(error: io::Error) -> Error {
    anyhow!("{error}")
}
