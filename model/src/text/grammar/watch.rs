//! The longest time for one token. The limits of steps of [`llguidance`] do not bound it: for an ambiguous grammar, each step of the
//! parser compares with all others of its row.

use std::io;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use llguidance::{CancellationHandle, Matcher};

/// Cancels the work of matchers that takes too long.
#[derive(Clone)]
pub(super) struct Watch {
    limit: Duration,
    begun: Sender<Work>,
}

/// Work of a matcher.
struct Work {
    end: Instant,
    /// Dropped when it is done.
    is_going_on: Weak<()>,
    handle: CancellationHandle,
}

impl Watch {
    /// Starts a thread, which ends with the last clone.
    ///
    /// # Errors
    /// If the system has no thread.
    pub(super) fn start(limit: Duration) -> io::Result<Self> {
        let (begun, works) = mpsc::channel();
        thread::Builder::new().name("grammar".to_owned()).spawn(move || watch(&works))?;
        Ok(Self { limit, begun })
    }

    /// Does work of a matcher that can be cancelled. It fails if it takes longer than the limit, and so does all later work of the matcher.
    pub(super) fn guard<R>(
        &self,
        matcher: &mut Matcher,
        work: impl FnOnce(&mut Matcher) -> R,
    ) -> R {
        let goes_on = Arc::new(());
        if let Some(handle) = matcher.cancellation_handle() {
            let (end, is_going_on) = (Instant::now() + self.limit, Arc::downgrade(&goes_on));
            // The thread does not end before the last sender.
            let _ = self.begun.send(Work { end, is_going_on, handle });
        }
        work(matcher)
    }
}

/// All works have the same limit, so the first that began is the first that is due.
fn watch(works: &Receiver<Work>) {
    for Work { end, is_going_on, handle } in works {
        if is_going_on.strong_count() > 0 {
            thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        if is_going_on.strong_count() > 0 {
            handle.cancel();
        }
    }
}
