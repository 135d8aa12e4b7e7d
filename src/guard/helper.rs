//! What a program does that was started again as a helper of itself: see [`run_as_helper`].

use std::process::ExitCode;

use super::{process_guard, process_start};

/// Call this first in `main`, before any runtime or thread is started.
///
/// An autoscaler with the process backend, and a browser worker, start their own program again: as the guard that ends
/// the child processes of a parent that died, and as each child's first moment, in which the guard learns of it. In
/// such a process this returns the exit code to leave with; in any other it returns `None` at once.
pub fn run_as_helper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next()?;
    if role == "process-guard" {
        return Some(process_guard::run());
    }
    (role == "process-start").then(|| process_start::run(arguments))
}
