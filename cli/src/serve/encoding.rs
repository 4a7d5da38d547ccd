//! Work on texts before an answer: to encode them, or to compile a grammar. It may take long and cannot be interrupted.

use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::error::{ApiError, Result};

/// Requests whose texts are worked on at the same time.
pub const AT_ONCE: usize = 2;

/// Who works, and who waits for it.
pub struct Encoding {
    working: Semaphore,
    /// Places for those that work or wait: each holds the body of its request.
    present: Semaphore,
}

impl Encoding {
    /// At most `waiting` requests wait for their turn.
    pub fn new(waiting: usize) -> Self {
        Self { working: Semaphore::new(AT_ONCE), present: Semaphore::new(AT_ONCE + waiting) }
    }

    /// Does the work without holding up connections.
    ///
    /// # Errors
    /// If too many wait already, if the turn of this one does not come until the deadline, or the error of the work.
    pub async fn run<T>(
        &self,
        deadline: Option<Instant>,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let _present = self.present.try_acquire().map_err(|_| ApiError::queue_is_full(1))?;
        // The semaphore is never closed.
        let turn = self.working.acquire();
        let _turn = match deadline {
            None => turn.await,
            Some(deadline) => {
                let turn = timeout_at(deadline.into(), turn).await;
                turn.map_err(|_| {
                    ApiError::timed_out("the request waited longer than --request-timeout")
                })?
            }
        };
        tokio::task::block_in_place(work)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn waiting_is_bounded() {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_time().build().unwrap();
        let encoding = Arc::new(Encoding::new(1));
        let (begun, begins) = mpsc::channel();
        let ends: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (encoding, begun) = (Arc::clone(&encoding), begun.clone());
                let (end, ended) = mpsc::channel::<()>();
                runtime.spawn(async move {
                    let work = move || {
                        begun.send(()).unwrap();
                        let _ = ended.recv();
                        Ok(())
                    };
                    encoding.run(None, work).await
                });
                begins.recv().unwrap();
                end
            })
            .collect();
        let status = |time: Duration| {
            let deadline = Some(Instant::now() + time);
            let done = runtime.block_on(encoding.run(deadline, || Ok(())));
            done.map_err(|error| error.status().as_u16())
        };
        assert_eq!(status(Duration::from_millis(20)), Err(504));
        let waits = {
            let encoding = Arc::clone(&encoding);
            runtime.spawn(async move { encoding.run(None, || Ok(())).await })
        };
        while encoding.present.available_permits() > 0 {
            std::thread::yield_now();
        }
        assert_eq!(status(Duration::from_secs(60)), Err(429));
        drop(ends);
        runtime.block_on(waits).unwrap().unwrap();
        assert_eq!(status(Duration::from_secs(60)), Ok(()));
    }
}
