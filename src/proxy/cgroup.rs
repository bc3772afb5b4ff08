//! The memory limit of this process's control groups.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Larger numbers mean no limit: control groups version 1 has no special value for it.
const UNLIMITED: u64 = 1 << 60;

/// The limit in bytes; `None` if there is none.
pub(super) fn memory() -> Option<u64> {
    least(&|path: &Path| fs::read_to_string(path).ok())
}

/// The least limit of the process's group and its ancestors; `read` returns the content of a file.
fn least(read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|each| each == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = group.trim_start_matches('/');
        let all = Path::new(group).ancestors().map(|each| PathBuf::from(root).join(each));
        // In a container the ancestors' folders may be missing, but the root exists.
        all.filter_map(|folder| read(&folder.join(file))?.trim().parse().ok()).min()
    });
    limits.min().filter(|limit| *limit < UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_least(files: &[(&str, &str)], expected: Option<u64>) {
        let read = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(least(&read), expected, "{files:?}");
    }

    #[test]
    fn the_least_limit_on_the_way_up_holds() {
        let own = ("/proc/self/cgroup", "0::/pods/p1/c1\n");
        assert_least(&[own], None);
        assert_least(&[own, ("/sys/fs/cgroup/pods/p1/c1/memory.max", "max\n")], None);
        assert_least(
            &[
                own,
                ("/sys/fs/cgroup/pods/p1/c1/memory.max", "max\n"),
                ("/sys/fs/cgroup/pods/p1/memory.max", "268435456\n"),
                ("/sys/fs/cgroup/pods/memory.max", "1073741824\n"),
            ],
            Some(256 << 20),
        );
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_root() {
        let limit = ("/sys/fs/cgroup/memory.max", "536870912\n");
        assert_least(&[("/proc/self/cgroup", "0::/\n"), limit], Some(512 << 20));
        assert_least(&[("/proc/self/cgroup", "0::/../c1\n"), limit], Some(512 << 20));
    }

    #[test]
    fn the_first_version_is_understood() {
        let own = ("/proc/self/cgroup", "5:cpu:/a\n4:memory:/a\n0::/\n");
        let file = "/sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        assert_least(&[own, (file, "9223372036854771712\n")], None);
        assert_least(&[own, (file, "268435456\n")], Some(256 << 20));
        assert_least(&[], None);
    }
}
