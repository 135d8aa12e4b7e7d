//! `PROGRAM process-start -- COMMAND ARGS…`: becomes COMMAND once its parent says so, with an empty stdin; with
//! `--with-input` in place of `--`, with the stdin that it has. The scaler starts every worker
//! through it, so that no worker runs before the process guard knows of it, and none ignores the signal that stops it.
//! Needs no runtime and starts in a millisecond.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};

/// What a shell says when a program can't be run.
const CANNOT_RUN: u8 = 127;

/// In place of `--`: the program gets what comes on stdin after the first byte.
pub(super) const WITH_INPUT: &str = "--with-input";

/// Waits for one byte on stdin, then becomes the program that `command` names behind `--` or [`WITH_INPUT`]; does
/// nothing if stdin ends first. Returns only if the program does not run.
pub(super) fn run(mut command: impl Iterator<Item = OsString>) -> ExitCode {
    stop_ignoring_signals();
    let has_input = command.next().is_some_and(|word| word == WITH_INPUT);
    let mut go = [0; 1];
    // Without a buffer: what comes behind the byte is the program's. The end of the input, or no input at all, means
    // that the scaler is gone or has changed its mind.
    if !matches!(rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut go)), Ok(1)) {
        return ExitCode::SUCCESS;
    }
    let program = command.next().unwrap_or_default();
    let input = if has_input { Stdio::inherit() } else { Stdio::null() };
    let error = Command::new(&program).args(command).stdin(input).exec();
    // Nobody may be listening any more, and there is nobody else to tell.
    let _ = writeln!(io::stderr(), "swarm: could not run `{}`: {error}", program.display());
    ExitCode::from(CANNOT_RUN)
}

/// Restores the default of the signals that stop workers, if they are ignored. A shell without job control ignores
/// SIGINT and SIGQUIT in what it runs in the background, and every descendant inherits that. A script could not even
/// catch them.
fn stop_ignoring_signals() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored_signals(&status);
    let noted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGQUIT, SIGTERM] {
        if ignored & (1 << (signal - 1)) != 0 {
            // A signal with a handler has its default again in the program that replaces this one.
            let _ = signal_hook::flag::register(signal, Arc::clone(&noted));
        }
    }
}

/// Returns the mask of ignored signals from the text of `/proc/PID/status`; 0 if it is not there.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status_of_a_process() {
        assert_eq!(ignored_signals("Name:\tsh\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000006\n"), 6);
        assert_eq!(ignored_signals("Name:\tsh\n"), 0);
    }
}
