//! Turns at work that few can do at the same time, fair between clients.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use glm_model::{Client, FairQueue};
use tokio::sync::oneshot;

use super::deadline::within;
use super::error::{ApiError, Result};

/// Who has a turn, and who waits for one.
#[derive(Clone)]
pub struct Turns(Arc<Mutex<State>>);

struct State {
    at_once: usize,
    /// Most that wait.
    most: usize,
    working: Vec<Client>,
    waiting: FairQueue<Waits>,
}

/// One that waits.
struct Waits {
    turn: oneshot::Sender<Turn>,
    is_admitted: bool,
}

impl Waits {
    /// Whether its client has not left.
    fn is_there(&self) -> bool {
        !self.turn.is_closed()
    }
}

/// A turn. To drop it gives it to the next.
pub struct Turn {
    turns: Turns,
    client: Client,
}

impl Turns {
    /// At most `at_once` clients have turns at the same time, and at most `waiting` wait.
    pub fn new(at_once: usize, waiting: usize) -> Self {
        let (working, queue) = (Vec::new(), FairQueue::default());
        Self(Arc::new(Mutex::new(State { at_once, most: waiting, working, waiting: queue })))
    }

    /// Waits for a turn. The next is that of the client that has the fewest. If too many wait, the last of the client with the most is
    /// refused; one that is admitted, whose request has a place for its answer already, never is.
    ///
    /// # Errors
    /// If too many wait, or the turn does not come until the deadline.
    async fn turn(
        &self,
        client: Client,
        deadline: Option<Instant>,
        is_admitted: bool,
    ) -> Result<Turn> {
        let turn = {
            let mut state = self.lock();
            state.waiting.retain(Waits::is_there);
            // A free turn is given to those who wait at once.
            if state.working.len() < state.at_once {
                state.working.push(client);
                return Ok(Turn { turns: self.clone(), client });
            }
            let refusable = state.waiting.iter().filter(|other| !other.is_admitted).count();
            if !is_admitted && refusable >= state.most {
                let refused = state.waiting.give_way(client, |other| !other.is_admitted);
                // To drop it tells it.
                drop(refused.ok_or_else(|| ApiError::queue_is_full(1))?);
            }
            let (turn, received) = oneshot::channel();
            state.waiting.push(client, Waits { turn, is_admitted });
            received
        };
        match within(deadline, turn).await {
            Some(turn) => turn.map_err(|_| ApiError::queue_is_full(1)),
            None => Err(ApiError::timed_out("the request waited longer than --request-timeout")),
        }
    }

    /// Does the work in a turn of the client, without holding up connections.
    ///
    /// # Errors
    /// As [`Turns::turn`], or the error of the work.
    pub async fn run<T>(
        &self,
        client: Client,
        deadline: Option<Instant>,
        is_admitted: bool,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let _turn = self.turn(client, deadline, is_admitted).await?;
        tokio::task::block_in_place(work)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = self.turns.lock().pass_on(self.client);
        let Some((client, waits)) = next else { return };
        // If it has left since, its turn is dropped, and goes to the one after it.
        let _ = waits.turn.send(Self { turns: self.turns.clone(), client });
    }
}

impl State {
    /// Ends a turn of a client, and begins the next.
    fn pass_on(&mut self, client: Client) -> Option<(Client, Waits)> {
        if let Some(index) = self.working.iter().position(|other| *other == client) {
            self.working.swap_remove(index);
        }
        let shares = self.working.iter().copied().collect();
        let next = self.waiting.next(&shares, |_, waits| waits.is_there())?;
        let next = self.waiting.take(next);
        self.working.push(next.0);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::sync::mpsc;
    use std::task::Poll;
    use std::time::Duration;

    use tokio::runtime::Runtime;
    use tokio::task::JoinHandle;

    use super::*;

    fn client(address: u64, user: u64) -> Client {
        Client { address, user }
    }

    /// Turns of which one is taken, at a time.
    struct Busy {
        runtime: Runtime,
        turns: Turns,
        first: Option<Turn>,
        begun: mpsc::Sender<usize>,
        begins: mpsc::Receiver<usize>,
    }

    impl Busy {
        fn new(waiting: usize) -> Self {
            let runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = { runtime }.worker_threads(1).enable_time().build().unwrap();
            let turns = Turns::new(1, waiting);
            let first = Some(runtime.block_on(turns.turn(client(1, 1), None, false)).unwrap());
            let (begun, begins) = mpsc::channel();
            Self { runtime, turns, first, begun, begins }
        }

        /// One more that waits, and says its number when it has its turn.
        fn wait(
            &self,
            number: usize,
            client: Client,
            is_admitted: bool,
        ) -> JoinHandle<Option<u16>> {
            let (turns, begun) = (self.turns.clone(), self.begun.clone());
            let mut waits = Box::pin(async move {
                match turns.turn(client, None, is_admitted).await {
                    Ok(_turn) => begun.send(number).map(|()| None).unwrap(),
                    Err(error) => Some(error.status().as_u16()),
                }
            });
            // They arrive in the order of these calls.
            let first = poll_fn(|context| Poll::Ready(waits.as_mut().poll(context)));
            match self.runtime.block_on(first) {
                Poll::Ready(end) => self.runtime.spawn(std::future::ready(end)),
                Poll::Pending => self.runtime.spawn(waits),
            }
        }

        /// The order of turns once the first ends.
        fn order(mut self) -> Vec<usize> {
            drop(self.first.take());
            drop(self.begun);
            self.begins.iter().collect()
        }
    }

    #[test]
    fn another_client_has_the_next_turn() {
        let busy = Busy::new(8);
        for number in 0..3 {
            // The first address gives another user each time.
            busy.wait(number, client(1, number as u64), false);
        }
        busy.wait(3, client(2, 0), false);
        busy.wait(4, client(2, 0), false);
        assert_eq!(busy.order(), [0, 3, 1, 4, 2]);
    }

    #[test]
    fn one_that_has_left_never_begins() {
        let busy = Busy::new(2);
        let gone = busy.wait(0, client(1, 1), false);
        busy.wait(1, client(1, 1), false);
        gone.abort();
        while !gone.is_finished() {
            std::thread::yield_now();
        }
        // Its place is free.
        let late = busy.wait(2, client(1, 1), false);
        assert!(!late.is_finished());
        assert_eq!(busy.order(), [1, 2]);
    }

    #[test]
    fn those_who_wait_are_bounded_and_the_client_with_the_most_is_refused() {
        let busy = Busy::new(2);
        busy.wait(0, client(1, 1), true);
        busy.wait(1, client(1, 1), false);
        let last = busy.wait(2, client(1, 1), false);
        let status = |waits: JoinHandle<Option<u16>>| busy.runtime.block_on(waits).unwrap();
        assert_eq!(status(busy.wait(3, client(1, 1), false)), Some(429));
        busy.wait(4, client(1, 1), true);
        // The last one of the other that is not admitted makes room.
        busy.wait(5, client(2, 1), false);
        assert_eq!(status(last), Some(429));
        assert_eq!(status(busy.wait(6, client(2, 1), false)), Some(429));
        assert_eq!(busy.order(), [0, 5, 1, 4]);
    }

    #[test]
    fn a_turn_comes_in_time_or_not_at_all() {
        let busy = Busy::new(8);
        let deadline = Some(Instant::now() + Duration::from_millis(20));
        let late = busy.runtime.block_on(busy.turns.turn(client(2, 1), deadline, false));
        assert_eq!(late.err().unwrap().status().as_u16(), 504);
        assert_eq!(busy.order(), [0; 0]);
    }
}
