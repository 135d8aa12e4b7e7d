//! Finds processes of this machine in /proc: by id, or by an environment variable, which their children inherit.

use std::{
    fs,
    ops::{Deref, DerefMut},
    process::Child,
};

use rustix::process::{Pid, Signal, kill_process};

/// Child process that never outlives its test.
pub(crate) struct KillOnDrop(pub(crate) Child);

impl Deref for KillOnDrop {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for KillOnDrop {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Signals a process, which may be gone already.
pub(crate) fn kill(id: u32, signal: Signal) {
    if let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(id, signal);
    }
}

/// Returns the value of a variable in the environment of a process; empty if it is not set. A zombie has none.
pub(crate) fn variable_of(process: u32, name: &str) -> String {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let value = variables.find_map(|one| one.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    value.unwrap_or_default()
}

/// Returns the ids of all processes.
pub(crate) fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("Linux has /proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the state (`Z` for a zombie) and the parent of a process; `None` if there is no such process.
pub(crate) fn state_and_parent(process: i32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The preceding name may contain any character, including closing parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Returns the arguments of a process.
pub(crate) fn command_line(process: i32) -> Vec<String> {
    let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let words = words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    words.filter(|word| !word.is_empty()).collect()
}

/// Returns the processes with this variable in their environment, by id, with their command lines.
pub(crate) fn with_variable(name: &str, value: &str) -> Vec<(u32, String)> {
    let ids = all().into_iter().filter_map(|id| u32::try_from(id).ok());
    let found = ids.filter(|id| variable_of(*id, name) == value);
    found.map(|id| (id, command_line(id.cast_signed()).join(" "))).collect()
}
