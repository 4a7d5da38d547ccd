//! The protocol of a parallel region: one leader, some followers, and steps of many tasks.
//!
//! ```text
//! leader                                     follower
//! write the step
//! state = number, open, no followers  ──→    state += 1, if it is open and the number is new
//! take tasks                                 take tasks
//! close the state                     ←──    state −= 1
//! wait until it counts no followers
//! …
//! dismiss                             ──→    return
//! ```
//!
//! Both arrows are pairs of release and acquire. Only a follower that is counted in `state` reads the step, and the leader
//! writes it only while none is counted.
//!
//! Each thread has a share of the tasks, a contiguous range, and takes tasks from the other shares when its own is finished. So
//! what a task reads often begins where that of the previous task ended, and the hardware prefetcher, which needs some cache
//! lines to detect a stream, continues across tasks.

use std::mem::transmute;

use super::backoff::Backoff;
use super::duty::{self, Duty, DutyGuard};
use super::sync::atomic::AtomicU64;
use super::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::sync::{UnsafeCell, panicking, stopped_by_panic};

/// Cache-line aligned; two lines, since some CPUs prefetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

/// A step: one call of `task` for every index below `n`.
#[derive(Clone, Copy)]
struct Step {
    task: *const (dyn Fn(usize) + Sync),
    n: usize,
    /// Distinguishes it from earlier steps; wraps after 2³² steps, of which a team has some hundreds.
    number: u64,
}

/// The most shares: 4 KB on the stack of the leader. More threads than that use some shares in common.
const SHARES: usize = if cfg!(loom) { 2 } else { 32 };

/// A leader and its followers.
pub(super) struct Team {
    /// From bit 32 on the number of the step, below it [`OPEN`], [`DISMISSED`] and [`FAILED`], and below them the number of
    /// followers in the step.
    state: Line<AtomicU64>,
    /// For each share, from bit 32 on the last step in which a task of it was taken, below it how many were.
    taken: [Line<AtomicU64>; SHARES],
    shares: usize,
    step: UnsafeCell<Option<Step>>,
}

/// Followers may enter the step.
const OPEN: u64 = 1 << 16;
/// There will be no more steps.
const DISMISSED: u64 = 1 << 17;
/// A task of this step panicked on a follower.
const FAILED: u64 = 1 << 18;
const FOLLOWERS: u64 = OPEN - 1;
/// The bits below the number of a step.
const LOW: u64 = u32::MAX as u64;

// SAFETY: only the leader writes `step`, while no follower is in a step (see `lead`), and only followers in a step read it. Its
// task is `Sync` and outlives the step.
unsafe impl Sync for Team {}
// SAFETY: as for `Sync`.
#[cfg(loom)]
unsafe impl Send for Team {}

impl Team {
    pub(super) fn new(threads: usize) -> Self {
        assert!(threads as u64 <= FOLLOWERS, "{threads} threads");
        Self {
            state: Line::default(),
            taken: Default::default(),
            shares: threads.min(SHARES),
            step: UnsafeCell::default(),
        }
    }

    /// Runs `lead` as the leader, then dismisses the followers.
    pub(super) fn region<R>(&self, lead: impl FnOnce() -> R) -> R {
        // Drop order: clear the leader role, then release the followers.
        let _dismiss = Dismiss(self);
        let _role = DutyGuard::new(Duty::Leading(self));
        lead()
    }

    /// Publishes a step, takes part in it, and returns when all its tasks are done.
    pub(super) fn lead(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        // The results are incomplete, so nothing may use them. The follower's own panic reaches the caller through the pool.
        assert!(!self.try_lead(n, task), "a task of this step failed");
    }

    /// As [`lead`](Self::lead); whether a task panicked on a follower.
    pub(super) fn try_lead(&self, n: usize, task: &(dyn Fn(usize) + Sync)) -> bool {
        assert!(n as u64 <= LOW, "{n} tasks");
        // SAFETY: this only erases the lifetime. `Close` keeps this call from returning or unwinding before the last follower has
        // left the step, and none enters it afterwards.
        let task: *const (dyn Fn(usize) + Sync + 'static) = unsafe { transmute(task) };
        let number = ((self.state.0.load(Relaxed) >> 32) + 1) & LOW;
        let step = Step { task, n, number };
        // SAFETY: the previous step is closed and all have left it, so no other thread accesses the cell.
        self.step.with_mut(|to| unsafe { *to = Some(step) });
        // Release: a follower that enters sees the step and everything before it.
        self.state.0.store(number << 32 | OPEN, Release);
        let close = Close(self);
        self.take_part(step, 0);
        drop(close);
        self.state.0.load(Relaxed) & FAILED != 0
    }

    /// Takes part in steps, as number `me` of the team, until it is dismissed.
    pub(super) fn follow(&self, me: usize) {
        // rayon may run this on a thread that waits for something else within its own region.
        if !matches!(duty::current(), Duty::Alone) {
            return;
        }
        let (mut last, mut backoff) = (0, Backoff::default());
        loop {
            let state = self.state.0.load(Acquire);
            if state & DISMISSED != 0 {
                return;
            }
            if state & OPEN == 0 || state >> 32 == last {
                if backoff.core_is_lost(me) {
                    return;
                }
                backoff.wait();
                continue;
            }
            if self.state.0.compare_exchange_weak(state, state + 1, AcqRel, Relaxed).is_err() {
                continue;
            }
            let leave = Leave(self);
            last = state >> 32;
            backoff = Backoff::default();
            // SAFETY: while this follower is counted in `state`, the leader does not write the cell.
            if let Some(step) = self.step.with(|step| unsafe { *step }) {
                self.take_part(step, me);
            }
            drop(leave);
            if stopped_by_panic() {
                return;
            }
        }
    }

    /// Does what is left of the share of number `me`, then of the shares after it.
    fn take_part(&self, step: Step, me: usize) {
        let _role = DutyGuard::new(Duty::Busy);
        for share in me..me + self.shares {
            let share = share % self.shares;
            let first = start(step.n, self.shares, share);
            let tasks = start(step.n, self.shares, share + 1) - first;
            while let Some(index) = self.take(step.number, share, tasks) {
                // SAFETY: the step is not over, so its task lives.
                let task = unsafe { &*step.task };
                task(first + index);
                if stopped_by_panic() {
                    return;
                }
            }
        }
    }

    /// Takes one of the `tasks` of a share in step `number`, if one is left.
    fn take(&self, number: u64, share: usize, tasks: usize) -> Option<usize> {
        let next = |taken: u64| if taken >> 32 == number { taken & LOW } else { 0 };
        let take = |taken| (next(taken) < tasks as u64).then(|| number << 32 | (next(taken) + 1));
        // Relaxed: this only decides which thread runs a task. `state` orders what tasks read and write.
        let taken = self.taken[share].0.fetch_update(Relaxed, Relaxed, take);
        taken.ok().map(|taken| next(taken) as usize)
    }
}

/// The first of `n` tasks that belongs to share `share` of `shares`; shares differ by at most one task.
fn start(n: usize, shares: usize, share: usize) -> usize {
    n / shares * share + (n % shares * share).div_ceil(shares)
}

/// Closes a step to further followers and waits for those in it.
struct Close<'a>(&'a Team);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.state.0.fetch_and(!OPEN, Relaxed);
        let mut backoff = Backoff::default();
        // Acquire: the leader sees what the followers wrote.
        while self.0.state.0.load(Acquire) & FOLLOWERS != 0 {
            backoff.wait();
        }
    }
}

/// A follower leaves a step, by a panic or without.
struct Leave<'a>(&'a Team);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.0.state.0.fetch_or(FAILED, Relaxed);
        }
        self.0.state.0.fetch_sub(1, Release);
    }
}

/// Makes the followers return.
struct Dismiss<'a>(&'a Team);

impl Drop for Dismiss<'_> {
    fn drop(&mut self) {
        self.0.state.0.fetch_or(DISMISSED, Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn shares_are_even_and_leave_nothing_out() {
        for n in [0, 1, 5, 64, 1000, LOW as usize] {
            for shares in [1, 2, 3, SHARES] {
                assert_eq!((start(n, shares, 0), start(n, shares, shares)), (0, n));
                for share in 0..shares {
                    let tasks = start(n, shares, share + 1) - start(n, shares, share);
                    assert!(tasks.abs_diff(n / shares) <= 1, "{n} tasks, {shares} shares");
                }
            }
        }
    }

    #[test]
    fn more_threads_than_shares_do_every_task_once() {
        let (done, seen) = (AtomicUsize::new(0), AtomicU64::new(0));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(SHARES + 3).build().unwrap();
        pool.install(|| {
            crate::parallel_region(|| {
                for _ in 0..20 {
                    seen.store(0, Relaxed);
                    crate::for_each(60, |i| {
                        done.fetch_add(1, Relaxed);
                        seen.fetch_or(1 << i, Relaxed);
                    });
                    assert_eq!(seen.load(Relaxed), (1 << 60) - 1);
                }
            });
        });
        assert_eq!(done.load(Relaxed), 20 * 60);
    }

    #[test]
    fn numbers_of_steps_wrap() {
        let team = Team::new(3);
        team.state.0.store((LOW - 2) << 32, Relaxed);
        for _ in 0..5 {
            let done = AtomicUsize::new(0);
            team.lead(10, &|_| {
                done.fetch_add(1, Relaxed);
            });
            assert_eq!(done.load(Relaxed), 10);
        }
        assert_eq!(team.state.0.load(Relaxed) >> 32, 2);
    }
}
