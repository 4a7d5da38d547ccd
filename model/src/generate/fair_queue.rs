//! The submissions that wait, fair between clients.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Submission, Ticket};

/// Submissions in the order of arrival. Of the clients with the fewest answers, the one that was served least recently is
/// next.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<(Ticket, Submission)>,
    /// Clients in the order in which they were served, the last one at the end. Only those that wait are kept.
    served: VecDeque<u64>,
}

impl Queue {
    pub(super) fn push(&mut self, ticket: Ticket, submission: Submission) {
        self.waiting.push_back((ticket, submission));
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        self.waiting.retain(|(other, _)| *other != ticket);
    }

    pub(super) fn get(&self, index: usize) -> &Submission {
        &self.waiting[index].1
    }

    /// Index of the next of the submissions that `may_begin`. `answers` are the numbers of answers that began of each client.
    pub(super) fn next(
        &self,
        answers: &HashMap<u64, usize>,
        may_begin: impl Fn(&Submission) -> bool,
    ) -> Option<usize> {
        let served: HashMap<_, _> = self.served.iter().copied().zip(1usize..).collect();
        let of = |counts: &HashMap<u64, usize>, client| counts.get(&client).copied().unwrap_or(0);
        let rank = |client| (of(answers, client), of(&served, client));
        let waiting = self.waiting.iter().enumerate();
        // The first of equal rank is the oldest of its client.
        let mut order: Vec<_> =
            waiting.map(|(index, (_, waits))| (rank(waits.client), index)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, index)| index).find(|&index| may_begin(self.get(index)))
    }

    /// Takes the submission of [`Queue::next`].
    pub(super) fn remove_at(&mut self, index: usize) -> (Ticket, Submission) {
        let taken = self.waiting.remove(index).expect("an index of `next`");
        let waiting: HashSet<_> = self.waiting.iter().map(|(_, other)| other.client).collect();
        let client = taken.1.client;
        self.served.retain(|other| *other != client && waiting.contains(other));
        if waiting.contains(&client) {
            self.served.push_back(client);
        }
        taken
    }
}
