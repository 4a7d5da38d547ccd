//! How many connections each address has. One that other machines can reach must not be taken up by one of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Connections by address.
#[derive(Clone)]
pub struct Addresses {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// Most connections of an address.
    most: usize,
}

/// A connection of an address. To drop it frees its place.
pub struct Place {
    addresses: Addresses,
    /// `None` for an address without a limit.
    address: Option<IpAddr>,
}

impl Addresses {
    pub fn new(most: usize) -> Self {
        Self { open: Arc::default(), most }
    }

    /// A place for one more connection of an address, if it may have one. Programs of this machine, and a proxy on it, have no limit.
    pub fn place(&self, address: IpAddr) -> Option<Place> {
        let addresses = self.clone();
        if address.to_canonical().is_loopback() {
            return Some(Place { addresses, address: None });
        }
        let address = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { addresses, address: Some(address) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = self.addresses.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

/// What counts as one client: an address, or with IPv6 the network of 64 bits, of which a client can use every address.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(addresses: &Addresses, texts: &[&str]) -> Vec<Option<Place>> {
        texts.iter().map(|text| addresses.place(text.parse().unwrap())).collect()
    }

    #[test]
    fn an_address_has_its_share() {
        let addresses = Addresses::new(2);
        let mut places = places(&addresses, &["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1"]);
        assert!(places[1].is_some() && places[2].is_none());
        assert!(addresses.place("192.0.2.2".parse().unwrap()).is_some());
        places.truncate(1);
        assert!(addresses.place("192.0.2.1".parse().unwrap()).is_some());
        drop(places);
        assert!(addresses.open.lock().unwrap().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_this_machine_has_no_limit() {
        let addresses = Addresses::new(1);
        let own = places(&addresses, &["127.0.0.1", "127.0.0.1", "::1", "::1"]);
        assert!(own.iter().all(Option::is_some));
        let of_network = places(&addresses, &["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]);
        let is_some: Vec<_> = of_network.iter().map(Option::is_some).collect();
        assert_eq!(is_some, [true, false, true]);
    }
}
