//! Work among the threads of a rayon pool. Rows are split, sums never: any number of threads gives the same bits.
//!
//! A forward pass has some hundred steps a token, and to fork and join for each would cost more than some of them. So
//! [`together`] enters the pool once. Its caller leads and the other threads follow: the leader publishes a step,
//! everybody takes tasks of it, and the leader goes on when all are done. A follower that has lost its core between two tasks
//! is not waited for; one that has lost it within a task is, so tasks are small.
//!
//! Each thread has a share of the tasks, a run of neighbours, and helps the others when its own are done. So what a task reads
//! often begins where that of the one before ended, and the processor, which needs some lines to see that it should read ahead,
//! is doing so already.

use std::cell::{Cell, UnsafeCell};
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::thread::yield_now;

/// Runs `lead` with the other threads of the current rayon pool at its side, for all [`for_each`] in it.
///
/// What goes wrong in a task goes wrong here, too.
pub fn together<R: Send>(lead: impl FnOnce() -> R + Send) -> R {
    let threads = rayon::current_num_threads();
    if threads == 1 || !matches!(ROLE.get(), Role::Alone) {
        return lead();
    }
    let team = &Team::new(threads);
    rayon::scope(|scope| {
        (1..threads).for_each(|me| scope.spawn(move |_| team.follow(me)));
        // Dropped in the reverse order: first there is no leader any more, then the followers go home.
        let _home = Dismiss(team);
        let _role = Playing::new(Role::Leading(team));
        lead()
    })
}

/// Calls `task` for every index below `n`, in any order, on the threads of the current team, or else of the current pool.
///
/// # Panics
/// If a task does; among several threads, if `n` is 2³² or more.
pub fn for_each(n: usize, task: impl Fn(usize) + Sync) {
    match ROLE.get() {
        _ if n <= 1 => (0..n).for_each(task),
        Role::Busy => (0..n).for_each(task),
        // SAFETY: the role ends before the team does, see `together`.
        Role::Leading(team) => unsafe { &*team }.lead(n, &task),
        Role::Alone if rayon::current_num_threads() == 1 => (0..n).for_each(task),
        Role::Alone => together(|| for_each(n, &task as &(dyn Fn(usize) + Sync))),
    }
}

/// What this thread does.
#[derive(Clone, Copy)]
enum Role {
    Alone,
    Leading(*const Team),
    /// A task or following: what it is to do among many, it does by itself.
    Busy,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Alone) };
}

/// A role until it is dropped; then the one before.
struct Playing(Role);

impl Playing {
    fn new(role: Role) -> Self {
        Self(ROLE.replace(role))
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        ROLE.set(self.0);
    }
}

/// A line of the cache of its own, or two where they are fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

/// A step: what is to be done for every index below `n`.
#[derive(Clone, Copy)]
struct Step {
    task: *const (dyn Fn(usize) + Sync),
    n: usize,
    /// Tells it from those before it; comes round after 2³² steps, of which a team has some hundreds.
    number: u64,
}

/// The most shares that there are, 4 KB on the stack of the leader; of more threads, some have the same share.
const SHARES: usize = 32;

/// A leader and those who follow.
struct Team {
    /// The number of the step from bit 32 on, [`OPEN`], [`DISMISSED`], [`FAILED`], and below them how many followers are in the
    /// step.
    state: Line<AtomicU64>,
    /// For each share: from bit 32 on the last step in which a task of it was taken, below it how many were.
    taken: [Line<AtomicU64>; SHARES],
    shares: usize,
    step: UnsafeCell<Option<Step>>,
}

/// Followers may enter the step.
const OPEN: u64 = 1 << 16;
const DISMISSED: u64 = 1 << 17;
/// A follower left a step by a panic.
const FAILED: u64 = 1 << 18;
const FOLLOWERS: u64 = OPEN - 1;
/// What lies below the number of a step.
const LOW: u64 = u32::MAX as u64;

// SAFETY: `step` is written by the leader alone, while no follower is in a step (see `lead`), and read by followers that are in
// one. The task that it points to can be shared, and outlives the step.
unsafe impl Sync for Team {}

impl Team {
    fn new(threads: usize) -> Self {
        Self {
            state: Line::default(),
            taken: Default::default(),
            shares: threads.min(SHARES),
            step: UnsafeCell::default(),
        }
    }

    /// Publishes a step, takes part in it, and returns when all of it is done.
    fn lead(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        assert!(n as u64 <= LOW, "{n} tasks");
        // SAFETY: only the lifetime is taken away; `Close` keeps this call from returning or unwinding before the last follower
        // has left the step, and none enters it afterwards.
        let task: *const (dyn Fn(usize) + Sync + 'static) = unsafe { std::mem::transmute(task) };
        let number = ((self.state.0.load(Relaxed) >> 32) + 1) & LOW;
        let step = Step { task, n, number };
        // SAFETY: the step before is closed and was left by all, so nobody else looks at this.
        unsafe { *self.step.get() = Some(step) };
        // Release: whoever enters sees the step, and all that was done before it.
        self.state.0.store(number << 32 | OPEN, Release);
        let close = Close(self);
        self.take_part(step, 0);
        drop(close);
        // The step is not whole, and nothing may build on it. What went wrong reaches the caller through the pool.
        assert!(self.state.0.load(Acquire) & FAILED == 0, "a task of this step failed");
    }

    /// Takes part in steps, as number `me` of the team, until there will be none any more.
    fn follow(&self, me: usize) {
        // A leader that waits for something else in its pool may be handed this.
        if !matches!(ROLE.get(), Role::Alone) {
            return;
        }
        let (mut last, mut patience) = (0, Patience::default());
        loop {
            let state = self.state.0.load(Acquire);
            if state & DISMISSED != 0 {
                return;
            }
            if state & OPEN == 0 || state >> 32 == last {
                patience.wait();
                continue;
            }
            if self.state.0.compare_exchange_weak(state, state + 1, AcqRel, Relaxed).is_err() {
                continue;
            }
            let _leave = Leave(self);
            last = state >> 32;
            patience = Patience::default();
            // SAFETY: while this follower is counted in the step, the leader neither changes nor ends it.
            if let Some(step) = unsafe { *self.step.get() } {
                self.take_part(step, me);
            }
        }
    }

    /// Does what is left of the share of number `me`, then of those after it.
    fn take_part(&self, step: Step, me: usize) {
        let _role = Playing::new(Role::Busy);
        for share in me..me + self.shares {
            let share = share % self.shares;
            let first = start(step.n, self.shares, share);
            let tasks = start(step.n, self.shares, share + 1) - first;
            while let Some(index) = self.take(step.number, share, tasks) {
                // SAFETY: the step is not over, so its task lives.
                let task = unsafe { &*step.task };
                task(first + index);
            }
        }
    }

    /// Takes one of the `tasks` of a share in step `number`, if there is one left.
    fn take(&self, number: u64, share: usize, tasks: usize) -> Option<usize> {
        let next = |taken: u64| if taken >> 32 == number { taken & LOW } else { 0 };
        let take = |taken| (next(taken) < tasks as u64).then(|| number << 32 | (next(taken) + 1));
        // Relaxed: this settles who takes what and nothing else; what tasks read and write is seen by way of `state`.
        let taken = self.taken[share].0.fetch_update(Relaxed, Relaxed, take);
        taken.ok().map(|taken| next(taken) as usize)
    }
}

/// The first of `n` tasks that belongs to share `share` of `shares`, as even as can be.
fn start(n: usize, shares: usize, share: usize) -> usize {
    n / shares * share + (n % shares * share).div_ceil(shares)
}

/// Lets nobody into a step any more, and waits for those who are in it.
struct Close<'a>(&'a Team);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        self.0.state.0.fetch_and(!OPEN, Relaxed);
        let mut patience = Patience::default();
        // Acquire: what followers did is seen.
        while self.0.state.0.load(Acquire) & FOLLOWERS != 0 {
            patience.wait();
        }
    }
}

/// A follower leaves a step, be it by a panic.
struct Leave<'a>(&'a Team);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.0.fetch_or(FAILED, Relaxed);
        }
        self.0.state.0.fetch_sub(1, Release);
    }
}

/// Sends the followers home.
struct Dismiss<'a>(&'a Team);

impl Drop for Dismiss<'_> {
    fn drop(&mut self) {
        self.0.state.0.fetch_or(DISMISSED, Release);
    }
}

/// Waits without letting go of the core for 2000 pauses, some ten to a hundred microseconds, and then lets others have it: who is waited for may need it.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    const SPINS: u32 = 2000;

    fn wait(&mut self) {
        if self.0 < Self::SPINS {
            self.0 += 1;
            spin_loop();
        } else {
            yield_now();
        }
    }
}

/// A matrix in rows, of which each task writes its own elements.
pub struct SharedRows<'a, T = f32> {
    start: *mut T,
    rows: usize,
    width: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: elements are written through `row` alone, whose callers promise that no element has two users.
unsafe impl<T: Send> Sync for SharedRows<'_, T> {}
// SAFETY: as for `Sync`; the pointer is borrowed from a slice that is itself `Send`.
unsafe impl<T: Send> Send for SharedRows<'_, T> {}

impl<'a, T> SharedRows<'a, T> {
    /// `values` as rows of `width` elements.
    ///
    /// # Panics
    /// If they are no whole number of rows.
    #[track_caller]
    pub fn new(values: &'a mut [T], width: usize) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "rows of {width}");
        let rows = values.len() / width;
        Self { start: values.as_mut_ptr(), rows, width, borrow: PhantomData }
    }

    /// Elements `columns` of row `row`; panics where they are outside the matrix.
    ///
    /// # Safety
    /// While they are borrowed, nobody else uses any of them.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn row(&self, row: usize, columns: Range<usize>) -> &mut [T] {
        assert!(row < self.rows && columns.start <= columns.end && columns.end <= self.width);
        // SAFETY: the assertion keeps the range inside the slice; the caller is its only user.
        unsafe {
            let start = self.start.add(row * self.width + columns.start);
            std::slice::from_raw_parts_mut(start, columns.len())
        }
    }
}

/// Calls `task` with every row of `values` and its index, on the threads that there are.
pub fn for_each_row<T: Send>(
    values: &mut [T],
    width: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = SharedRows::new(values, width);
    // SAFETY: each row is one task's.
    for_each(rows.rows, |row| task(row, unsafe { rows.row(row, 0..width) }));
}

/// Work on some tokens at a time.
pub(crate) trait Tile {
    /// How many at most: 1, 4 or 6.
    const TOKENS: usize;
    /// Does these tokens, of which the last may be there several times.
    fn tile<const T: usize>(&mut self, tokens: [usize; T]);
}

/// Hands all of `tokens` to `work`, as many at a time as it takes. What is left is rounded up to a size that there is code for;
/// a code for each would take long to compile.
#[inline(always)]
pub(crate) fn tiles<W: Tile>(tokens: usize, work: &mut W) {
    const { assert!(matches!(W::TOKENS, 1 | 4 | 6)) };
    let mut first = 0;
    while first < tokens {
        let left = tokens - first;
        first += if W::TOKENS == 1 || left == 1 {
            tile::<1, W>(first, tokens, work)
        } else if left == 2 {
            tile::<2, W>(first, tokens, work)
        } else if W::TOKENS == 4 || left <= 4 {
            tile::<4, W>(first, tokens, work)
        } else {
            tile::<6, W>(first, tokens, work)
        };
    }
}

#[inline(always)]
fn tile<const T: usize, W: Tile>(first: usize, tokens: usize, work: &mut W) -> usize {
    let mut these = [first; T];
    for t in 1..T {
        these[t] = (first + t).min(tokens - 1);
    }
    work.tile(these);
    T
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    /// Each step needs all of the one before, and counts how often each of its tasks was done.
    fn steps(n: usize) -> Vec<usize> {
        let (mut a, mut b) = (vec![1; n], vec![0; n]);
        let done: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        for step in 0..500 {
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
        for n in [1, 2, 7, 100] {
            let alone = pool(1).install(|| together(|| steps(n)));
            for threads in [2, 3, 8] {
                let pool = pool(threads);
                assert_eq!(pool.install(|| together(|| steps(n))), alone, "{threads} threads");
                // Entered for each step.
                assert_eq!(pool.install(|| steps(n)), alone, "{threads} threads");
            }
        }
    }

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
        pool(SHARES + 3).install(|| {
            together(|| {
                for _ in 0..20 {
                    seen.store(0, Relaxed);
                    for_each(60, |i| {
                        done.fetch_add(1, Relaxed);
                        seen.fetch_or(1 << i, Relaxed);
                    });
                    assert_eq!(seen.load(Relaxed), (1 << 60) - 1);
                }
            });
        });
        assert_eq!(done.load(Relaxed), 20 * 60);
    }

    /// The first task of a share waits for all others of the step, which somebody else has to do.
    #[test]
    fn whoever_is_done_helps_the_others() {
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
    fn numbers_of_steps_come_round() {
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

    #[test]
    fn what_is_nested_is_done_by_one() {
        let mut sums = vec![0; 50];
        pool(3).install(|| {
            for_each_row(&mut sums, 1, |i, sum| {
                let inner = AtomicUsize::new(0);
                for_each(i, |j| {
                    inner.fetch_add(j, Relaxed);
                });
                together(|| sum[0] = inner.load(Relaxed));
            });
        });
        assert!(sums.iter().enumerate().all(|(i, &sum)| sum == i * i.saturating_sub(1) / 2));
    }

    #[test]
    fn rayon_can_still_be_used_by_the_leader() {
        use rayon::prelude::*;
        let sum: usize = pool(3).install(|| together(|| (0..1000).into_par_iter().sum()));
        assert_eq!(sum, 499_500);
    }

    #[test]
    fn a_panic_ends_the_work_and_reaches_the_caller() {
        let pool = pool(4);
        for bad in [0, 37, 99] {
            let work = || together(|| for_each(100, |i| assert_ne!(i, bad, "on purpose")));
            assert!(catch_unwind(AssertUnwindSafe(|| pool.install(work))).is_err());
        }
        assert_eq!(pool.install(|| together(|| 7)), 7);
    }

    #[test]
    fn nothing_builds_on_a_step_that_failed() {
        for _ in 0..200 {
            let reached = AtomicUsize::new(0);
            let work = || {
                together(|| {
                    for_each(100, |i| assert_ne!(i % 10, 3, "on purpose"));
                    reached.fetch_add(1, Relaxed);
                })
            };
            assert!(catch_unwind(AssertUnwindSafe(|| pool(4).install(work))).is_err());
            assert_eq!(reached.load(Relaxed), 0);
        }
    }
}
