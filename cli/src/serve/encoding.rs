//! Work before an answer: texts are encoded, and grammars compiled. It may take long and cannot be interrupted, even if the client leaves.
//!
//! A grammar can take seconds, and a text takes milliseconds. So each kind has turns of its own: no text waits for a grammar.

use super::turns::Turns;
use crate::limits::server::{GRAMMARS, TEXTS};

/// Threads that work at the same time.
pub const AT_ONCE: usize = TEXTS + GRAMMARS;

/// Who works, and who waits for it.
pub struct Encoding {
    pub texts: Turns,
    pub grammars: Turns,
}

impl Encoding {
    /// At most `waiting` requests wait for each kind of work; each holds its body.
    pub fn new(waiting: usize) -> Self {
        Self { texts: Turns::new(TEXTS, waiting), grammars: Turns::new(GRAMMARS, waiting) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::{Duration, Instant};

    use glm_model::Client;

    use super::*;

    #[test]
    fn texts_do_not_wait_for_grammars() {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_time().build().unwrap();
        let encoding = Arc::new(Encoding::new(4));
        let client = Client::default();
        let (begun, begins) = mpsc::channel();
        let ends: Vec<_> = (0..GRAMMARS)
            .map(|_| {
                let (encoding, begun) = (Arc::clone(&encoding), begun.clone());
                let (end, ended) = mpsc::channel::<()>();
                runtime.spawn(async move {
                    let compile = move || {
                        begun.send(()).unwrap();
                        let _ = ended.recv();
                        Ok(())
                    };
                    encoding.grammars.run(client, None, false, compile).await
                });
                begins.recv().unwrap();
                end
            })
            .collect();
        let status = |turns: &Turns, time| {
            let deadline = Some(Instant::now() + time);
            let done = runtime.block_on(turns.run(client, deadline, false, || Ok(())));
            done.map_err(|error| error.status().as_u16())
        };
        assert_eq!(status(&encoding.texts, Duration::from_secs(60)), Ok(()));
        assert_eq!(status(&encoding.grammars, Duration::from_millis(20)), Err(504));
        drop(ends);
        assert_eq!(status(&encoding.grammars, Duration::from_secs(60)), Ok(()));
    }
}
