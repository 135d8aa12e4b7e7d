//! Measures the memory that processes and their descendants hold. Reads `/proc`; unknown on other systems.
//!
//! Counts what can't be given back: anonymous and shared memory. The program's text is left out: all Chromiums of a
//! machine share it, and the kernel drops it when memory is short.

use std::{
    collections::HashMap,
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Age up to which a reading of `/proc` serves further measurements: each Chromium of a worker is measured once a
/// second.
const MAX_AGE: Duration = Duration::from_millis(500);

/// Memory of one process, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    private: u64,
    shared: u64,
}

/// Measures the Chromiums of one worker, with one reading of `/proc` for all.
#[derive(Debug, Default)]
pub(super) struct MemoryMeter(Mutex<Option<(Instant, HashMap<u32, Process>)>>);

impl MemoryMeter {
    /// Returns the bytes that `root` and all its descendants hold: the sum of their private memory, plus the largest
    /// shared part. `None` if `root` was not there at the last reading, or there is no `/proc`.
    pub(super) fn of_tree(&self, root: u32) -> Option<u64> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let processes = match last.take() {
            Some((at, processes)) if at.elapsed() < MAX_AGE => &last.insert((at, processes)).1,
            _ => &last.insert((Instant::now(), processes()?)).1,
        };
        of_tree(root, processes)
    }
}

fn of_tree(root: u32, processes: &HashMap<u32, Process>) -> Option<u64> {
    processes.get(&root)?;
    let tree = processes.iter().filter(|(id, _)| descends(**id, root, processes));
    let (private, shared) =
        tree.fold((0, 0), |(private, shared), (_, process)| (private + process.private, shared.max(process.shared)));
    Some((private + shared) << 10)
}

fn descends(id: u32, root: u32, processes: &HashMap<u32, Process>) -> bool {
    let mut at = id;
    // Process ids can be reused between two reads; the bound ends a circle.
    for _ in 0..processes.len() {
        match processes.get(&at) {
            _ if at == root => return true,
            Some(process) => at = process.parent,
            None => return false,
        }
    }
    false
}

/// Returns all processes of the machine.
fn processes() -> Option<HashMap<u32, Process>> {
    let ids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Some(
        ids.filter_map(|id: u32| Some((id, parse(&fs::read_to_string(format!("/proc/{id}/status")).ok()?)?))).collect(),
    )
}

/// Parses `/proc/PID/status`. A process that has ended and is not reaped holds nothing.
fn parse(status: &str) -> Option<Process> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let parent = u32::try_from(field("PPid")?).ok()?;
    Some(Process {
        parent,
        private: field("RssAnon").unwrap_or_default(),
        shared: field("RssShmem").unwrap_or_default(),
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_counts_and_a_stranger_does_not() {
        let me = std::process::id();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let all = processes().unwrap();
        assert!(descends(child.id(), me, &all) && !descends(me, child.id(), &all));
        assert!(of_tree(me, &all).unwrap() > of_tree(child.id(), &all).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        let meter = MemoryMeter::default();
        assert!(meter.of_tree(me).is_some_and(|bytes| bytes > 0) && meter.of_tree(u32::MAX).is_none());
    }

    #[test]
    fn private_memory_is_added_up_and_shared_memory_counts_once() {
        let status = |parent: u32, anon: u64, file: u64, shared: u64| {
            parse(&format!(
                "Name:\tPPid: 7\nPPid:\t{parent}\nRssAnon:\t  {anon} kB\nRssFile:\t {file} kB\nRssShmem:\t {shared} kB\n"
            ))
        };
        let processes = [(1, status(0, 1, 1, 1)), (2, status(1, 100, 900, 30)), (3, status(2, 200, 900, 40))];
        let processes = processes.map(|(id, process)| (id, process.unwrap())).into();
        assert_eq!(of_tree(2, &processes), Some(340 << 10));
        // A zombie's status has no sizes.
        assert_eq!(parse("PPid:\t3\n"), Some(Process { parent: 3, private: 0, shared: 0 }));
    }
}
