//! Measures the memory that a process and its descendants hold. Reads `/proc`; unknown on other systems.

use std::{collections::HashMap, fs};

/// Memory of one process, in pages.
struct Process {
    parent: u32,
    private: u64,
    shared: u64,
}

/// Returns the resident bytes of `root` and all its descendants: the sum of their private memory, plus the largest
/// shared part (program text, shared buffers). `None` if `root` is gone or there is no `/proc`.
pub(super) fn of_tree(root: u32) -> Option<u64> {
    let processes: HashMap<u32, Process> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, read(id)?)))
        .collect();
    processes.get(&root)?;
    let tree = processes.iter().filter(|(id, _)| descends(**id, root, &processes));
    let (private, shared) =
        tree.fold((0, 0), |(private, shared), (_, process)| (private + process.private, shared.max(process.shared)));
    Some((private + shared) * u64::try_from(rustix::param::page_size()).ok()?)
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

fn read(id: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    let statm = fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
    let mut pages = statm.split_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(Process { parent, private: resident.saturating_sub(shared), shared })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_child_counts_and_a_stranger_does_not() {
        let me = std::process::id();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let processes = HashMap::from([(child.id(), read(child.id()).unwrap()), (me, read(me).unwrap())]);
        assert!(descends(child.id(), me, &processes) && !descends(me, child.id(), &processes));
        assert!(of_tree(me).unwrap() > of_tree(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of_tree(u32::MAX), None);
    }
}
