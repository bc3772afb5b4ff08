//! Addresses at which nobody serves.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use socket2::{Domain, Socket, Type};

/// An address at which nobody listens, kept so by holding its port.
pub(crate) fn refusing() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let address = socket.local_addr().expect("bound").as_socket().expect("an address");
    (address, socket)
}

/// An address that takes no connection: its backlog is full.
pub(crate) fn swallowing() -> (SocketAddr, Swallowing) {
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
    (address.as_socket().expect("an address"), Swallowing { socket, clients })
}

/// Who holds an address that takes no connection.
pub(crate) struct Swallowing {
    socket: Socket,
    clients: Vec<Socket>,
}

impl Swallowing {
    /// Takes all connections from now on, those that wait among them. What they send is collected.
    pub(crate) fn accept(self) -> Arc<Mutex<Vec<u8>>> {
        let received = Arc::<Mutex<Vec<u8>>>::default();
        let shared = Arc::clone(&received);
        drop(self.clients);
        let listener = TcpListener::from(self.socket);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut bytes = [0; 1024];
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        shared.lock().expect("no panic").extend_from_slice(&bytes[..count]);
                    }
                });
            }
        });
        received
    }
}
