//! Trying again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::http::Failure;
use super::stop::Stop;
use crate::limits::hub::MAX_WAIT;
use crate::messages;
use crate::units;

const TICK: Duration = Duration::from_millis(50);

/// How often something that failed is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// The first wait; each is twice the one before.
    pub first: Duration,
    /// Tries in a row that bring nothing.
    pub most: u32,
}

impl Default for Retries {
    /// Waits of 15.5 s in all.
    fn default() -> Self {
        Self { first: Duration::from_millis(500), most: 6 }
    }
}

impl Retries {
    /// Repeats `attempt` while it fails for a temporary reason. It says through its argument that it brought something: then tries
    /// are counted anew. `note` gets a line for people before each wait.
    ///
    /// # Errors
    /// The last failure, or that the program shall stop.
    pub fn run<T>(
        self,
        stop: &Stop,
        note: &dyn Fn(&str),
        mut attempt: impl FnMut(&mut bool) -> Result<T, Failure>,
    ) -> Result<T> {
        let mut tries = 0;
        loop {
            let mut has_progressed = false;
            let Failure { error, is_temporary, wait } = match attempt(&mut has_progressed) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            tries = if has_progressed { 1 } else { tries + 1 };
            if !is_temporary || tries >= self.most {
                return Err(error);
            }
            let wait = wait.unwrap_or(self.first.saturating_mul(1 << (tries - 1).min(16)));
            if wait > MAX_WAIT {
                return Err(error).context(messages::asked_to_wait(units::seconds(wait)));
            }
            note(&messages::tried_again(crate::failure::message(&error), units::seconds(wait)));
            sleep(wait, stop)?;
        }
    }
}

fn sleep(time: Duration, stop: &Stop) -> Result<()> {
    let started = Instant::now();
    loop {
        stop.check()?;
        match time.saturating_sub(started.elapsed()) {
            Duration::ZERO => return Ok(()),
            left => thread::sleep(left.min(TICK)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::anyhow;

    use super::*;

    const QUICK: Retries = Retries { first: Duration::from_millis(1), most: 3 };

    fn failing<T>(retries: Retries, failure: impl Fn(u32) -> (Failure, bool)) -> (Result<T>, u32) {
        let tries = RefCell::new(0);
        let done = retries.run(&Stop::default(), &|_| {}, |progressed| {
            *tries.borrow_mut() += 1;
            let (failure, has_progressed) = failure(*tries.borrow());
            *progressed = has_progressed;
            Err(failure)
        });
        (done, tries.into_inner())
    }

    #[test]
    fn tries_are_bounded_and_counted_anew_after_progress() {
        let cut = || Failure::temporary(anyhow!("cut"));
        assert_eq!(failing::<()>(QUICK, |_| (cut(), false)).1, 3);
        assert_eq!(failing::<()>(QUICK, |n| (cut(), n == 2 || n == 4)).1, 6);
        assert_eq!(failing::<()>(QUICK, |_| (Failure::lasting(anyhow!("no")), true)).1, 1);
    }

    #[test]
    fn a_server_may_ask_for_a_wait_but_not_for_an_hour() {
        let asks = |seconds| {
            let wait = Some(Duration::from_secs(seconds));
            Failure { error: anyhow!("busy"), is_temporary: true, wait }
        };
        assert_eq!(failing::<()>(QUICK, |_| (asks(0), false)).1, 3);
        let (done, tries) = failing::<()>(QUICK, |_| (asks(3600), false));
        assert_eq!(tries, 1);
        assert!(done.unwrap_err().to_string().contains("3600.0 s"));
    }

    #[test]
    fn a_wait_can_be_stopped() {
        let stop = Stop::default();
        stop.cancel.cancel();
        let started = Instant::now();
        let slow = Retries { first: Duration::from_secs(60), most: 3 };
        let done: Result<()> =
            slow.run(&stop, &|_| {}, |_| Err(Failure::temporary(anyhow!("cut"))));
        assert!(crate::failure::is_cancelled(&done.unwrap_err()));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
