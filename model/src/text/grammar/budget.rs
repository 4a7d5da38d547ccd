//! The time that the answers to one request may take in all. The limit for one token does not bound it: each token of each answer may
//! take nearly as long, and a pass waits for those of all its answers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Longest times of the work for grammars.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits {
    /// For one token.
    pub(super) token: Duration,
    /// For all answers to a request together.
    pub(super) answers: Duration,
    /// Added to `answers` for each of their tokens.
    pub(super) more: Duration,
}

/// What is left of the time for the answers to one request.
#[derive(Debug)]
pub(super) struct Budget {
    limits: TimeLimits,
    /// In microseconds.
    spent: AtomicU64,
    tokens: AtomicU64,
}

impl Budget {
    pub(super) fn new(limits: TimeLimits) -> Self {
        Self { limits, spent: AtomicU64::new(0), tokens: AtomicU64::new(0) }
    }

    pub(super) fn limits(&self) -> TimeLimits {
        self.limits
    }

    /// Whether nothing is left.
    pub(super) fn is_spent(&self) -> bool {
        let TimeLimits { answers, more, .. } = self.limits;
        let earned = micros(more).saturating_mul(self.tokens.load(Relaxed));
        self.spent.load(Relaxed) > micros(answers).saturating_add(earned)
    }

    /// Counts the time of work.
    pub(super) fn spend(&self, time: Duration) {
        self.spent.fetch_add(micros(time), Relaxed);
    }

    /// Counts a token, which an answer has taken.
    pub(super) fn add_token(&self) {
        self.tokens.fetch_add(1, Relaxed);
    }
}

/// The largest number if the time is longer.
fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_adds_time() {
        let [token, answers, more] = [3000, 50, 10].map(Duration::from_millis);
        let budget = Budget::new(TimeLimits { token, answers, more });
        budget.spend(Duration::from_millis(50));
        assert!(!budget.is_spent());
        budget.spend(Duration::from_millis(15));
        assert!(budget.is_spent());
        budget.add_token();
        assert!(budget.is_spent());
        budget.add_token();
        assert!(!budget.is_spent());
    }
}
