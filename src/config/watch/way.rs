//! The symbolic links on the way to a file.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

/// The number of links that Linux follows in one path.
pub(super) const MAX_LINKS: usize = 40;

/// Every symbolic link on the way to `path`, which is absolute, and the final file.
pub(super) fn walk(path: &Path) -> BTreeSet<PathBuf> {
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut left, mut here, mut way, mut links) =
        (parts(path), PathBuf::new(), BTreeSet::new(), 0);
    while let Some(part) = left.pop() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                here.pop();
                continue;
            }
            Some(Component::CurDir) | None => continue,
            _ => here.push(&part),
        }
        if links < MAX_LINKS
            && let Ok(target) = fs::read_link(&here)
        {
            links += 1;
            way.insert(here.clone());
            here.pop();
            // An absolute target begins with the root, which replaces `here` when it is pushed.
            left.extend(parts(&target));
        }
    }
    way.insert(here);
    way
}
