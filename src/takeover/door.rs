//! The Unix socket at which a process can be asked for its sockets, for service managers that start the
//! new process themselves.
//!
//! It is made beside its place and renamed into it, for two reasons: nobody can connect before its
//! mode is 0600, and the next process takes the place over in one step, with no moment at which nobody
//! is there.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

/// A socket in the file system.
#[derive(Debug)]
pub struct TakeoverSocket {
    socket: UnixListener,
    path: PathBuf,
    /// Where it is until it is opened; nothing afterwards.
    beside: Option<PathBuf>,
    /// Device and inode, by which it is known from another process's.
    identity: (u64, u64),
}

impl TakeoverSocket {
    /// Makes the socket for `path`; nobody finds it before [`TakeoverSocket::open`].
    pub fn make(path: &Path) -> io::Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // Left behind by a process of the same number.
        let _ = fs::remove_file(&beside);
        let socket = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
        let metadata = fs::metadata(&beside)?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { socket, path: path.to_owned(), beside: Some(beside), identity })
    }

    /// Puts the socket in its place, in front of whatever is there.
    pub fn open(&mut self) -> io::Result<()> {
        if let Some(beside) = &self.beside {
            fs::rename(beside, &self.path)?;
            self.beside = None;
        }
        Ok(())
    }

    /// Another handle of the socket, to be waited at.
    pub fn socket(&self) -> io::Result<UnixListener> {
        let socket = self.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Leaves the place to the process that has taken over.
    pub fn leave(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for TakeoverSocket {
    fn drop(&mut self) {
        let own = |path: &Path| {
            fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity)
        };
        for path in [Some(&self.path), self.beside.as_ref()].into_iter().flatten() {
            if own(path) {
                // It stays in the way of nobody: the next one is renamed over it.
                let _ = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn one_follows_another_and_the_last_removes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("takeover.sock");
        let mut first = TakeoverSocket::make(&path).expect("a socket");
        assert!(!path.exists());
        first.open().expect("renamed");
        let mode = fs::metadata(&path).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut second = TakeoverSocket::make(&path).expect("a socket");
        second.open().expect("renamed");
        drop(first);
        UnixStream::connect(&path).expect("the second listens");
        drop(second);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
