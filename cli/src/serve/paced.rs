//! A connection whose client must take what it is sent.

use crate::limits::server::SLOWEST;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream whose writes fail if the other side takes too little of them.
pub struct Paced<S> {
    stream: S,
    /// How long a client that takes nothing may hold up a response.
    patience: Duration,
    /// How much of that is left. What the client takes gives some of it back.
    left: Duration,
    waiting: Option<Waiting>,
}

/// A write that waits for the other side.
struct Waiting {
    since: Instant,
    end: Pin<Box<Sleep>>,
}

impl<S> Paced<S> {
    pub fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, left: patience, waiting: None }
    }

    /// The result of a write, or an error if the other side has taken too long.
    fn pace(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => {
                let left = self.left;
                let waiting = self.waiting.get_or_insert_with(|| Waiting {
                    since: Instant::now(),
                    end: Box::pin(sleep(left)),
                });
                let end = waiting.end.as_mut().poll(context);
                end.map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Ok(bytes)) => {
                let waited = self.waiting.take().map_or(Duration::ZERO, |it| it.since.elapsed());
                let earned = Duration::from_secs_f64(bytes as f64 / f64::from(SLOWEST));
                self.left = (self.left.saturating_sub(waited) + earned).min(self.patience);
                Poll::Ready(Ok(bytes))
            }
            failed => failed,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.pace(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.pace(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Takes this many bytes after each pause.
    struct Reader {
        bytes: usize,
        pause: Duration,
        ready: Pin<Box<Sleep>>,
    }

    impl Reader {
        fn new(bytes: usize, pause: Duration) -> Self {
            Self { bytes, pause, ready: Box::pin(sleep(pause)) }
        }

        fn take(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
            let ready = self.ready.as_mut().poll(context);
            ready.map(|()| {
                self.ready = Box::pin(sleep(self.pause));
                Ok(self.bytes)
            })
        }
    }

    /// How long a client that takes this much is waited for, if it fails within a second.
    fn failed_after(bytes: usize, pause: u64) -> Option<Duration> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut reader = Reader::new(bytes, Duration::from_millis(pause));
            let mut paced = Paced::new((), Duration::from_millis(200));
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(1) {
                let written = poll_fn(|context| {
                    let written = reader.take(context);
                    paced.pace(context, written)
                });
                if written.await.is_err() {
                    return Some(begun.elapsed());
                }
            }
            None
        })
    }

    #[test]
    fn a_client_that_takes_too_little_is_not_waited_for() {
        let nothing = failed_after(0, 10_000).unwrap();
        assert!(nothing >= Duration::from_millis(190), "{nothing:?}");
        // There is progress each time, but it is too little.
        assert!(failed_after(1, 150).is_some());
        assert!(failed_after(100, 100).is_some());
        assert_eq!(failed_after(4096, 50), None);
    }
}
