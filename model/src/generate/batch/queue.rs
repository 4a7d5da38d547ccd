//! The submissions that wait, fair between clients.

use std::collections::VecDeque;

use super::{Submission, Ticket};

/// Submissions in the order of arrival. Of the clients with the fewest running answers, the one that was served least recently is
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

    /// Puts back what was taken last.
    pub(super) fn push_front(&mut self, ticket: Ticket, submission: Submission) {
        let client = submission.client;
        self.waiting.push_front((ticket, submission));
        self.served.retain(|other| *other != client);
        self.served.push_front(client);
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        self.waiting.retain(|(other, _)| *other != ticket);
    }

    /// Takes the next submission that `may_start`. `running` is the number of answers of a client that run.
    pub(super) fn take(
        &mut self,
        running: impl Fn(u64) -> usize,
        may_start: impl Fn(&Submission) -> bool,
    ) -> Option<(Ticket, Submission)> {
        let rank = |client| {
            let served = self.served.iter().position(|&other| other == client);
            (running(client), served.map_or(0, |index| index + 1))
        };
        let ready = self.waiting.iter().enumerate().filter(|(_, (_, waits))| may_start(waits));
        // The first of equal rank is the oldest of its client.
        let (index, _) = ready.min_by_key(|(_, (_, submission))| rank(submission.client))?;
        let (ticket, submission) = self.waiting.remove(index)?;
        let waits = |client: &u64| self.waiting.iter().any(|(_, other)| other.client == *client);
        self.served.retain(|client| *client != submission.client && waits(client));
        if waits(&submission.client) {
            self.served.push_back(submission.client);
        }
        Some((ticket, submission))
    }
}
