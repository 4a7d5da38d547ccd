//! The submissions that wait, fair between clients.

use std::collections::VecDeque;

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

    /// Index of the next of the submissions that `may_begin`. `answers` is the number of answers of a client that began.
    pub(super) fn next(
        &self,
        answers: impl Fn(u64) -> usize,
        may_begin: impl Fn(&Submission) -> bool,
    ) -> Option<usize> {
        let rank = |client| {
            let served = self.served.iter().position(|&other| other == client);
            (answers(client), served.map_or(0, |index| index + 1))
        };
        let ready = self.waiting.iter().enumerate().filter(|(_, (_, waits))| may_begin(waits));
        // The first of equal rank is the oldest of its client.
        let next = ready.min_by_key(|(_, (_, submission))| rank(submission.client));
        next.map(|(index, _)| index)
    }

    /// Takes the submission of [`Queue::next`].
    pub(super) fn remove_at(&mut self, index: usize) -> (Ticket, Submission) {
        let taken = self.waiting.remove(index).expect("an index of `next`");
        let waits = |client: &u64| self.waiting.iter().any(|(_, other)| other.client == *client);
        let client = taken.1.client;
        self.served.retain(|other| *other != client && waits(other));
        if waits(&client) {
            self.served.push_back(client);
        }
        taken
    }
}
