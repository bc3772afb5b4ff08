//! Sockets for connections to endpoints: distinguishes a lack of resources here from errors of an
//! endpoint.
//!
//! A connection can fail because the process, or the machine, has no descriptor, memory or port
//! left. That is no fault of the endpoint, so it must not count against it. The socket is therefore
//! created before it is connected, and its number shows how many descriptors are in use: the system
//! assigns the lowest free number (POSIX, section 2.14 "File Descriptor Allocation"). So a part of
//! them can be kept free without counting.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Duration,
};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::{net::TcpSocket, time::sleep};

/// Pause before the next try to create a socket.
const PAUSE: Duration = Duration::from_millis(100);

/// Most unsent bytes in a socket. Otherwise a socket whose peer does not read takes megabytes of
/// the system's memory. Bytes in transit are not counted.
const UNSENT_BYTES: u32 = 64 << 10;

/// Limits the unsent bytes in `socket`, and in those that it accepts if it listens.
pub fn bound_unsent(socket: &impl AsFd) {
    // A failure is not worth rejecting a start or a connection.
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// Limits the unread bytes that `socket`, and each one that it accepts if it listens, receives;
/// `None` leaves the limit to the system.
pub fn bound_received(socket: &impl AsFd, bytes: Option<u32>) {
    if let Some(bytes) = bytes {
        let _ = SockRef::from(socket).set_recv_buffer_size(bytes as usize);
    }
}

/// Creates a socket for a connection to `address` if its number is below `ceiling`. Fails only if
/// this process lacks a resource.
pub fn open(address: SocketAddr, ceiling: RawFd) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    match socket.as_raw_fd() < ceiling {
        true => Ok(socket),
        false => Err(Errno::MFILE.into()),
    }
}

/// Creates a socket for a connection to `address`; waits until it is possible.
pub async fn open_patiently(address: SocketAddr) -> TcpSocket {
    loop {
        match open(address, RawFd::MAX) {
            Ok(socket) => return socket,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Whether a connection to `address` failed because this process or machine lacks a resource.
pub fn is_want(error: &io::Error, address: SocketAddr) -> bool {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => true,
        // No port is free. With IPv6 it may also mean that this machine has no address at all.
        Some(Errno::ADDRNOTAVAIL) => address.is_ipv4(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: SocketAddr =
        SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1));

    #[test]
    fn what_the_process_lacks_is_told_from_what_an_endpoint_does() {
        let v6 = "[::1]:1".parse().expect("an address");
        for (errno, address, want) in [
            (Errno::MFILE, V4, true),
            (Errno::NFILE, V4, true),
            (Errno::NOBUFS, V4, true),
            (Errno::NOMEM, v6, true),
            (Errno::ADDRNOTAVAIL, V4, true),
            (Errno::ADDRNOTAVAIL, v6, false),
            (Errno::CONNREFUSED, V4, false),
            (Errno::HOSTUNREACH, V4, false),
            (Errno::CONNRESET, V4, false),
        ] {
            assert_eq!(is_want(&errno.into(), address), want, "{errno} {address}");
        }
        assert!(!is_want(&io::ErrorKind::TimedOut.into(), V4));
    }

    #[tokio::test]
    async fn no_socket_is_made_at_or_above_the_ceiling() {
        let error = open(V4, 0).expect_err("every number is above");
        assert!(is_want(&error, V4), "{error}");
        let socket = open(V4, RawFd::MAX).expect("a socket");
        assert!(open(V4, socket.as_raw_fd()).is_err(), "lower numbers are taken");
    }
}
