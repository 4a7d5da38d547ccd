//! The protocol of `team` on loom's threads instead of rayon's: all interleavings and all values that the memory model lets a
//! load return, up to three preemptions (or `LOOM_MAX_PREEMPTIONS`). The kernels are compiled unoptimized for it, which saves a
//! minute.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p glm-kernels --lib --config profile.dev.package.glm-kernels.opt-level=0 parallel::model
//! ```
//!
//! Results are loom cells that are not atomic: loom reports two accesses of one, of which one writes, unless the protocol orders
//! them. So each test checks the orderings, too.

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use super::duty::{self, Duty};
use super::sync::panic_in_task;
use super::team::Team;
use super::{for_each, parallel_region};

/// Checks `test` in all executions with at most `preemptions` preemptions.
fn model(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(test);
}

/// A number for each task.
struct Cells(Vec<UnsafeCell<u32>>);

// SAFETY: loom reports unordered accesses.
unsafe impl Sync for Cells {}
// SAFETY: as for `Sync`.
unsafe impl Send for Cells {}

impl Cells {
    fn new(n: usize) -> Arc<Self> {
        Arc::new(Self((0..n).map(|_| UnsafeCell::new(0)).collect()))
    }
    fn get(&self, i: usize) -> u32 {
        // SAFETY: as for `Sync`.
        self.0[i].with(|value| unsafe { *value })
    }
    fn add(&self, i: usize, n: u32) {
        // SAFETY: as for `Sync`.
        self.0[i].with_mut(|value| unsafe { *value += n });
    }
    fn all(&self) -> Vec<u32> {
        (0..self.0.len()).map(|i| self.get(i)).collect()
    }
}

/// Runs `lead` with `threads - 1` followers.
fn region(threads: usize, lead: impl FnOnce(&Team)) {
    let team = Arc::new(Team::new(threads));
    let followers: Vec<_> = (1..threads)
        .map(|me| {
            let team = team.clone();
            thread::spawn(move || team.follow(me))
        })
        .collect();
    team.region(|| lead(&team));
    followers.into_iter().for_each(|follower| follower.join().unwrap());
}

/// In some executions the follower enters at once, in some between two tasks, in some when the step is closed or the team
/// dismissed: a lost core is one of them.
#[test]
fn every_task_runs_once_and_the_leader_sees_its_result() {
    model(3, || {
        region(2, |_| {
            let cells = Cells::new(3);
            for_each(3, |i| cells.add(i, 1));
            assert_eq!(cells.all(), [1, 1, 1]);
        });
    });
}

/// Fewer preemptions, as in all models of three threads: the executions are too many for more.
#[test]
fn two_followers() {
    model(2, || {
        region(3, |_| {
            let cells = Cells::new(2);
            for_each(2, |i| cells.add(i, 1));
            assert_eq!(cells.all(), [1, 1]);
        });
    });
}

#[test]
fn a_step_reads_what_the_previous_one_wrote() {
    model(3, || {
        region(2, |_| {
            let (a, b) = (Cells::new(2), Cells::new(2));
            for_each(2, |i| a.add(i, 1 + i as u32));
            for_each(2, |i| b.add(i, 10 * a.get(1 - i)));
            assert_eq!(b.all(), [20, 10]);
        });
    });
}

#[test]
fn two_followers_and_two_steps() {
    model(1, || {
        region(3, |_| {
            let (a, b) = (Cells::new(2), Cells::new(2));
            for_each(2, |i| a.add(i, 1 + i as u32));
            for_each(2, |i| b.add(i, 10 * a.get(1 - i)));
            assert_eq!(b.all(), [20, 10]);
        });
    });
}

/// A task of the first step dies before the second step.
#[test]
fn no_task_outlives_its_step() {
    model(3, || {
        region(2, |_| {
            for step in 1..3 {
                let cells = Cells::new(2);
                for_each(2, |i| cells.add(i, step));
                assert_eq!(cells.all(), [step; 2]);
            }
        });
    });
}

/// Its core is lost until the region is over.
#[test]
fn a_follower_after_the_end_returns() {
    model(3, || {
        let team = Arc::new(Team::new(2));
        let cells = Cells::new(2);
        team.region(|| for_each(2, |i| cells.add(i, 1)));
        let follower = thread::spawn({
            let team = team.clone();
            move || team.follow(1)
        });
        assert_eq!(cells.all(), [1, 1]);
        follower.join().unwrap();
    });
}

/// It never gets a core.
#[test]
fn a_leader_needs_no_followers() {
    model(3, || {
        let team = Team::new(2);
        let cells = Cells::new(2);
        team.region(|| {
            for_each(2, |i| cells.add(i, 1));
            for_each(2, |i| cells.add(i, 1));
        });
        assert_eq!(cells.all(), [2, 2]);
    });
}

/// A region without steps.
#[test]
fn followers_are_dismissed() {
    model(3, || region(3, |_| ()));
}

fn is_leading() -> bool {
    matches!(duty::current(), Duty::Leading(_))
}

/// The first task panics, on either thread. If on a follower, `try_lead` reports it, and `lead` would panic, too. If on the
/// leader, the guards that unwinding drops wait for the follower. See `sync::simulated` for how a panic is modelled.
#[test]
fn a_panic_in_a_task_ends_the_region() {
    model(3, || {
        let team = Arc::new(Team::new(2));
        let cells = Cells::new(2);
        let follower = thread::spawn({
            let team = team.clone();
            move || {
                team.follow(1);
                super::sync::panicking()
            }
        });
        let failed = team.region(|| {
            team.try_lead(2, &|i| {
                cells.add(i, 1);
                if i == 0 {
                    panic_in_task();
                }
            })
        });
        let leader_panicked = super::sync::panicking();
        // No follower writes any more.
        let done = cells.all();
        assert_eq!(done[0], 1);
        let follower_panicked = follower.join().unwrap();
        assert!(leader_panicked != follower_panicked);
        assert_eq!(failed, follower_panicked, "the leader knows of a failed follower");
        if follower_panicked {
            assert_eq!(done[1], 1, "the leader did the rest");
        }
    });
}

/// What is nested in a task runs on its thread, and the roles come back.
#[test]
fn loops_and_regions_in_a_task_run_by_themselves() {
    model(3, || {
        region(2, |_| {
            let cells = Cells::new(4);
            for_each(2, |i| {
                for_each(2, |j| parallel_region(|| cells.add(2 * i + j, 1)));
                assert!(matches!(duty::current(), Duty::Busy));
            });
            assert!(is_leading());
            assert_eq!(cells.all(), [1; 4]);
        });
        assert!(matches!(duty::current(), Duty::Alone));
    });
}

/// rayon may hand the leader a follower's work, of its own team or of another.
#[test]
fn a_leader_does_not_follow() {
    model(3, || {
        region(2, |team| {
            let cells = Cells::new(2);
            team.follow(1);
            for_each(2, |i| cells.add(i, 1));
            assert_eq!(cells.all(), [1, 1]);
        });
    });
}
