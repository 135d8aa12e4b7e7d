//! `PROGRAM process-start -- COMMAND ARGS…`: becomes COMMAND once its parent says so, with an empty stdin; with
//! `--with-input` in place of `--`, with the stdin that it has. The scaler starts every worker
//! through it, so that no worker runs before the process guard knows of it. Needs no runtime and starts in a
//! millisecond.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Command, ExitCode, Stdio},
};

/// What a shell says when a program can't be run.
const CANNOT_RUN: u8 = 127;

/// In place of `--`: the program gets what comes on stdin after the first byte.
pub(super) const WITH_INPUT: &str = "--with-input";

/// Waits for one byte on stdin, then becomes the program that `command` names behind `--` or [`WITH_INPUT`]; does
/// nothing if stdin ends first. Returns only if the program does not run.
pub(super) fn run(mut command: impl Iterator<Item = OsString>) -> ExitCode {
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
