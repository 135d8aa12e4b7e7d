//! Programs that a few tests need and not every machine has. A test that is left out says so on the terminal, past the
//! test runner's capture; where it must run, a variable makes that a failure.

use std::{
    env,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// Whether `program` can be run. If not, says that the test is left out; panics where `must`, a variable of the
/// environment, is `1`.
pub(crate) fn has(program: &str, arguments: &[&str], must: &str, cure: &str) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = command.status().is_ok_and(|status| status.success());
    if !there {
        left_out(&format!("`{} {}` does not work", program, arguments.join(" ")), must, cure);
    }
    there
}

/// Says that this test is left out, and why.
///
/// # Panics
/// If the environment says that it must run.
pub(crate) fn left_out(why: &str, must: &str, cure: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(env::var(must).as_deref() != Ok("1"), "{must}=1, and {test} can't run: {why}; {cure}");
    let _ = writeln!(std::io::stderr(), "LEFT OUT: {test}: {why}; {cure}");
}

/// A file of this repository.
pub(crate) fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
