//! Parallel loops on a rayon pool. Rows are split, sums never: any number of threads gives the same bits.
//!
//! A forward pass has some hundred steps a token, and to fork and join for each would cost more than some of them. So
//! [`parallel_region`] enters the pool once. Its caller becomes the leader and the other threads become followers. The leader
//! publishes a step, all threads take tasks of it, and the leader continues when all tasks are done. It does not wait for a
//! follower that loses its core between two tasks. It does wait for one that loses it within a task, so tasks are small.
//!
//! The protocol is in `team`. `model` checks it with loom.

mod backoff;
mod duty;
#[cfg(all(test, loom))]
mod model;
mod rows;
mod sync;
mod team;
mod tiles;

use duty::Duty;
pub use rows::{SharedRows, for_each_row};
use team::Team;
pub(crate) use tiles::{Tile, tiles, whole_tiles};

/// Runs `lead` with the other threads of the current rayon pool as followers of every [`for_each`] in it.
///
/// Within another region, or within a task, `lead` runs as it is.
///
/// # Panics
/// If `lead` or a task does.
pub fn parallel_region<R: Send>(lead: impl FnOnce() -> R + Send) -> R {
    let threads = rayon::current_num_threads();
    if threads == 1 || !matches!(duty::current(), Duty::Alone) {
        return lead();
    }
    let team = &Team::new(threads);
    rayon::scope(|scope| {
        (1..threads).for_each(|me| scope.spawn(move |_| team.follow(me)));
        team.region(lead)
    })
}

/// Calls `task` for every index below `n`, in any order, on the threads of the current region, or else of the current pool.
///
/// Within a task, all calls are made by the calling thread.
///
/// # Panics
/// If a task does; among several threads, if `n` is 2³² or more.
pub fn for_each(n: usize, task: impl Fn(usize) + Sync) {
    match duty::current() {
        _ if n <= 1 => (0..n).for_each(task),
        Duty::Busy => (0..n).for_each(task),
        // SAFETY: the role ends before the team does, see `Team::region`.
        Duty::Leading(team) => unsafe { &*team }.lead(n, &task),
        Duty::Alone if rayon::current_num_threads() == 1 => (0..n).for_each(task),
        Duty::Alone => parallel_region(|| for_each(n, &task as &(dyn Fn(usize) + Sync))),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;
    use std::thread::yield_now;

    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    /// Steps, or regions. An interpreter takes a minute for a hundred.
    const STEPS: usize = if cfg!(miri) { 8 } else { 500 };

    /// Each step reads all results of the previous one, and counts how often each of its tasks was done.
    fn steps(n: usize) -> Vec<usize> {
        let (mut a, mut b) = (vec![1; n], vec![0; n]);
        let done: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        for step in 0..STEPS {
            for_each_row(&mut b, 1, |i, out| {
                out[0] = (a[i] + a[(i + step) % n]) % 1_000_003;
                done[i].fetch_add(1, Relaxed);
            });
            std::mem::swap(&mut a, &mut b);
            assert!(done.iter().all(|times| times.load(Relaxed) == step + 1), "step {step}");
        }
        a
    }

    #[test]
    fn every_task_is_done_once_before_the_next_step() {
        for n in if cfg!(miri) { [1, 2, 7, 10] } else { [1, 2, 7, 100] } {
            let alone = pool(1).install(|| parallel_region(|| steps(n)));
            for threads in [2, 3, 8] {
                let pool = pool(threads);
                assert_eq!(
                    pool.install(|| parallel_region(|| steps(n))),
                    alone,
                    "{threads} threads"
                );
                // A region for each step.
                assert_eq!(pool.install(|| steps(n)), alone, "{threads} threads");
            }
        }
    }

    /// The first task of a share waits for all others of the step, which another thread has to do.
    #[test]
    fn idle_threads_take_tasks_of_other_shares() {
        const TASKS: usize = 12;
        for threads in [2, 3] {
            let pool = pool(threads);
            let done = AtomicUsize::new(0);
            pool.install(|| {
                for_each(TASKS, |i| {
                    while i == 0 && done.load(Relaxed) < TASKS - 1 {
                        yield_now();
                    }
                    done.fetch_add(1, Relaxed);
                });
            });
            assert_eq!(done.load(Relaxed), TASKS);
        }
    }

    #[test]
    fn nested_loops_run_on_one_thread() {
        let mut sums = vec![0; 50];
        pool(3).install(|| {
            for_each_row(&mut sums, 1, |i, sum| {
                let inner = AtomicUsize::new(0);
                for_each(i, |j| {
                    inner.fetch_add(j, Relaxed);
                });
                parallel_region(|| sum[0] = inner.load(Relaxed));
            });
        });
        assert!(sums.iter().enumerate().all(|(i, &sum)| sum == i * i.saturating_sub(1) / 2));
    }

    #[test]
    fn rayon_can_still_be_used_by_the_leader() {
        use rayon::prelude::*;
        let sum: usize = pool(3).install(|| parallel_region(|| (0..1000).into_par_iter().sum()));
        assert_eq!(sum, 499_500);
    }

    #[test]
    fn a_panic_ends_the_work_and_reaches_the_caller() {
        let pool = pool(4);
        for bad in [0, 37, 99] {
            let work = || parallel_region(|| for_each(100, |i| assert_ne!(i, bad, "on purpose")));
            assert!(catch_unwind(AssertUnwindSafe(|| pool.install(work))).is_err());
        }
        assert_eq!(pool.install(|| parallel_region(|| 7)), 7);
    }

    #[test]
    fn nothing_builds_on_a_step_that_failed() {
        for _ in 0..STEPS / 2 {
            let reached = AtomicUsize::new(0);
            let work = || {
                parallel_region(|| {
                    for_each(100, |i| assert_ne!(i % 10, 3, "on purpose"));
                    reached.fetch_add(1, Relaxed);
                })
            };
            assert!(catch_unwind(AssertUnwindSafe(|| pool(4).install(work))).is_err());
            assert_eq!(reached.load(Relaxed), 0);
        }
    }
}
