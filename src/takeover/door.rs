//! The Unix socket at which a new process connects to take over, for service managers that start
//! the new process themselves.
//!
//! It is created under another name and renamed, for two reasons: nobody can connect before its
//! mode is 0600, and the next process replaces it atomically, without a moment at which there is no
//! socket.

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
    /// Its temporary path; `None` once it is opened.
    beside: Option<PathBuf>,
    /// Device and inode, which distinguish it from another process's socket.
    identity: (u64, u64),
}

impl TakeoverSocket {
    /// Creates the socket for `path`; it is not visible there before [`TakeoverSocket::open`].
    pub fn make(path: &Path) -> io::Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // May be left over from a process with the same pid.
        let _ = fs::remove_file(&beside);
        let socket = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, Permissions::from_mode(0o600))?;
        let metadata = fs::metadata(&beside)?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { socket, path: path.to_owned(), beside: Some(beside), identity })
    }

    /// Renames the socket to its path, replacing any other one.
    pub fn open(&mut self) -> io::Result<()> {
        if let Some(beside) = &self.beside {
            fs::rename(beside, &self.path)?;
            self.beside = None;
        }
        Ok(())
    }

    /// Another handle of the socket, to accept connections.
    pub fn socket(&self) -> io::Result<UnixListener> {
        let socket = self.socket.try_clone()?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// Leaves the path to the process that has taken over.
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
                // A failure does no harm: the next socket is renamed over it.
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
