//! A real NGINX as a backend.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{eventually, process::free_address};

/// A running NGINX; dropped, it ends.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Nginx {
    /// One worker, with the directives `http` and, of its one server, `server`.
    pub(crate) fn start(http: &str, server: &str) -> Self {
        let (folder, address) = (TempDir::new().expect("a folder"), free_address());
        let at = folder.path().display();
        let conf = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error;\n\
            events {{ worker_connections 4096; }}\n\
            http {{ access_log off; client_body_temp_path {at}/a; proxy_temp_path {at}/b;\n\
            fastcgi_temp_path {at}/c; uwsgi_temp_path {at}/d; scgi_temp_path {at}/e;\n\
            {http}\nserver {{ listen {address};\n{server}\n}} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, conf).expect("a file");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-e").arg(folder.path().join("error"));
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("this test needs nginx: install it (apt-get install nginx-light)");
        let nginx = Self { address, child, _folder: folder };
        eventually("nginx listens", || TcpStream::connect(address).is_ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
