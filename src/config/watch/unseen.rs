//! Why the system reports no changes.

use std::io;

use notify::ErrorKind;

/// Why changes give no events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unseen {
    /// A folder is gone.
    Gone,
    /// The system does not report changes, for this reason.
    NoEvents(String),
}

impl From<&notify::Error> for Unseen {
    fn from(error: &notify::Error) -> Self {
        let full = Some(rustix::io::Errno::MFILE.raw_os_error());
        Self::NoEvents(match &error.kind {
            ErrorKind::PathNotFound => return Self::Gone,
            ErrorKind::Io(error) if error.kind() == io::ErrorKind::NotFound => return Self::Gone,
            ErrorKind::MaxFilesWatch => {
                "this user has no more inotify watches; raise fs.inotify.max_user_watches".into()
            }
            ErrorKind::Io(error) if error.raw_os_error() == full => {
                "this user has no more inotify instances, or this process no more descriptors; \
                 raise fs.inotify.max_user_instances"
                    .into()
            }
            _ => error.to_string(),
        })
    }
}
