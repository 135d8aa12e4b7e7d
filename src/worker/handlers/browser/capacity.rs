//! How many sessions fit into a worker's memory: that of its container (its cgroup and those around it), or of the
//! machine. Reads it once; other systems than Linux have no limit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::config::{BrowserIsolation, BrowserSettings};

/// MiB of the worker itself, and of the program's text, which all its Chromiums share.
pub(super) const BESIDE_SESSIONS_MIB: u64 = 256;

/// Returns the number of places: at most `max_pages`, and at least one. Logs if memory lowers it.
pub(super) fn places(settings: &BrowserSettings) -> usize {
    let Some(limit_mib) = memory_limit(Path::new("/")).map(|bytes| bytes >> 20) else { return settings.max_pages };
    let fitting = fitting(limit_mib, settings.max_memory_mib);
    let places = match settings.isolation {
        BrowserIsolation::Session => fitting.clamp(1, settings.max_pages),
        BrowserIsolation::Shared => settings.max_pages,
    };
    let (max_memory_mib, max_pages) = (settings.max_memory_mib, settings.max_pages);
    if fitting == 0 {
        tracing::warn!(
            limit_mib,
            max_memory_mib,
            beside_mib = BESIDE_SESSIONS_MIB,
            "memory is less than one browser may use"
        );
    } else if places < max_pages {
        tracing::info!(
            places,
            max_pages,
            limit_mib,
            max_memory_mib,
            "memory has room for fewer sessions than max_pages"
        );
    }
    places
}

fn fitting(limit_mib: u64, each_mib: u64) -> usize {
    usize::try_from(limit_mib.saturating_sub(BESIDE_SESSIONS_MIB) / each_mib.max(1)).unwrap_or(usize::MAX)
}

/// Returns the memory that this process may use, in bytes: the least of the machine's and of all limits of its cgroups.
fn memory_limit(root: &Path) -> Option<u64> {
    let machine = fs::read_to_string(root.join("proc/meminfo")).ok().and_then(|told| total(&told));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().flat_map(|line| limits(root, line)).chain(machine).min()
}

/// Returns the limits of one line of `/proc/self/cgroup`, `NUMBER:CONTROLLERS:PATH`: of the group and of all above. A
/// container may see the path that its group has outside; then the top is the container's own group.
fn limits(root: &Path, line: &str) -> Vec<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (top, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|one| one == "memory") => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let top = root.join(top);
    let group: PathBuf = top.join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|group| group.starts_with(&top));
    // "max", in version 1 a number beyond all memory, which the machine's memory is below.
    groups.filter_map(|group| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()).collect()
}

/// Returns the machine's memory in bytes, as `/proc/meminfo` states it.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root directory with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_of_all_limits_counts() {
        let machine = ("proc/meminfo", "MemTotal:       8388608 kB\nMemFree: 1 kB\n");
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        for (files, expected) in [
            (vec![machine], Some(8 << 30)),
            (vec![machine, v2], Some(8 << 30)),
            (vec![machine, v2, ("sys/fs/cgroup/a/b/memory.max", "max\n")], Some(8 << 30)),
            (vec![machine, v2, ("sys/fs/cgroup/a/memory.max", "1073741824\n")], Some(1 << 30)),
            (vec![machine, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "4096\n")], Some(4096)),
            (
                vec![
                    machine,
                    // As in a container that sees neither its group's path nor version 2's limits.
                    ("proc/self/cgroup", "4:cpu,memory:/docker/1\n1:cpuset:/\n0::/\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"),
                ],
                Some(2 << 30),
            ),
            (
                vec![
                    machine,
                    ("proc/self/cgroup", "4:memory:/\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                Some(8 << 30),
            ),
            (vec![], None),
        ] {
            let root = root(&files);
            assert_eq!(memory_limit(root.path()), expected, "{files:?}");
        }
    }

    #[test]
    fn each_session_and_the_worker_itself_fit_in() {
        let sizes = [(4_352, 1_024, 4), (4_351, 1_024, 3), (1_279, 1_024, 0), (100, 256, 0)];
        for (limit, each, places) in sizes {
            assert_eq!(fitting(limit, each), places, "{limit} {each}");
        }
    }
}
