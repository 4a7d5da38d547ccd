//! `glm serve`: answers the requests of other programs, as OpenAI's API does.
//!
//! ```text
//! listen      connections, their limits, and the end of the server; addresses, paced: what a client may take up
//! page        the chat page at `/`
//! access      hosts, origins, keys; log: a line and numbers for each request
//! chat, completions, fill, tokens, models, health     a handler for each path; caller: what they have in common
//! responses, anthropic      the same for OpenAI's newer API and for Anthropic's
//! served      the model: prompts to answers; encoding: texts to prompts, in turns
//! engine      the thread that computes them
//! ```
//!
//! Nothing is kept between requests but what the engine may reuse.

mod access;
mod addresses;
mod answer;
mod anthropic;
mod body;
mod caller;
mod chat;
mod completions;
mod deadline;
mod encoding;
mod engine;
mod fill;
mod health;
mod key;
mod listen;
mod log;
mod metrics;
mod models;
mod openapi;
mod paced;
mod page;
mod responses;
mod served;
mod sse;
mod status;
mod tokens;
mod turns;

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::http::Method;
use axum::routing::{get, post};
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use self::access::Access;
use self::body::Unknown;
use self::error::ApiError;
use self::key::Key;
use self::metrics::Metrics;
use self::served::Served;
use crate::api::{blocks, error, sampling, usage};
use crate::args;
use crate::failure::usage;
use crate::messages;
use crate::open;
use crate::output::note;

/// Threads for connections, JSON and tokens. The model has its own.
const WORKERS: usize = 2;
/// Threads that take over from workers while these encode texts and compile grammars; one more is for what the runtime itself does, such
/// as to resolve names. Few threads that stay keep the memory of the allocator steady.
const SPARE_WORKERS: usize = encoding::AT_ONCE + 1;
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The model is being opened.
    Loading,
    Ready,
    /// No request is accepted any more; answers in progress go on.
    Draining,
}

/// What the handlers share.
pub struct App {
    phase: watch::Sender<Phase>,
    served: OnceLock<Served>,
    metrics: Metrics,
    unknown: Unknown,
    logs_prompts: bool,
    request_timeout: Option<Duration>,
    client_timeout: Duration,
    /// Set if the engine has failed.
    failure: OnceLock<()>,
}

impl App {
    /// The model, if requests are accepted.
    ///
    /// # Errors
    /// If the model is not open yet, or the server is about to end.
    fn served(&self) -> error::Result<&Served> {
        match (*self.phase.borrow(), self.served.get()) {
            (Phase::Draining, _) => Err(ApiError::draining()),
            (_, Some(served)) => Ok(served),
            (_, None) => {
                Err(ApiError::unavailable("the model is being opened", 1).with_code("loading"))
            }
        }
    }

    /// Whether a file of the model was changed while it was in use: no request is answered then.
    fn is_changed(&self) -> bool {
        self.served.get().is_some_and(|served| served.model().check_files().is_err())
    }

    /// Most bytes of a body.
    fn most_body(&self) -> usize {
        served::most_body(self.served.get().map_or(0, |served| served.context()))
    }
}

pub fn run(args: &args::Serve) -> Result<()> {
    let key = Key::read(args.api_key_file.as_deref())?;
    let listener = bind(args, key.is_some())?;
    let address = listener.local_addr()?;
    let access =
        Access { key, origins: args.origin.clone(), is_loopback: address.ip().is_loopback() };
    let needs_key = access.key.is_some();
    let app = Arc::new(App {
        phase: watch::Sender::new(Phase::Loading),
        served: OnceLock::new(),
        metrics: Metrics::new(),
        unknown: Unknown::default(),
        logs_prompts: args.log_prompts,
        request_timeout: args.request_timeout.0,
        client_timeout: args.client_timeout,
        failure: OnceLock::new(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(SPARE_WORKERS)
        .thread_keep_alive(FOREVER)
        .enable_all()
        .build()?;
    let router = router(&app, access);
    // Requests are answered while the model is opened: that it is not there yet.
    let serving = runtime.spawn(listen::serve(listener, router, Arc::clone(&app), args.grace));

    let served = Served::open(args, &app)?;
    note(&open::summary(&args.model, served.model()));
    announce(address, needs_key, &served);
    // Nobody else sets it.
    let _ = app.served.set(served);
    app.phase.send_if_modified(|phase| {
        let is_loading = *phase == Phase::Loading;
        if is_loading {
            *phase = Phase::Ready;
        }
        is_loading
    });
    let done = runtime.block_on(serving);
    // Connections that do not end are left behind.
    runtime.shutdown_background();
    done.context("the server")?
}

/// Says where the server is and how to ask it.
fn announce(address: SocketAddr, needs_key: bool, served: &Served) {
    let url = format!("http://{address}");
    note(&messages::serving(served.name(), &url));
    note(&if needs_key { messages::key_is_needed() } else { messages::key_is_not_needed() });
    let key = if needs_key { " -H 'Authorization: Bearer KEY'" } else { "" };
    let body = r#"{"messages": [{"role": "user", "content": "你好"}]}"#;
    note(&format!("curl {url}/v1/chat/completions{key} -d '{body}'"));
}

/// Listens. Without a key, only this machine may reach the server.
fn bind(args: &args::Serve, has_key: bool) -> Result<TcpListener> {
    let name = format!("{}:{}", args.host, args.port);
    let host = args.host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (host, args.port).to_socket_addrs().with_context(|| name.clone())?;
    let addresses: Vec<_> = addresses.collect();
    let is_loopback = addresses.iter().all(|address| address.ip().is_loopback());
    if !is_loopback && !has_key {
        return Err(usage(messages::host_needs_key(&args.host)));
    }
    ensure!(!addresses.is_empty(), messages::no_address(&args.host));
    let listener =
        TcpListener::bind(&addresses[..]).with_context(|| messages::cannot_listen(&name))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The paths of the server, and what stands before them.
fn router(app: &Arc<App>, access: Access) -> Router {
    let access = Arc::new(access);
    let router = Router::new()
        .route("/v1/chat/completions", post(chat::complete))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/fill", post(fill::fill))
        .route("/v1/responses", post(responses::create))
        .route("/v1/messages", post(anthropic::create))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::get))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/health", get(health::health))
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::description))
        .merge(page::router())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&access), access::guard));
    let router = match access.origins.is_empty() {
        true => router,
        false => router.layer(access.cors()),
    };
    router
        .layer(axum::middleware::from_fn(anthropic::shape_errors))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(app), log::log))
        .with_state(Arc::clone(app))
}

async fn no_such_path(request: axum::extract::Request) -> ApiError {
    let status = axum::http::StatusCode::NOT_FOUND;
    let path: String = request.uri().path().chars().take(100).collect();
    ApiError::new(status, format!("there is no path {path}")).with_code("not_found")
}

async fn no_such_method(method: Method) -> ApiError {
    let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    ApiError::new(status, format!("this path has no method {method}"))
        .with_code("method_not_allowed")
}

/// The answer of a handler that panicked. The hook of panics has written to the log.
fn panicked(_: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    axum::response::IntoResponse::into_response(ApiError::internal(
        "the server failed; its log says more",
    ))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn a_panic_is_an_error_of_its_request_alone() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(panics());
    }

    async fn panics() {
        let fails = |request: Request<Body>| async move {
            assert_eq!(request.uri().path(), "/good");
        };
        let router =
            Router::new().route("/{*path}", get(fails)).layer(CatchPanicLayer::custom(panicked));
        let status = |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let router = router.clone();
            async move { router.oneshot(request).await.unwrap() }
        };
        let failed = status("/bad").await;
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = to_bytes(failed.into_body(), 1 << 16).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["type"], "server_error");
        assert_eq!(status("/good").await.status(), StatusCode::OK);
    }
}
