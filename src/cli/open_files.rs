//! Raises the limit of open files, for programs with many connections: each place of a browser worker has a Chromium
//! with pipes, and a proxy with two connections for each connection of its page.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that are enough for every place. Not more, because programs that close every possible descriptor before
/// they start another one take time for each.
const ENOUGH: u64 = 65_536;

/// Raises the soft limit to [`ENOUGH`], or to the hard limit. Child processes inherit it.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(ENOUGH, |maximum| maximum.min(ENOUGH));
    let Some(before) = current.filter(|current| *current < wanted) else { return };
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => tracing::debug!(before, now = wanted, "limit of open files raised"),
        Err(error) => tracing::warn!(%error, limit = before, "limit of open files can't be raised"),
    }
}
