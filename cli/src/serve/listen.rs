//! Connections: their number, the time they may take, and the end of the server.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::Request;
use glm_model::CancelToken;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};
use tower::ServiceExt;

use super::addresses::{Addresses, Place};
use super::paced::Paced;
use super::{App, Phase};
use crate::failure::INTERRUPTED;
use crate::limits::server::{
    CONNECTIONS, HEADER_BYTES, HEADER_LINES, LAST_WORDS, OF_ADDRESS, SEND_BUFFER,
};
use crate::messages;
use crate::output::note;

/// The address of the client of a request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves until the system asks the program to end. Then answers in progress may take `grace`, and the cache is saved. If SIGINT or SIGTERM
/// asks again, the program ends at once.
///
/// # Errors
/// If the listener or the signals cannot be used, the engine has failed, or the cache cannot be saved.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    app: Arc<App>,
    grace: Duration,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let addresses = Addresses::new(OF_ADDRESS);
    let server = Server { listener, router, app: Arc::clone(&app), places, addresses };
    let mut connections = JoinSet::new();
    let mut signals = Signals::catch()?;
    {
        let mut ended = pin!(signals.next());
        let mut phase = app.phase.subscribe();
        let mut failed = pin!(phase.wait_for(|phase| *phase == Phase::Draining));
        loop {
            tokio::select! {
                biased;
                () = &mut ended => break,
                _ = &mut failed => break,
                Some(_) = connections.join_next() => {}
                accepted = server.accept() => server.spawn(&mut connections, accepted, true),
            }
        }
    }
    if app.phase.send_replace(Phase::Draining) == Phase::Loading {
        // Nothing has been asked yet, and the opening of a model takes long.
        exit();
    }
    note(&messages::draining(grace.as_secs()));
    let mut refused = JoinSet::new();
    let mut refusing = pin!(async {
        loop {
            tokio::select! {
                Some(_) = refused.join_next() => {}
                accepted = server.accept() => server.spawn(&mut refused, accepted, false),
            }
        }
    });
    let answering = async {
        let done = async { while connections.join_next().await.is_some() {} };
        if timeout(grace, done).await.is_err() {
            if let Some(served) = app.served.get() {
                served.stop();
            }
            let done = async { while connections.join_next().await.is_some() {} };
            let _ = timeout(LAST_WORDS, done).await;
        }
    };
    tokio::select! {
        () = answering => {}
        () = &mut refusing => {}
        () = signals.next() => exit(),
    }
    ensure!(app.failure.get().is_none(), messages::engine_failed());
    let Some(served) = app.served.get() else { return Ok(()) };
    let cancel = CancelToken::default();
    let mut saving = pin!(served.end(&cancel));
    tokio::select! {
        biased;
        saved = &mut saving => Ok(saved?),
        () = refusing => Ok(()),
        () = signals.next() => {
            cancel.cancel();
            // The file may have been finished before it could be cancelled.
            match timeout(LAST_WORDS, saving).await {
                Ok(Ok(())) => Ok(()),
                _ => exit(),
            }
        }
    }
}

/// Ends the program without waiting for anything, not even for its log to be read.
fn exit() -> ! {
    std::process::exit(INTERRUPTED.into())
}

struct Server {
    listener: TcpListener,
    router: Router,
    app: Arc<App>,
    places: Arc<Semaphore>,
    addresses: Addresses,
}

struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    _places: (OwnedSemaphorePermit, Place),
}

impl Server {
    /// The next connection, once there is a place for it.
    async fn accept(&self) -> Accepted {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { continue };
            match self.listener.accept().await {
                Ok((stream, peer)) => match self.addresses.place(peer.ip()) {
                    Some(of_address) => {
                        return Accepted { stream, peer, _places: (place, of_address) };
                    }
                    None => drop(stream),
                },
                // The client has gone, or there are too many open files.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn spawn(&self, connections: &mut JoinSet<()>, accepted: Accepted, keeps: bool) {
        let (router, mut phase) = (self.router.clone(), self.app.phase.subscribe());
        let patience = self.app.client_timeout;
        let longest = self.app.request_timeout.map(|time| time + patience);
        connections.spawn(async move {
            let Accepted { stream, peer, _places } = accepted;
            // Pieces of an answer are small and must not wait for each other.
            let _ = stream.set_nodelay(true);
            let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
            let (begun, due) = watch::channel(None);
            let service =
                router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
                    begun.send_replace(longest.map(|time| Instant::now() + time));
                    request.extensions_mut().insert(Peer(peer));
                    Request::from(request.map(axum::body::Body::new))
                });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(patience)
                .max_buf_size(HEADER_BYTES)
                .max_headers(HEADER_LINES)
                .keep_alive(keeps)
                .serve_connection(
                    TokioIo::new(Paced::new(stream, patience)),
                    TowerToHyperService::new(service),
                );
            let serving = async {
                let mut connection = pin!(connection);
                tokio::select! {
                    _ = &mut connection => return,
                    _ = phase.wait_for(|phase| keeps && *phase == Phase::Draining) => {}
                }
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            };
            tokio::select! {
                () = serving => {}
                () = overdue(due) => {}
            }
        });
    }
}

/// Waits until the last request of a connection should have ended. A response can be over for the server long before a slow client has
/// taken it.
async fn overdue(mut due: watch::Receiver<Option<Instant>>) {
    loop {
        let end = *due.borrow_and_update();
        let next = due.changed();
        let is_next = match end {
            Some(end) => timeout_at(end.into(), next).await,
            None => Ok(next.await),
        };
        // Without a next request, the connection is given up.
        if !matches!(is_next, Ok(Ok(()))) {
            return;
        }
    }
}

/// The signals that end the server: SIGINT, SIGTERM, and SIGHUP, when its terminal was closed.
struct Signals {
    #[cfg(unix)]
    kinds: Vec<tokio::signal::unix::Signal>,
    /// `None` after the first signal. A terminal that is closed sends SIGHUP twice: the shell sends it to its jobs, and then the system
    /// to the foreground process group.
    #[cfg(unix)]
    hangup: Option<tokio::signal::unix::Signal>,
}

impl Signals {
    #[cfg(unix)]
    fn catch() -> Result<Self> {
        use crate::interrupt::is_ignored;
        use tokio::signal::unix::{SignalKind, signal};
        let catch = |kind| signal(kind).context("signals cannot be caught");
        let kinds = vec![catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?];
        // `nohup` has the signal ignored, and it must stay so.
        let hangup = SignalKind::hangup();
        let is_caught = !is_ignored(hangup.as_raw_value());
        Ok(Self { kinds, hangup: is_caught.then(|| catch(hangup)).transpose()? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        use std::task::Poll;
        std::future::poll_fn(|context| {
            let mut kinds = self.kinds.iter_mut().chain(&mut self.hangup);
            let is_sent = kinds.any(|kind| kind.poll_recv(context).is_ready());
            if is_sent { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        // The handler stays installed, so that a later SIGHUP has no effect.
        self.hangup = None;
    }

    #[cfg(not(unix))]
    fn catch() -> Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
