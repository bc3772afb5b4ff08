//! Decides which connections of the admin endpoint are closed when there are too many.
//!
//! Anybody who reaches the port can hold connections, and a probe cannot be distinguished from
//! others before its request. So no connection waits for a place: a new one is accepted, and of the
//! address with the most connections the one that has been idle for longest is closed. A probe or
//! an operator sends a request at once, and so is served before its connection is the longest idle;
//! connections with a token are closed last. Connections with a request in progress stay: the
//! numbers of requests and streams are limited elsewhere.
//!
//! Rejected: reserving places for probes. Whoever connects first would take them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// Most connections: as many as requests and streams, and as many that wait for a request.
const MOST: usize = 256;

/// Most connections of one address that wait for a request and have not sent a token.
const IDLE_PER_PEER: usize = 64;

/// Time between two warnings that places are short.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The open connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    /// Counter that numbers connections, and orders the times at which they became idle.
    clock: u64,
    callers: HashMap<u64, Caller>,
    /// Connections closed or not accepted since the last warning.
    closed: u64,
    warned: Option<Instant>,
}

#[derive(Debug)]
struct Caller {
    peer: IpAddr,
    /// Whether it sent a valid token.
    is_known: bool,
    /// Whether a request is in progress.
    is_busy: bool,
    /// Value of `clock` when it became idle.
    since: u64,
    /// Dropping it closes the connection.
    _stays: oneshot::Sender<()>,
}

/// How room is made for a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// There is room.
    Free,
    /// The connection with this number is closed.
    Of(u64),
    /// All connections have a request in progress.
    None,
}

/// The place of a connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    number: u64,
    peer: IpAddr,
}

/// A request in progress; dropping it makes the connection idle.
#[derive(Debug)]
pub(super) struct Busy(Arc<Place>);

/// See [`Place::wait`].
pub(super) struct Unknown(Arc<Place>);

impl Connections {
    /// Returns a place for a connection of `address`, and a receiver that closes when the
    /// connection must be closed. `None` if all others have a request in progress.
    pub(super) fn enter(&self, address: IpAddr) -> Option<(Arc<Place>, oneshot::Receiver<()>)> {
        let (stays, leaves) = oneshot::channel();
        let peer = peer_of(address);
        let mut open = self.open();
        let room = make_room(&open.callers, peer);
        if room != Room::Free {
            open.warn(Instant::now());
        }
        match room {
            Room::Free => {}
            Room::Of(number) => drop(open.callers.remove(&number)),
            Room::None => return None,
        }
        let number = open.tick();
        let caller = Caller { peer, is_known: false, is_busy: false, since: number, _stays: stays };
        open.callers.insert(number, caller);
        drop(open);
        Some((Arc::new(Place { connections: self.clone(), number, peer }), leaves))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // No change under this lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn warn(&mut self, now: Instant) {
        self.closed += 1;
        if self.warned.is_none_or(|warned| now.duration_since(warned) >= WARN_EVERY) {
            let (closed, open) = (self.closed, self.callers.len());
            tracing::warn!(
                closed,
                open,
                "too many connections to the admin endpoint; the idle ones are closed"
            );
            (self.closed, self.warned) = (0, Some(now));
        }
    }
}

impl Place {
    /// Records that a request is in progress, until the result is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.change(|caller, _| caller.is_busy = true);
        Busy(Arc::clone(self))
    }

    /// Records, until the result is dropped, that the request in progress waits for a body of which nobody knows yet who
    /// sends it: meanwhile its connection can be closed as one that waits for a request can.
    pub(super) fn wait(self: &Arc<Self>) -> Unknown {
        self.change(|caller, now| (caller.is_busy, caller.since) = (false, now));
        Unknown(Arc::clone(self))
    }

    /// Records that the caller sent a valid token.
    pub(super) fn know(&self) {
        self.change(|caller, _| caller.is_known = true);
    }

    /// Whether half of all places, or of those of the caller's address, are taken, and the caller
    /// has not sent a token: then its connection is closed after the response.
    pub(super) fn is_short(&self) -> bool {
        let open = self.connections.open();
        let is_known = open.callers.get(&self.number).is_some_and(|caller| caller.is_known);
        let idle = idle_strangers(&open.callers).filter(|(_, c)| c.peer == self.peer).count();
        !is_known && (open.callers.len() > MOST / 2 || idle >= IDLE_PER_PEER / 2)
    }

    fn change(&self, change: impl FnOnce(&mut Caller, u64)) {
        let mut open = self.connections.open();
        let now = open.tick();
        if let Some(caller) = open.callers.get_mut(&self.number) {
            change(caller, now);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().callers.remove(&self.number);
    }
}

impl Drop for Unknown {
    fn drop(&mut self) {
        self.0.change(|caller, _| caller.is_busy = true);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|caller, now| (caller.is_busy, caller.since) = (false, now));
    }
}

/// Decides how room is made for a new connection of `peer`.
fn make_room(callers: &HashMap<u64, Caller>, peer: IpAddr) -> Room {
    let own = || idle_strangers(callers).filter(|(_, caller)| caller.peer == peer);
    if own().count() >= IDLE_PER_PEER {
        return longest(own()).map_or(Room::None, Room::Of);
    }
    if callers.len() < MOST {
        return Room::Free;
    }
    let mut by_peer: HashMap<IpAddr, usize> = HashMap::new();
    idle_strangers(callers).for_each(|(_, c)| *by_peer.entry(c.peer).or_default() += 1);
    let most = by_peer.values().copied().max().unwrap_or(0);
    let greedy = idle_strangers(callers).filter(|(_, c)| by_peer.get(&c.peer) == Some(&most));
    let known = callers.iter().map(|(n, c)| (*n, c)).filter(|(_, c)| !c.is_busy);
    longest(greedy).or_else(|| longest(known)).map_or(Room::None, Room::Of)
}

/// The connection that has been idle for longest.
fn longest<'a>(idle: impl Iterator<Item = (u64, &'a Caller)>) -> Option<u64> {
    idle.min_by_key(|(_, caller)| caller.since).map(|(number, _)| number)
}

fn idle_strangers(callers: &HashMap<u64, Caller>) -> impl Iterator<Item = (u64, &Caller)> {
    let all = callers.iter().map(|(number, caller)| (*number, caller));
    all.filter(|(_, caller)| !caller.is_busy && !caller.is_known)
}

/// Identifies a caller: the address, or the first half of an IPv6 address.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    type Entered = (Arc<Place>, oneshot::Receiver<()>);

    fn enter(connections: &Connections, count: usize, from: IpAddr) -> Vec<Entered> {
        (0..count).map(|_| connections.enter(from).expect("a place")).collect()
    }

    fn left(entered: &mut [Entered]) -> Vec<usize> {
        let mut each = entered.iter_mut().enumerate();
        let gone = each.by_ref().filter_map(|(n, (_, leaves))| {
            // The sender was dropped.
            let is_gone = matches!(leaves.try_recv(), Err(oneshot::error::TryRecvError::Closed));
            is_gone.then_some(n)
        });
        gone.collect()
    }

    #[test]
    fn a_newcomer_is_let_in_and_whoever_was_idle_for_longest_leaves() {
        let connections = Connections::default();
        let mut all = enter(&connections, IDLE_PER_PEER, address(1));
        assert!(left(&mut all).is_empty());
        drop(all[0].0.begin());
        let _probe = enter(&connections, 1, address(1));
        assert_eq!(left(&mut all), [1], "the first was idle for a shorter time");
    }

    #[test]
    fn who_is_being_answered_or_sent_a_token_stays() {
        let connections = Connections::default();
        let mut all = enter(&connections, IDLE_PER_PEER + 2, address(1));
        assert_eq!(left(&mut all), [0, 1]);
        let _busy = all[2].0.begin();
        all[3].0.know();
        let _more = enter(&connections, 4, address(1));
        assert_eq!(
            left(&mut all),
            [0, 1, 4, 5],
            "two more places, since two are not idle strangers"
        );
    }

    #[test]
    fn the_address_that_holds_most_makes_room_for_others() {
        let connections = Connections::default();
        let mut greedy: Vec<_> =
            (1..=4).map(|n| enter(&connections, IDLE_PER_PEER - 2, address(n))).collect();
        greedy[3].extend(enter(&connections, 2, address(4)));
        let mut others = enter(&connections, 6, address(9));
        assert_eq!(left(&mut others), [0_usize; 0]);
        assert!(greedy[..3].iter_mut().all(|all| left(all).is_empty()));
        let _probe = enter(&connections, 1, address(8));
        assert_eq!(left(&mut greedy[3]), [0]);
    }

    #[test]
    fn where_all_are_being_answered_nobody_is_let_in_until_one_is_done() {
        let connections = Connections::default();
        let all: Vec<_> = (0..MOST)
            .map(|n| connections.enter(address((n / 32) as u8)).expect("a place").0)
            .map(|place| (place.begin(), place))
            .collect();
        assert!(connections.enter(address(99)).is_none());
        drop(all);
        assert!(connections.enter(address(99)).is_some());
        assert!(connections.open().callers.is_empty(), "dropped places are free");
    }

    #[test]
    fn strangers_do_not_keep_their_connections_while_places_are_short() {
        let connections = Connections::default();
        let some = enter(&connections, IDLE_PER_PEER / 2, address(1));
        assert!(some[0].0.is_short());
        some[0].0.know();
        assert!(!some[0].0.is_short());
        let other = enter(&connections, 1, address(2));
        assert!(!other[0].0.is_short());
    }

    #[test]
    fn a_caller_of_ipv6_is_known_by_the_first_half() {
        let peer = |text: &str| peer_of(text.parse().expect("an address"));
        assert_eq!(peer("2001:db8:1:2:3:4:5:6"), peer("2001:db8:1:2::1"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
    }
}
