//! Waiting for another thread.

use super::sync::{spin_loop, yield_now};

/// Spins for 2000 pauses, some ten to a hundred microseconds, and then yields the core, which the awaited thread may need.
#[derive(Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// None under loom, where a thread must yield for another to run.
    const SPINS: u32 = if cfg!(loom) { 0 } else { 2000 };

    pub(super) fn wait(&mut self) {
        if self.0 < Self::SPINS {
            self.0 += 1;
            spin_loop();
        } else if cfg!(loom) {
            self.0 += 1;
            yield_now();
        } else {
            yield_now();
        }
    }

    /// Whether number `me` of a team loses its core for good here. Only in the model, of which two threads that both wait without
    /// a limit would make an endless execution: loom may always run the other one next. So only the first follower waits more than once.
    #[inline(always)]
    pub(super) fn core_is_lost(&self, me: usize) -> bool {
        cfg!(loom) && me > 1 && self.0 >= 1
    }
}
