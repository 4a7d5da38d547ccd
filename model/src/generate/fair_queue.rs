//! A queue that is fair between clients.
//!
//! Anyone can give another name of a user with each request, but hardly another address. So there are two levels: addresses take turns, and
//! within an address its users do.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

/// Who sends a submission: a user at an address. All addresses have equal shares, and so have the users of one address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client {
    /// Names the address.
    pub address: u64,
    /// Names the user among those of the address.
    pub user: u64,
}

/// How many things clients have, for example answers that are computed.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    addresses: HashMap<u64, usize>,
    clients: HashMap<Client, usize>,
}

impl Shares {
    /// Number of a client.
    pub fn of(&self, client: Client) -> usize {
        self.clients.get(&client).copied().unwrap_or(0)
    }

    /// Number of all clients of an address.
    pub fn of_address(&self, address: u64) -> usize {
        self.addresses.get(&address).copied().unwrap_or(0)
    }

    fn add(&mut self, client: Client, count: usize) {
        *self.addresses.entry(client.address).or_default() += count;
        *self.clients.entry(client).or_default() += count;
    }

    fn take_one(&mut self, client: Client) {
        let counts = [self.addresses.get_mut(&client.address), self.clients.get_mut(&client)];
        counts.into_iter().flatten().for_each(|count| *count = count.saturating_sub(1));
    }

    /// Indices of `count` things of those `held` by these clients that give way so that `client` can have `more`; `None` if it must not have so
    /// many. First those of the addresses that have the most, then those of the users of the same
    /// address who have the most, and of one client the last. All keep at least as many as `client`, or its
    /// address, has then.
    pub fn giving(
        &self,
        client: Client,
        more: usize,
        held: &[Client],
        count: usize,
    ) -> Option<Vec<usize>> {
        let of_address = self.of_address(client.address) + more;
        let of_client = self.of(client) + more;
        let mut left: Self = held.iter().copied().collect();
        let mut giving = Vec::new();
        while giving.len() < count {
            let counts = |other: Client| (left.of_address(other.address), left.of(other));
            let gives = |other: Client| match other.address == client.address {
                true => left.of(other) > of_client,
                false => left.of_address(other.address) > of_address,
            };
            let is_free = |index: &usize| !giving.contains(index);
            let gives = (0..held.len()).filter(is_free).filter(|&index| gives(held[index]));
            let is_other = |index: usize| held[index].address != client.address;
            let index = gives.max_by_key(|&index| (is_other(index), counts(held[index]), index))?;
            left.take_one(held[index]);
            giving.push(index);
        }
        Some(giving)
    }
}

impl FromIterator<Client> for Shares {
    fn from_iter<I: IntoIterator<Item = Client>>(clients: I) -> Self {
        clients.into_iter().map(|client| (client, 1)).collect()
    }
}

impl FromIterator<(Client, usize)> for Shares {
    fn from_iter<I: IntoIterator<Item = (Client, usize)>>(counts: I) -> Self {
        let mut shares = Self::default();
        counts.into_iter().for_each(|(client, count)| shares.add(client, count));
        shares
    }
}

/// Keys in the order of their last turn, the latest at the end. Only those that wait are kept.
#[derive(Debug)]
struct Turns<K>(VecDeque<K>);

impl<K: Copy + Eq + Hash> Turns<K> {
    /// The place of each key. Others had no turn.
    fn places(&self) -> HashMap<K, usize> {
        self.0.iter().copied().zip(1usize..).collect()
    }

    fn had(&mut self, key: K, waiting: &HashSet<K>) {
        self.0.retain(|other| *other != key && waiting.contains(other));
        if waiting.contains(&key) {
            self.0.push_back(key);
        }
    }
}

/// Things that wait, in the order of arrival. Of the addresses with the smallest share, the one that had a turn least recently is next, and of
/// its users as well.
#[derive(Debug)]
pub struct FairQueue<T> {
    waiting: VecDeque<(Client, T)>,
    addresses: Turns<u64>,
    clients: Turns<Client>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        let (addresses, clients) = (Turns(VecDeque::new()), Turns(VecDeque::new()));
        Self { waiting: VecDeque::new(), addresses, clients }
    }
}

impl<T> FairQueue<T> {
    /// Adds one of a client.
    pub fn push(&mut self, client: Client, item: T) {
        self.waiting.push_back((client, item));
    }

    /// Number of those that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Those that wait, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().map(|(_, item)| item)
    }

    /// Removes those for which `keeps` is false.
    pub fn retain(&mut self, keeps: impl Fn(&T) -> bool) {
        self.waiting.retain(|(_, item)| keeps(item));
    }

    /// The one at an index.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, index: usize) -> &T {
        &self.waiting[index].1
    }

    /// Index of the next of those that `may` have their turn. `shares` is what clients have already.
    pub fn next(&self, shares: &Shares, may: impl Fn(Client, &T) -> bool) -> Option<usize> {
        let (addresses, clients) = (self.addresses.places(), self.clients.places());
        let rank = |client: Client| {
            let address = client.address;
            let turn_of_address = addresses.get(&address).copied().unwrap_or(0);
            let turn = clients.get(&client).copied().unwrap_or(0);
            ((shares.of_address(address), turn_of_address), (shares.of(client), turn))
        };
        // The first of equal rank is the oldest of its client.
        let mut order: Vec<_> = (0..self.len()).collect();
        order.sort_by_cached_key(|&index| rank(self.waiting[index].0));
        order.into_iter().find(|&index| may(self.waiting[index].0, self.get(index)))
    }

    /// Takes the one at an index of [`FairQueue::next`]: its client has had a turn.
    ///
    /// # Panics
    /// If there is none.
    pub fn take(&mut self, index: usize) -> (Client, T) {
        let taken = self.waiting.remove(index).expect("an index of `next`");
        let client = taken.0;
        let waiting = || self.waiting.iter().map(|&(other, _)| other);
        self.addresses.had(client.address, &waiting().map(|other| other.address).collect());
        self.clients.had(client, &waiting().collect());
        taken
    }

    /// Removes one of those that `may` be removed so that one more of `client` can wait in its place: the last of the client who has the
    /// most. `None` if no other client has more than `client` would have then.
    pub fn give_way(&mut self, client: Client, may: impl Fn(&T) -> bool) -> Option<T> {
        let shares: Shares = self.waiting.iter().map(|&(other, _)| other).collect();
        let may = self.waiting.iter().enumerate().filter(|(_, (_, item))| may(item));
        let (indices, held): (Vec<_>, Vec<_>) =
            may.map(|(index, &(other, _))| (index, other)).unzip();
        let giving = *shares.giving(client, 1, &held, 1)?.first()?;
        self.waiting.remove(indices[giving]).map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: u64, user: u64) -> Client {
        Client { address, user }
    }

    fn queue(clients: &[(u64, u64)]) -> FairQueue<usize> {
        let mut queue = FairQueue::default();
        for (index, &(address, user)) in clients.iter().enumerate() {
            queue.push(client(address, user), index);
        }
        queue
    }

    /// The order of turns if each ends before the next.
    fn order(mut queue: FairQueue<usize>) -> Vec<usize> {
        let mut order = Vec::new();
        while let Some(next) = queue.next(&Shares::default(), |_, _| true) {
            order.push(queue.take(next).1);
        }
        order
    }

    #[test]
    fn addresses_take_turns_and_then_their_users() {
        // The first address gives another user each time.
        assert_eq!(order(queue(&[(1, 1), (1, 2), (1, 3), (2, 0), (2, 0)])), [0, 3, 1, 4, 2]);
        assert_eq!(order(queue(&[(1, 1), (1, 1), (1, 1), (1, 2), (1, 2)])), [0, 3, 1, 4, 2]);
        assert_eq!(order(queue(&[(1, 1), (1, 1), (1, 1)])), [0, 1, 2]);
    }

    #[test]
    fn the_smallest_share_is_next() {
        let queue = queue(&[(1, 7), (2, 1), (2, 2)]);
        let next = |shares: &[(u64, u64)]| {
            let shares = shares.iter().map(|&(address, user)| client(address, user)).collect();
            queue.next(&shares, |_, _| true).unwrap()
        };
        // A new user has the share of its address.
        assert_eq!(next(&[(1, 1), (1, 2), (2, 1)]), 2);
        assert_eq!(next(&[(2, 3), (2, 4), (1, 7)]), 0);
        let shares = Shares::default();
        assert_eq!(queue.next(&shares, |_, &item| item == 2), Some(2));
        assert_eq!(queue.next(&shares, |_, _| false), None);
    }

    #[test]
    fn those_who_have_more_give_way() {
        let gives_way = |waiting: &[(u64, u64)], address, user| {
            queue(waiting).give_way(client(address, user), |_| true)
        };
        let full = [(1, 1), (1, 2), (1, 3), (2, 1)];
        assert_eq!(gives_way(&full, 3, 0), Some(2));
        assert_eq!(gives_way(&full, 2, 2), Some(2));
        // Its address would have more than the other then.
        assert_eq!(gives_way(&[(1, 1), (1, 2), (2, 1), (2, 3)], 2, 2), None);
        assert_eq!(gives_way(&[(1, 1), (1, 2), (2, 1), (2, 1)], 2, 2), Some(3));
        assert_eq!(gives_way(&full, 1, 4), None);
        assert_eq!(gives_way(&[(1, 1), (1, 2), (1, 1), (1, 1)], 1, 3), Some(3));
        assert_eq!(gives_way(&[(1, 1), (1, 1)], 1, 1), None);
        assert_eq!(gives_way(&[], 1, 1), None);
        assert_eq!(queue(&full).give_way(client(3, 0), |&item| item != 2), Some(1));
    }

    #[test]
    fn several_are_taken_from_those_who_have_the_most() {
        let held: Vec<_> =
            [(1, 1), (1, 1), (1, 1), (2, 1), (2, 1)].map(|(a, u)| client(a, u)).to_vec();
        let giving = |count| Shares::default().giving(client(3, 0), 1, &held, count);
        assert_eq!(giving(0), Some(Vec::new()));
        assert_eq!(giving(3), Some(vec![2, 4, 1]));
        assert_eq!(giving(4), None);
    }
}
