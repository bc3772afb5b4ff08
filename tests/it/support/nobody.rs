//! Addresses at which nobody serves.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// An address at which nobody listens, kept so by holding its port.
pub(crate) fn refusing() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("bound").as_socket().expect("an address");
    (address, socket)
}

/// An address that takes no connection: its backlog is full.
pub(crate) fn swallowing() -> (SocketAddr, impl Drop) {
    struct Full(#[expect(dead_code)] Socket, #[expect(dead_code)] Vec<Socket>);
    impl Drop for Full {
        fn drop(&mut self) {}
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(0).expect("bound");
    let address = socket.local_addr().expect("bound");
    let fill = |_| {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        client.set_nonblocking(true).expect("an open socket");
        let _ = client.connect(&address);
        client
    };
    let clients = (0..8).map(fill).collect();
    (address.as_socket().expect("an address"), Full(socket, clients))
}
