//! `PROGRAM process-start -- COMMAND ARGS…`: becomes COMMAND once its parent says so. The scaler starts every worker
//! through it, so that no worker runs before the process guard knows of it. Needs no runtime and starts in a
//! millisecond.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
};

/// What a shell says when a program can't be run.
const CANNOT_RUN: u8 = 127;

/// Waits for one byte on stdin, then becomes the program that `command` names, with stdin from /dev/null; does nothing
/// if stdin ends first. Returns only if the program does not run.
pub(super) fn run(mut command: impl Iterator<Item = OsString>) -> ExitCode {
    let mut go = [0; 1];
    // The end of the input, or no input at all, means that the scaler is gone or has changed its mind.
    if io::stdin().read_exact(&mut go).is_err() {
        return ExitCode::SUCCESS;
    }
    let program = command.next().unwrap_or_default();
    let error = Command::new(&program).args(command).stdin(Stdio::null()).exec();
    // Nobody may be listening any more, and there is nobody else to tell.
    let _ = writeln!(io::stderr(), "swarm: could not run `{}`: {error}", program.display());
    ExitCode::from(CANNOT_RUN)
}
