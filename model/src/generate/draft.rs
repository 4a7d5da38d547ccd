//! Prompt lookup: drafts of the next ids, found where the same n-gram occurred before, and verified several in one pass.
//!
//! A draft changes only how many ids one pass computes. Each id is still drawn from its own logits, which do not depend on the
//! ids beside it, so answers are the same with and without drafts. When drafting pays depends on the text and the machine: a
//! pass over a few rows costs more than one over a single row. [`Draft::Auto`] therefore measures both and keeps an account: it
//! drafts only while what the drafts have cost so far is covered by what they have saved, or by 2 % of the time spent.

use std::collections::HashMap;
use std::time::Duration;

/// Whether and how far an answer is drafted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Draft {
    /// As far as measurements say that it pays.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always as many ids as there are to be found, up to this number.
    Fixed(usize),
}

/// What became of drafts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DraftStats {
    /// Passes that computed ids of the answer, after the prompt was read.
    pub passes: usize,
    /// Ids that these passes drew.
    pub ids: usize,
    /// Ids that were drafted.
    pub drafted: usize,
    /// Drafted ids that were drawn, too.
    pub accepted: usize,
}

/// Longest draft.
pub const MAX_DRAFT: usize = 15;

/// Length of the n-grams that are looked up.
const N: usize = 3;

/// Share of the time that drafts may cost without having saved it.
const ALLOWANCE: f64 = 0.02;

/// Proposes ids from n-grams of the conversation.
pub(crate) struct Drafter {
    draft: Draft,
    /// Prompt and answer so far.
    ids: Vec<u32>,
    /// Where the id after the last occurrence of an n-gram is.
    index: HashMap<[u32; N], usize>,
    /// Ids of `ids` whose n-grams are in the index.
    indexed: usize,
    account: Account,
    stats: DraftStats,
}

impl Drafter {
    /// A drafter for the answer to `prompt`; `None` if nothing is to be drafted.
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

    /// At most `most` ids that may follow.
    pub(crate) fn propose(&mut self, most: usize) -> &[u32] {
        // The n-gram at the very end is what is looked up, so it is not in the index yet.
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

    /// The first id of the answer was drawn from the prompt's logits.
    pub(crate) fn begin(&mut self, id: u32) {
        self.ids.push(id);
    }

    /// A pass verified `drafted` ids and drew `drawn`, in `time`.
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

/// What drafts have cost and saved, in seconds.
struct Account {
    /// Time of a pass without a draft; unknown at first.
    single: Option<f64>,
    /// How much longer a pass takes for each drafted id, as a share of `single`.
    slope: f64,
    /// Share of drafted ids that are accepted.
    acceptance: f64,
    /// Time of all passes.
    spent: f64,
    /// Time that drafts have cost more than they have saved; negative if they have saved more.
    lost: f64,
}

impl Default for Account {
    fn default() -> Self {
        Self { single: None, slope: 0.15, acceptance: 0.7, spent: 0.0, lost: 0.0 }
    }
}

impl Account {
    /// How many ids to draft: as many as promise the most ids in a time, if their loss could be afforded.
    fn affordable(&self) -> usize {
        let Some(single) = self.single else { return 0 };
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

    /// A pass with `drafted` ids, of which `accepted` were drawn, took `time`.
    fn settle(&mut self, drafted: usize, accepted: usize, time: f64) {
        let approach = |value: &mut f64, seen: f64, share: f64| *value += share * (seen - *value);
        self.spent += time;
        let Some(single) = &mut self.single else {
            self.single = (drafted == 0).then_some(time);
            return;
        };
        if drafted == 0 {
            approach(single, time, 0.2);
            // What was not worth drafting may become so.
            approach(&mut self.acceptance, 0.5, 0.01);
            return;
        }
        self.lost += time - *single * (accepted + 1) as f64;
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
    fn what_followed_an_n_gram_last_is_proposed() {
        let mut drafter = Drafter::new(Draft::Fixed(4), &[1, 2, 3, 4, 5, 1, 2, 3]).unwrap();
        assert_eq!(drafter.propose(9), [4, 5, 1, 2]);
        assert_eq!(drafter.propose(2), [4, 5]);
        assert!(drafter.propose(0).is_empty());
        drafter.verified(4, &[4, 9], Duration::ZERO);
        assert!(drafter.propose(9).is_empty());
        drafter.verified(0, &[1], Duration::ZERO);
        drafter.verified(0, &[2], Duration::ZERO);
        // The later of two occurrences.
        drafter.verified(0, &[3], Duration::ZERO);
        assert_eq!(drafter.propose(9), [4, 9, 1, 2]);
        let stats = DraftStats { passes: 4, ids: 5, drafted: 4, accepted: 1 };
        assert_eq!(drafter.stats(), stats);
        assert!(Drafter::new(Draft::Off, &[1]).is_none());
        assert!(Drafter::new(Draft::Fixed(4), &[]).unwrap().propose(4).is_empty());
    }

    /// Runs `passes` passes in which every drafted id has a chance of `accepted` in 100, and drafts cost `slope` of a pass
    /// each; returns the time and what it would have been without drafts.
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
    fn wrong_drafts_cost_no_more_than_the_allowance() {
        for slope in [0.05, 0.3, 1.0] {
            for accepted in [0, 5, 20] {
                let (time, plain) = run(1000, accepted, slope);
                // The last draft may be more expensive than was known.
                assert!(
                    time <= plain * (1.0 + ALLOWANCE) + 0.1,
                    "{accepted} {slope}: {time} {plain}"
                );
            }
        }
    }

    #[test]
    fn right_drafts_pay() {
        let (time, plain) = run(300, 95, 0.15);
        assert!(plain / time > 1.8, "{}", plain / time);
    }
}
