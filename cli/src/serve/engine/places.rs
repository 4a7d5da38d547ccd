//! Places of answers that run or wait. They are bounded, and clients have fair shares of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use glm_model::{Client, Shares};

/// All places, and the requests that have some.
#[derive(Clone)]
pub struct Capacity(Arc<Mutex<State>>);

struct State {
    most: usize,
    /// In the order of arrival.
    requests: Vec<Held>,
}

/// The places that a request has.
struct Held {
    client: Client,
    places: usize,
    /// Whether none of its answers has begun.
    waits: bool,
    /// Whether its answers come one after the other in the same place.
    keeps: bool,
    request: Arc<Request>,
}

/// A request that has places, or had.
#[derive(Default)]
pub struct Request {
    gave_way: AtomicBool,
}

impl Request {
    /// Whether another client has its places, so that it is to be refused.
    pub fn gave_way(&self) -> bool {
        self.gave_way.load(Ordering::Relaxed)
    }
}

/// A place of an answer. To drop it frees it.
pub struct Place {
    capacity: Capacity,
    request: Arc<Request>,
}

/// Places of the answers of a request. They are free again once the answers have ended and nobody else holds a clone.
#[derive(Clone)]
pub struct Places {
    pub request: Arc<Request>,
    pub each: Vec<Arc<Place>>,
}

impl Capacity {
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(State { most, requests: Vec::new() })))
    }

    /// Places for this many answers; `None` if the request is to be refused. If too few are free, those who wait give way, as
    /// [`State::giving`] tells. A request that `keeps` its places needs them for answers that come one after the other. Requests of an
    /// address keep at most half of all places, because they do not give way between two answers.
    pub fn take(&self, client: Client, answers: usize, keeps: bool) -> Option<Places> {
        let mut state = self.lock();
        if keeps && state.kept(client.address) + answers > state.most.div_ceil(2) {
            return None;
        }
        let giving = state.giving(client, answers)?;
        for index in giving {
            state.requests.remove(index).request.gave_way.store(true, Ordering::Relaxed);
        }
        let request = Arc::<Request>::default();
        if answers > 0 {
            let (places, request) = (answers, Arc::clone(&request));
            state.requests.push(Held { client, places, waits: true, keeps, request });
        }
        let place = || Place { capacity: self.clone(), request: Arc::clone(&request) };
        let each = (0..answers).map(|_| Arc::new(place())).collect();
        Some(Places { request, each })
    }

    /// Number of places that are free.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.lock().free()
    }

    /// Whether all places are free.
    pub fn is_free(&self) -> bool {
        self.lock().requests.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn free(&self) -> usize {
        self.most - self.requests.iter().map(|held| held.places).sum::<usize>()
    }

    /// Number of places that requests of an address keep.
    fn kept(&self, address: u64) -> usize {
        let kept = self.requests.iter().filter(|held| held.keeps && held.client.address == address);
        kept.map(|held| held.places).sum()
    }

    /// Indices of the requests that give way for `answers` more of a client, the last first; `None` if there cannot be so many. The first
    /// to give way is the last that waits of the address that has the most places, or of the user who has the most if it is the same
    /// address. All keep at least as many as `client`, or its address, has then.
    fn giving(&self, client: Client, answers: usize) -> Option<Vec<usize>> {
        let all: Shares = self.requests.iter().map(|held| (held.client, held.places)).collect();
        let of_address = all.of_address(client.address) + answers;
        let of_client = all.of(client) + answers;
        let (mut free, mut giving) = (self.free(), Vec::new());
        while free < answers {
            let others = || {
                let all = self.requests.iter().enumerate();
                all.filter(|(index, _)| !giving.contains(index))
            };
            let left: Shares = others().map(|(_, held)| (held.client, held.places)).collect();
            let gives = |held: &Held| match held.client.address == client.address {
                true => left.of(held.client) >= of_client + held.places,
                false => left.of_address(held.client.address) >= of_address + held.places,
            };
            let order = |index: usize, other: Client| {
                let is_other = other.address != client.address;
                (is_other, left.of_address(other.address), left.of(other), index)
            };
            let waiting = others().filter(|(_, held)| held.waits && gives(held));
            let (index, held) = waiting.max_by_key(|(index, held)| order(*index, held.client))?;
            free += held.places;
            giving.push(index);
        }
        giving.sort_unstable_by(|a, b| b.cmp(a));
        Some(giving)
    }

    fn find(&self, request: &Arc<Request>) -> Option<usize> {
        self.requests.iter().position(|held| Arc::ptr_eq(&held.request, request))
    }
}

impl Place {
    /// Notes that an answer of its request has begun: that does not give way any more, unless it has.
    pub fn begin(&self) {
        let mut state = self.capacity.lock();
        if let Some(index) = state.find(&self.request) {
            state.requests[index].waits = false;
        }
    }

    /// Whether its request is to be refused.
    pub fn gave_way(&self) -> bool {
        self.request.gave_way()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.capacity.lock();
        // It has none if it gave way.
        let Some(index) = state.find(&self.request) else { return };
        let held = &mut state.requests[index];
        held.places -= 1;
        if held.places == 0 {
            state.requests.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request of a user at an address.
    fn take(capacity: &Capacity, address: u64, user: u64, answers: usize) -> Option<Places> {
        capacity.take(Client { address, user }, answers, false)
    }

    fn gave_way(requests: &[Places]) -> Vec<bool> {
        requests.iter().map(|places| places.request.gave_way()).collect()
    }

    #[test]
    fn places_are_bounded_and_free_again() {
        let capacity = Capacity::new(5);
        let mut first = take(&capacity, 1, 1, 3).unwrap();
        assert!(take(&capacity, 1, 1, 3).is_none() && take(&capacity, 2, 1, 6).is_none());
        let second = take(&capacity, 1, 2, 2).unwrap();
        assert!(capacity.free() == 0 && take(&capacity, 1, 1, 1).is_none());
        first.each.pop();
        assert_eq!(capacity.free(), 1);
        let kept = second.clone();
        drop(second);
        assert_eq!(capacity.free(), 1);
        drop((kept, first));
        assert_eq!(capacity.free(), 5);
        assert!(take(&capacity, 1, 1, 0).is_some());
    }

    #[test]
    fn the_last_that_waits_of_the_client_with_the_most_gives_way() {
        let capacity = Capacity::new(80);
        // Another user each time.
        let many: Vec<_> = (0..5).map(|user| take(&capacity, 1, user, 16).unwrap()).collect();
        many[0].each[0].begin();
        let other = take(&capacity, 2, 0, 1).unwrap();
        assert_eq!(gave_way(&many), [false, false, false, false, true]);
        assert_eq!(capacity.free(), 15);
        // Its places are those of others now.
        let mut many = many;
        drop(many.pop());
        assert_eq!(capacity.free(), 15);
        // Two give way for one that needs more.
        let large = take(&capacity, 3, 0, 32).unwrap();
        assert_eq!(gave_way(&many), [false, false, true, true]);
        assert_eq!((gave_way(&[other, large]), capacity.free()), (vec![false; 2], 15));
    }

    #[test]
    fn what_has_begun_keeps_its_places() {
        let capacity = Capacity::new(3);
        let many: Vec<_> = (0..3).map(|_| take(&capacity, 1, 1, 1).unwrap()).collect();
        many[2].each[0].begin();
        let other = take(&capacity, 2, 1, 1).unwrap();
        assert_eq!(gave_way(&many), [false, true, false]);
        // To begin is too late for it.
        many[1].each[0].begin();
        assert!(many[1].request.gave_way());
        // Both have as many as this client would have.
        drop(other);
        many[0].each[0].begin();
        let _other = take(&capacity, 2, 1, 1).unwrap();
        assert!(take(&capacity, 3, 1, 1).is_none());
    }

    #[test]
    fn nobody_gives_way_to_who_would_have_more_then() {
        let capacity = Capacity::new(4);
        let pairs: Vec<_> = (0..2).map(|_| take(&capacity, 1, 1, 2).unwrap()).collect();
        assert!(take(&capacity, 1, 1, 1).is_none());
        assert!(take(&capacity, 2, 1, 3).is_none());
        // A user of the same address has no more than the other.
        let _other = take(&capacity, 1, 2, 2).unwrap();
        assert_eq!(gave_way(&pairs), [false, true]);
        assert!(take(&capacity, 1, 3, 1).is_none());
        // Nor is anyone refused if that does not help.
        assert!(take(&capacity, 2, 1, 4).is_none());
        assert_eq!(gave_way(&pairs), [false, true]);
    }

    #[test]
    fn an_address_keeps_at_most_half_of_the_places() {
        let capacity = Capacity::new(5);
        let keep = |address, user| capacity.take(Client { address, user }, 1, true);
        let kept: Vec<_> = (0..3).map(|user| keep(1, user).unwrap()).collect();
        assert!(keep(1, 4).is_none() && take(&capacity, 1, 4, 1).is_some());
        assert!(keep(2, 1).is_some());
        drop(kept);
        assert!(keep(1, 4).is_some());
    }
}
