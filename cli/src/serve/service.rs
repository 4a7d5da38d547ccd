//! The server without connections: requests in, responses out.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, Response};
use clap::FromArgMatches;
use futures_util::StreamExt;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use super::access::Access;
use super::listen::Peer;
use super::served::Served;
use super::{App, router, runtime};
use crate::args;

/// The server without connections.
pub struct Service {
    app: Arc<App>,
    router: Router,
    runtime: Runtime,
}

impl Service {
    /// Opens the model as `glm serve` with these flags does.
    ///
    /// # Errors
    /// If a flag is wrong, or the model cannot be opened.
    pub fn open(flags: &[&str]) -> Result<Self> {
        let words = [&["glm", "serve"], flags].concat();
        let matches = args::command().try_get_matches_from(words)?;
        let matches = matches.subcommand_matches("serve").context("glm serve")?;
        let args = args::Serve::from_arg_matches(matches)?;
        let app = Arc::new(App::new(&args));
        app.begin(Served::open(&args, &app)?);
        let access = Access { key: None, origins: args.origin, is_loopback: true };
        Ok(Self { router: router(&app, access), app, runtime: runtime()? })
    }

    /// The response to a request of this machine. After `most` pieces of its body, the client goes away.
    pub fn respond(&self, request: Request<Vec<u8>>, most: usize) -> Response<Vec<u8>> {
        let mut request = request.map(Body::from);
        request.extensions_mut().insert(Peer(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))));
        self.runtime.block_on(async {
            // The error is the one that cannot be.
            let Ok(response) = self.router.clone().oneshot(request).await;
            let (parts, body) = response.into_parts();
            let pieces = body.into_data_stream().take(most);
            let pieces: Vec<Bytes> =
                pieces.filter_map(|piece| async { piece.ok() }).collect().await;
            Response::from_parts(parts, pieces.concat())
        })
    }

    /// Whether no answer runs or waits, and the place of each is free.
    pub fn is_idle(&self) -> bool {
        let metrics = &self.app.metrics;
        let is_free = self.app.served.get().is_none_or(Served::is_free);
        is_free && metrics.running.get() == 0 && metrics.waiting.get() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn requests_are_answered_without_connections() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/demo/int4");
        let service = Service::open(&["-m", model, "--threads", "1"]).unwrap();
        let ask = |fields: &str, most| {
            let body =
                format!(r#"{{"messages": [{{"role": "user", "content": "hi"}}], {fields}}}"#);
            let request = Request::post("/v1/chat/completions").header("host", "localhost");
            service.respond(request.body(body.into()).unwrap(), most)
        };
        let whole = ask(r#""max_tokens": 2"#, usize::MAX);
        assert_eq!(whole.status(), 200, "{}", String::from_utf8_lossy(whole.body()));
        // A client that goes away leaves nothing behind.
        let begun = ask(r#""stream": true, "ignore_eos": true"#, 1);
        assert!(begun.body().starts_with(b"data: "));
        let end = Instant::now() + Duration::from_secs(60);
        while !service.is_idle() {
            assert!(Instant::now() < end, "the answer goes on");
        }
    }

    #[test]
    fn wrong_flags_are_refused() {
        assert!(Service::open(&["--max-sequences", "0"]).is_err());
    }
}
