//! Processes of this machine, found by a variable of their environment, which all that they start inherits.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Signals a process; it may be gone already.
pub(crate) fn kill(id: u32, signal: Signal) {
    if let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(id, signal);
    }
}

/// The value of a variable that a process was started with; empty if it has none. A zombie has no environment.
pub(crate) fn variable_of(process: u32, name: &str) -> String {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let value = variables.find_map(|one| one.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    value.unwrap_or_default()
}

/// The processes that were started with this variable, by id, with their command lines.
pub(crate) fn with_variable(name: &str, value: &str) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = ids.filter(|id| variable_of(*id, name) == value).map(|id| {
        let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        (id, String::from_utf8_lossy(&command).replace('\0', " "))
    });
    found.collect()
}
