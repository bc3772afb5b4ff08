//! Limits on connections and requests of one client address, so that it cannot use up all of them.
//!
//! A connection looks its client up once, when it begins, and then holds the client's request counter (a
//! [`ConnectionSlot`]). Its requests are counted there without a lock, on a cache line that only connections of
//! this client write. Behind a trusted proxy every request has a client of its own, so each request looks its
//! client up: it locks that client's shard of the map when it begins and when it ends, and allocates if nothing
//! else of the client is open.
//!
//! An address without connections and requests has no entry, so `limits.connections` and `limits.requests`
//! bound the memory. An IPv6 client is counted by its /64, the smallest network that providers assign: its
//! owner has 2^64 addresses.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use dashmap::{DashMap, Entry};

/// Open connections and requests of each client address. Clones share their counts.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientLimits(Arc<DashMap<IpAddr, ClientEntry>>);

/// Open connections and requests of one client address.
#[derive(Debug, Default)]
struct ClientEntry {
    connections: u32,
    requests: Arc<Requests>,
}

/// Requests in flight of one client, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Requests(AtomicU32);

/// A connection's slot among those of its address; it is released on drop.
#[derive(Debug)]
pub struct ConnectionSlot {
    client_limits: ClientLimits,
    whose: IpAddr,
    requests: Arc<Requests>,
}

impl ClientLimits {
    /// Reserves a connection slot for `client`; `None` if the client holds `limit` (at least 1) already.
    pub(super) fn enter(&self, client: IpAddr, limit: u32) -> Option<ConnectionSlot> {
        let whose = subscriber(client);
        let mut entry = self.0.entry(whose).or_default();
        if entry.connections >= limit {
            return None;
        }
        entry.connections += 1;
        let requests = Arc::clone(&entry.requests);
        drop(entry);
        Some(ConnectionSlot { client_limits: self.clone(), whose, requests })
    }

    /// Counts a request of `client`, which has no slot; false if `limit` (at least 1) are in flight already.
    /// Release it by [`ClientLimits::end`].
    #[must_use]
    pub(super) fn begin(&self, client: IpAddr, limit: u32) -> bool {
        let whose = subscriber(client);
        self.0.entry(whose).or_default().requests.begin(limit)
    }

    /// Releases a request that [`ClientLimits::begin`] counted.
    pub(super) fn end(&self, client: IpAddr) {
        self.leave(subscriber(client), |entry| entry.requests.end());
    }

    /// Applies `take_back` to the client's entry, and removes the entry if nothing is left.
    ///
    /// Only connections with a slot count requests without the lock, so without connections the count cannot
    /// change here.
    fn leave(&self, whose: IpAddr, take_back: impl FnOnce(&mut ClientEntry)) {
        if let Entry::Occupied(mut entry) = self.0.entry(whose) {
            take_back(entry.get_mut());
            if entry.get().connections == 0 && entry.get().requests.0.load(Relaxed) == 0 {
                entry.remove();
            }
        }
    }
}

impl ConnectionSlot {
    /// Counts a request of this client; false if `limit` are in flight already. Release it by
    /// [`ConnectionSlot::end`].
    #[must_use]
    pub(super) fn begin(&self, limit: u32) -> bool {
        self.requests.begin(limit)
    }

    /// Releases a request that [`ConnectionSlot::begin`] counted.
    pub(super) fn end(&self) {
        self.requests.end();
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.client_limits.leave(self.whose, |entry| entry.connections -= 1);
    }
}

impl Requests {
    fn begin(&self, limit: u32) -> bool {
        let fits = self.0.fetch_add(1, Relaxed) < limit;
        if !fits {
            self.end();
        }
        fits
    }

    fn end(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The unit of counting for an address: itself, or its /64.
pub(super) fn subscriber(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ClientLimits {
        fn is_empty(&self) -> bool {
            self.0.is_empty()
        }
    }

    #[test]
    fn each_address_has_its_own_seats_and_leaves_nothing_behind() {
        let client_limits = ClientLimits::default();
        let (one, other): (IpAddr, IpAddr) = ([192, 0, 2, 7].into(), [192, 0, 2, 8].into());
        let mut seats: Vec<_> = (0..3).filter_map(|_| client_limits.enter(one, 2)).collect();
        assert_eq!(seats.len(), 2);
        assert!(client_limits.enter(other, 2).is_some());
        seats.pop();
        seats.extend(client_limits.enter(one, 2));
        assert_eq!(seats.len(), 2);
        // A lowered limit admits no further connection, and closes none.
        assert!(client_limits.enter(one, 1).is_none());
        drop(seats);
        assert!(client_limits.is_empty());
    }

    #[test]
    fn requests_of_an_address_are_counted_together_however_they_come() {
        let client_limits = ClientLimits::default();
        let (one, other): (IpAddr, IpAddr) = ([192, 0, 2, 7].into(), [192, 0, 2, 8].into());
        let seats: Vec<_> = (0..2).filter_map(|_| client_limits.enter(one, 2)).collect();
        assert!(seats[0].begin(3) && seats[1].begin(3) && client_limits.begin(one, 3));
        assert!(!seats[0].begin(3) && !seats[1].begin(3) && !client_limits.begin(one, 3));
        assert!(client_limits.begin(other, 3));
        client_limits.end(other);
        seats[1].end();
        assert!(seats[0].begin(3) && !client_limits.begin(one, 3));
        seats[0].end();
        seats[0].end();
        // Forwarded requests may outlive the client's own connections, and vice versa.
        drop(seats);
        assert!(!client_limits.is_empty() && !client_limits.begin(one, 1));
        let slot = client_limits.enter(one, 1).expect("a seat");
        client_limits.end(one);
        assert!(!client_limits.is_empty() && slot.begin(1) && !client_limits.begin(one, 1));
        slot.end();
        drop(slot);
        assert!(client_limits.is_empty());
    }

    #[test]
    fn an_ipv6_client_is_counted_by_its_network() {
        let client_limits = ClientLimits::default();
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let _seat = client_limits.enter(address("2001:db8:0:1::1"), 1).expect("a seat");
        assert!(client_limits.enter(address("2001:db8:0:1:ffff::2"), 1).is_none());
        assert!(client_limits.enter(address("2001:db8:0:2::1"), 1).is_some());
        assert!(client_limits.begin(address("2001:db8:0:1::3"), 1));
        assert!(!client_limits.begin(address("2001:db8:0:1:ffff::4"), 1));
    }
}
