//! Sockets towards endpoints: what this process lacks is told from what an endpoint does.
//!
//! A connection can fail because the process, or the machine, has no descriptor, memory or port left. That
//! says nothing of the endpoint, so it must not count against it. A socket is therefore made before its
//! endpoint is asked, and its number shows how many descriptors are in use: the system gives out the lowest
//! number that is free (POSIX, section 2.14 "File Descriptor Allocation"). So a part of them can be kept
//! free without any count.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Duration,
};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::{net::TcpSocket, time::sleep};

/// Pause before a socket is asked for again where there was none.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes that wait unsent in a socket before it takes no more. Else one whose other side does not read
/// takes megabytes of the system's memory. What is on its way to the other side is not counted.
const UNSENT_BYTES: u32 = 64 << 10;

/// Bounds what waits unsent in `socket`, and in those that it accepts if it listens.
pub fn bound_unsent(socket: &impl AsFd) {
    // Fails on no system that is worth refusing a start or a connection for.
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// Bounds what `socket`, and each that it accepts if it listens, takes ahead of whom it is for, to so many
/// bytes; `None` leaves that to the system.
pub fn bound_received(socket: &impl AsFd, bytes: Option<u32>) {
    if let Some(bytes) = bytes {
        let _ = SockRef::from(socket).set_recv_buffer_size(bytes as usize);
    }
}

/// A socket for a connection to `address`, if its number is below `ceiling`. Fails only for want of a
/// resource of this process.
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

/// A socket for a connection to `address`, as soon as there is one.
pub async fn open_patiently(address: SocketAddr) -> TcpSocket {
    loop {
        match open(address, RawFd::MAX) {
            Ok(socket) => return socket,
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Whether a connection to `address` failed for want of a resource of this process or machine.
pub fn is_want(error: &io::Error, address: SocketAddr) -> bool {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => true,
        // No port is free. Of IPv6 it may also mean that this machine has no address at all.
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
