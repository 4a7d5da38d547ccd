//! Prompt-lookup decoding: the ids that followed the last occurrence of the current n-gram are a draft of the next ids, and one
//! pass verifies the whole draft.
//!
//! Each id is still sampled from its own logits, whose bits do not depend on the other rows of the pass. So the answer is the same
//! with and without drafts. Whether a draft saves time depends on the text and the machine, because a pass over several rows takes
//! longer than one over a single row. [`Draft::Auto`] measures both. It drafts only while the net loss of all drafts so far is at
//! most 2 % of the total time.

use crate::limits::run::MAX_DRAFT;
use std::collections::HashMap;
use std::time::Duration;

/// The length of drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Draft {
    /// Chosen from measured times and acceptance rates.
    #[default]
    Auto,
    /// No drafts.
    Off,
    /// Always as many ids as the lookup finds, up to this number.
    Fixed(usize),
}

/// Statistics of drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DraftStats {
    /// Decode passes, without the prefill.
    pub passes: usize,
    /// Ids that these passes sampled.
    pub ids: usize,
    /// Ids that were drafted.
    pub drafted: usize,
    /// Drafted ids that were accepted.
    pub accepted: usize,
}

/// Length of the n-grams that are looked up.
const N: usize = 3;

/// Largest net loss of drafts, as a fraction of the total time.
const ALLOWANCE: f64 = 0.02;

/// Passes without a draft before the first draft.
const WARM_UP: usize = 3;

/// Share of the time that drafts may lose at once after they have saved more.
const MOST_CREDIT: f64 = 0.25;

/// Proposes drafts from the n-grams of prompt and answer.
pub(crate) struct Drafter {
    draft: Draft,
    /// Prompt and answer so far.
    ids: Vec<u32>,
    /// n-gram → index of the id after its last occurrence.
    index: HashMap<[u32; N], usize>,
    /// The n-grams that end before this position are in the index.
    indexed: usize,
    account: Account,
    stats: DraftStats,
}

impl Drafter {
    /// A drafter for the answer to `prompt`; `None` if drafts are off.
    pub(crate) fn new(draft: Draft, prompt: &[u32]) -> Option<Self> {
        if matches!(draft, Draft::Off | Draft::Fixed(0)) {
            return None;
        }
        let (index, account, stats) = Default::default();
        Some(Self { draft, ids: prompt.to_vec(), index, indexed: N, account, stats })
    }

    pub(crate) fn stats(&self) -> DraftStats {
        self.stats
    }

    /// A draft of at most `most` ids.
    pub(crate) fn propose(&mut self, most: usize) -> &[u32] {
        // The n-gram at the end is the key of the lookup, so it is not in the index yet.
        for end in self.indexed..self.ids.len() {
            if let Ok(gram) = self.ids[end - N..end].try_into() {
                self.index.insert(gram, end);
            }
        }
        self.indexed = self.indexed.max(self.ids.len());
        let most = match self.draft {
            Draft::Fixed(n) => most.min(n),
            _ => most.min(self.account.affordable()),
        }
        .min(MAX_DRAFT);
        let gram = self.ids.last_chunk::<N>();
        let Some(&start) = gram.and_then(|gram| self.index.get(gram)) else { return &[] };
        &self.ids[start..(start + most).min(self.ids.len())]
    }

    /// Appends the first id of the answer, which was sampled from the logits of the prompt.
    pub(crate) fn begin(&mut self, id: u32) {
        self.ids.push(id);
    }

    /// Records a pass that verified `drafted` ids and sampled `drawn` in `time`.
    pub(crate) fn verified(&mut self, drafted: usize, drawn: &[u32], time: Duration) {
        self.ids.extend_from_slice(drawn);
        let accepted = drawn.len().saturating_sub(1);
        self.account.settle(drafted, accepted, time.as_secs_f64());
        self.stats.passes += 1;
        self.stats.ids += drawn.len();
        self.stats.drafted += drafted;
        self.stats.accepted += accepted;
    }
}

/// Cost model of drafts; times are in seconds.
struct Account {
    /// Time of a pass without a draft, once it was measured.
    single: Option<f64>,
    /// Passes without a draft.
    samples: usize,
    /// Additional time per drafted id, as a fraction of `single`.
    slope: f64,
    /// Acceptance rate of a drafted id.
    acceptance: f64,
    /// Total time of all passes.
    spent: f64,
    /// Net time lost by drafts; negative if they have saved time.
    lost: f64,
}

impl Default for Account {
    fn default() -> Self {
        Self { single: None, samples: 0, slope: 0.15, acceptance: 0.7, spent: 0.0, lost: 0.0 }
    }
}

impl Account {
    /// The draft length with the most expected ids per time whose worst case stays within the allowance.
    fn affordable(&self) -> usize {
        let Some(single) = self.single else { return 0 };
        if self.samples < WARM_UP {
            return 0;
        }
        let allowed = ALLOWANCE * self.spent - self.lost;
        let (mut best, mut best_rate) = (0, 1.0);
        let (mut expected, mut chance) = (1.0, 1.0);
        for n in 1..=MAX_DRAFT {
            chance *= self.acceptance;
            expected += chance;
            let extra = self.slope * n as f64;
            let rate = expected / (1.0 + extra);
            if single * extra <= allowed && rate > best_rate {
                (best, best_rate) = (n, rate);
            }
        }
        best
    }

    /// Updates the model with a pass of `drafted` ids, of which `accepted` were accepted, that took `time`.
    fn settle(&mut self, drafted: usize, accepted: usize, time: f64) {
        let approach = |value: &mut f64, seen: f64, share: f64| *value += share * (seen - *value);
        self.spent += time;
        let single = self.single.get_or_insert(time);
        if drafted == 0 {
            // The first passes touch memory for the first time: the fastest of them counts.
            self.samples += 1;
            if self.samples <= WARM_UP {
                *single = single.min(time);
            } else {
                approach(single, time, 0.2);
            }
            // Without drafts, the estimate drifts back to the middle, so that drafts are tried again.
            approach(&mut self.acceptance, 0.5, 0.01);
            return;
        }
        self.lost += time - *single * (accepted + 1) as f64;
        // Time saved long ago does not pay for unlimited losses now.
        self.lost = self.lost.max(-MOST_CREDIT * self.spent);
        let extra = (time / *single - 1.0) / drafted as f64;
        approach(&mut self.slope, extra.clamp(0.0, 1.0), 0.2);
        let tried = (accepted + 1).min(drafted);
        approach(&mut self.acceptance, accepted as f64 / tried as f64, 0.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposes_ids_after_the_last_occurrence() {
        let mut drafter = Drafter::new(Draft::Fixed(4), &[1, 2, 3, 4, 5, 1, 2, 3]).unwrap();
        assert_eq!(drafter.propose(9), [4, 5, 1, 2]);
        assert_eq!(drafter.propose(2), [4, 5]);
        assert!(drafter.propose(0).is_empty());
        drafter.verified(4, &[4, 9], Duration::ZERO);
        assert!(drafter.propose(9).is_empty());
        drafter.verified(0, &[1], Duration::ZERO);
        drafter.verified(0, &[2], Duration::ZERO);
        // The last of two occurrences is used.
        drafter.verified(0, &[3], Duration::ZERO);
        assert_eq!(drafter.propose(9), [4, 9, 1, 2]);
        let stats = DraftStats { passes: 4, ids: 5, drafted: 4, accepted: 1 };
        assert_eq!(drafter.stats(), stats);
        assert!(Drafter::new(Draft::Off, &[1]).is_none());
        assert!(Drafter::new(Draft::Fixed(4), &[]).unwrap().propose(4).is_empty());
    }

    /// Simulates `passes` passes with an acceptance rate of `accepted` percent, in which every drafted id costs `slope` of a pass.
    /// Returns the time, and the time without drafts.
    fn run(passes: usize, accepted: u64, slope: f64) -> (f64, f64) {
        let (mut account, mut time, mut ids, mut state) = (Account::default(), 0.0, 0, 1u64);
        let mut chance = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % 100 < accepted
        };
        for _ in 0..passes {
            let drafted = account.affordable();
            let right = (0..drafted).take_while(|_| chance()).count();
            let took = 0.1 * (1.0 + slope * drafted as f64);
            account.settle(drafted, right, took);
            (time, ids) = (time + took, ids + right + 1);
        }
        (time, 0.1 * ids as f64)
    }

    #[test]
    fn rejected_drafts_cost_at_most_the_allowance() {
        for slope in [0.05, 0.3, 1.0] {
            for accepted in [0, 5, 20] {
                let (time, plain) = run(1000, accepted, slope);
                // The last draft may cost more than estimated.
                assert!(
                    time <= plain * (1.0 + ALLOWANCE) + 0.1,
                    "{accepted} {slope}: {time} {plain}"
                );
            }
        }
    }

    #[test]
    fn a_slow_first_pass_gives_no_credit() {
        let mut account = Account::default();
        for time in [0.3, 0.1, 0.1] {
            assert_eq!(account.affordable(), 0);
            account.settle(0, 0, time);
        }
        assert_eq!(account.single, Some(0.1));
        for _ in 0..100 {
            account.settle(15, 15, 0.2);
        }
        assert!(account.lost >= -MOST_CREDIT * account.spent);
    }

    #[test]
    fn accepted_drafts_save_time() {
        let (time, plain) = run(300, 95, 0.15);
        assert!(plain / time > 1.8, "{}", plain / time);
    }
}
