//! Listening sockets that a process inherits instead of binding them.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Inherited listening sockets that are not claimed yet.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    /// With their addresses as configured in the process that they come from.
    sockets: Vec<(SocketAddr, TcpListener)>,
}

impl InheritedSockets {
    /// Sockets that systemd opened for this process (`LISTEN_FDS`), by socket activation. Must be
    /// called before threads are started, since it removes environment variables.
    ///
    /// Taking a descriptor by its number is `unsafe`; the `listenfd` crate checks that it is a TCP
    /// socket, marks it close-on-exec and owns it.
    pub fn from_systemd() -> std::io::Result<Self> {
        let mut given = ListenFd::from_env();
        let mut found = Self::default();
        for place in 0..given.len() {
            if let Some(socket) = given.take_tcp_listener(place)? {
                found.add(socket.local_addr()?, socket);
            }
        }
        Ok(found)
    }

    /// Adds `socket`, whose configured address is `asked`.
    pub fn add(&mut self, asked: SocketAddr, socket: TcpListener) {
        self.sockets.push((asked, socket));
    }

    /// Takes the socket for `address`: one that is configured with it, otherwise one that is bound
    /// to it.
    pub fn claim(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let asked = self.sockets.iter().position(|(asked, _)| *asked == address);
        let bound = |(_, socket): &(_, TcpListener)| {
            socket.local_addr().is_ok_and(|bound| bound == address)
        };
        let place = asked.or_else(|| self.sockets.iter().position(bound))?;
        Some(self.sockets.remove(place).1)
    }

    /// Addresses of the sockets that are not claimed.
    pub fn unclaimed(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.sockets.iter().map(|(asked, socket)| socket.local_addr().unwrap_or(*asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_what_was_asked_and_by_what_is_bound() {
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let sockets = [0, 1, 2].map(|_| TcpListener::bind(any).expect("a free port"));
        let bound = sockets.each_ref().map(|s| s.local_addr().expect("bound"));
        let mut found = InheritedSockets::default();
        let [first, second, third] = sockets;
        found.add(any, first);
        found.add(any, second);
        found.add(bound[2], third);
        let mut claim = |address| found.claim(address).map(|s| s.local_addr().expect("bound"));
        assert_eq!(claim(bound[1]), Some(bound[1]));
        assert_eq!((claim(any), claim(any)), (Some(bound[0]), None));
        assert_eq!(claim(bound[0]), None);
        assert_eq!(found.unclaimed().collect::<Vec<_>>(), [bound[2]]);
    }
}
