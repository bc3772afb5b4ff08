//! Open connections by client address, so that one address cannot take all of them.
//!
//! Counted when a connection begins and when it ends, never per request, so the lock is taken twice in
//! the life of a connection. An address without an open connection has no entry: the memory is bounded
//! by `limits.connections`. An IPv6 client is counted by its /64, the least that a provider hands out:
//! whoever has one has 2^64 addresses.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Open connections by client address. Clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowd(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// A connection's seat among those of its address; dropped, it is free again.
#[derive(Debug)]
pub struct Seat {
    crowd: Crowd,
    whose: IpAddr,
}

impl Crowd {
    /// A seat for one more connection of `client`, unless it has `limit` already.
    pub(super) fn enter(&self, client: IpAddr, limit: u32) -> Option<Seat> {
        let whose = subscriber(client);
        let mut open = self.lock();
        let count = open.entry(whose).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Seat { crowd: self.clone(), whose })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Entry::Occupied(mut open) = self.crowd.lock().entry(self.whose) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

/// Whom an address stands for: itself, or the /64 around it.
fn subscriber(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_seats_and_leaves_nothing_behind() {
        let crowd = Crowd::default();
        let (one, other): (IpAddr, IpAddr) = ([192, 0, 2, 7].into(), [192, 0, 2, 8].into());
        let mut seats: Vec<_> = (0..3).filter_map(|_| crowd.enter(one, 2)).collect();
        assert_eq!(seats.len(), 2);
        assert!(crowd.enter(other, 2).is_some());
        seats.pop();
        seats.extend(crowd.enter(one, 2));
        assert_eq!(seats.len(), 2);
        // A limit that was lowered lets nobody in, and throws nobody out.
        assert!(crowd.enter(one, 1).is_none());
        drop(seats);
        assert!(crowd.lock().is_empty());
    }

    #[test]
    fn an_ipv6_client_is_counted_by_its_network() {
        let crowd = Crowd::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let _seat = crowd.enter(address("2001:db8:0:1::1"), 1).expect("a seat");
        assert!(crowd.enter(address("2001:db8:0:1:ffff::2"), 1).is_none());
        assert!(crowd.enter(address("2001:db8:0:2::1"), 1).is_some());
    }
}
