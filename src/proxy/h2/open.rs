//! Counts the open streams of clients' connections, and finds the connection that has too many.
//!
//! For the rest of the program a request has ended once the crate has its response, but the crate
//! keeps the stream until the client has read the response: up to 37 KiB per stream, for up to
//! `limits.streams` per connection. The limits on requests in flight do not bound that. So streams
//! are followed on the wire: a stream is open from its HEADERS until both sides have ended it, or
//! one has reset it (RFC 9113 section 5.1).
//!
//! The number of open streams of a worker is limited. Above the limit, the connection with the most
//! unread responses is closed, so that no other client pays for it. A client that reads never has
//! many unread responses, however many requests it sends.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::Waker,
};

use tokio::time::Instant;

use super::sieve::{DATA, END_STREAM, HEADERS, Head, RST_STREAM};

/// A connection with at most this many unread responses is never closed for them.
const FEW: usize = 8;

/// The open streams of one connection, each with the flags "ended by the client" and "ended here".
#[derive(Debug, Default)]
pub(super) struct OpenStreams {
    streams: Vec<(u32, [bool; 2])>,
    /// Highest stream that the client has opened.
    highest: u32,
}

/// The sender of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Here,
}

impl OpenStreams {
    /// Records a frame.
    pub(super) fn note(&mut self, sender: Sender, head: Head) {
        let Head { kind, flags, stream, .. } = head;
        if sender == Sender::Client && kind == HEADERS && stream > self.highest {
            self.highest = stream;
            self.streams.push((stream, [false; 2]));
        }
        let resets = kind == RST_STREAM;
        let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if !resets && !ends {
            return;
        }
        // The search is short, since the oldest streams mostly end first.
        let Some(at) = self.streams.iter().position(|(open, _)| *open == stream) else { return };
        let ended = &mut self.streams[at].1;
        ended[sender as usize] = true;
        if resets || *ended == [true; 2] {
            self.streams.swap_remove(at);
        }
    }

    /// The number of open streams.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }
}

/// State shared by the tasks of a connection's streams, the connection's task, and the worker.
pub(super) struct ConnectionStreams {
    /// Streams that a task serves.
    pub(super) served: Cell<usize>,
    /// Streams that are open on the wire.
    open: Cell<usize>,
    pub(super) idle_since: Cell<Instant>,
    pub(super) waker: RefCell<Option<Waker>>,
    /// The connection must end, since it has too many unread responses.
    pub(super) must_go: Cell<bool>,
    /// Index in [`AllConnections`].
    place: Cell<usize>,
}

impl ConnectionStreams {
    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Streams with a complete but unread response.
    fn unread(&self) -> usize {
        self.open.get().saturating_sub(self.served.get())
    }
}

/// The clients' connections of a worker.
#[derive(Default)]
pub(in crate::proxy) struct AllConnections {
    all: RefCell<Vec<Rc<ConnectionStreams>>>,
    open: Cell<usize>,
}

impl AllConnections {
    /// Adds a connection.
    pub(super) fn join(&self, now: Instant) -> Rc<ConnectionStreams> {
        let mut all = self.all.borrow_mut();
        let streams = Rc::new(ConnectionStreams {
            served: Cell::new(0),
            open: Cell::new(0),
            idle_since: Cell::new(now),
            waker: RefCell::default(),
            must_go: Cell::new(false),
            place: Cell::new(all.len()),
        });
        all.push(Rc::clone(&streams));
        streams
    }

    /// Removes the connection of `streams`.
    pub(super) fn leave(&self, streams: &ConnectionStreams) {
        self.count(streams, 0);
        let mut all = self.all.borrow_mut();
        let place = streams.place.get();
        all.swap_remove(place);
        if let Some(moved) = all.get(place) {
            moved.place.set(place);
        }
    }

    /// Records that `open` streams of a connection are open.
    pub(super) fn count(&self, streams: &ConnectionStreams, open: usize) {
        self.open.set(self.open.get() + open - streams.open.replace(open));
    }

    /// Whether another stream may be served if at most `most` may be open. Above that, the
    /// connection with the most unread responses is closed; if no connection has many, the stream
    /// must be refused.
    pub(super) fn admit(&self, most: usize) -> bool {
        if self.open.get() <= most {
            return true;
        }
        let all = self.all.borrow();
        let unread = |streams: &Rc<ConnectionStreams>| {
            if streams.must_go.get() { 0 } else { streams.unread() }
        };
        let Some(greediest) = all.iter().max_by_key(|streams| unread(streams)) else {
            return false;
        };
        let found = unread(greediest) > FEW;
        if found {
            greediest.must_go.set(true);
            greediest.wake();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: u8, flags: u8, stream: u32) -> Head {
        Head { length: 0, kind, flags, stream }
    }

    #[test]
    fn a_stream_is_open_until_both_sides_ended_it_or_one_reset_it() {
        let mut open = OpenStreams::default();
        let mut note = |sender, kind, flags, stream| {
            open.note(sender, head(kind, flags, stream));
            open.len()
        };
        assert_eq!(note(Sender::Client, HEADERS, END_STREAM, 1), 1);
        assert_eq!(note(Sender::Client, HEADERS, 0, 3), 2);
        assert_eq!(note(Sender::Client, HEADERS, 0, 5), 3);
        assert_eq!(note(Sender::Here, HEADERS, 0, 1), 3);
        assert_eq!(note(Sender::Here, DATA, END_STREAM, 1), 2);
        assert_eq!(note(Sender::Here, HEADERS, END_STREAM, 3), 2, "the client goes on");
        assert_eq!(note(Sender::Client, HEADERS, END_STREAM, 3), 1, "with trailers");
        assert_eq!(note(Sender::Here, RST_STREAM, 0, 5), 0);
        assert_eq!(note(Sender::Client, RST_STREAM, 0, 5), 0, "twice is once");
        assert_eq!(note(Sender::Client, HEADERS, 0, 5), 0, "it was there before");
    }

    #[test]
    fn only_the_connection_with_most_unread_responses_is_closed() {
        let (connections, now) = (AllConnections::default(), Instant::now());
        let [busy, greedy, small] = [(); 3].map(|()| connections.join(now));
        connections.count(&busy, 100);
        busy.served.set(95);
        connections.count(&small, 8);
        assert!(connections.admit(108));
        assert!(!connections.admit(107), "nobody has too many");
        connections.count(&greedy, 9);
        assert!(connections.admit(117));
        assert!(!greedy.must_go.get());
        assert!(connections.admit(116));
        assert_eq!(
            [&busy, &greedy, &small].map(|streams| streams.must_go.get()),
            [false, true, false]
        );
        assert!(!connections.admit(116), "it goes once");
        connections.leave(&busy);
        assert_eq!((small.place.get(), connections.open.get()), (0, 17));
        connections.leave(&greedy);
        connections.leave(&small);
        assert_eq!((connections.all.borrow().len(), connections.open.get()), (0, 0));
    }
}
