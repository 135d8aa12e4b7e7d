//! What is to go wrong, and when.

use std::time::Duration;

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Refused with this status, not carried out; with `Retry-After`, if given.
    Refused(u16, Option<u32>),
    /// Carried out, and answered with 408.
    Lost,
    /// Carried out, and the connection breaks within the answer.
    Cut,
    /// Carried out and answered, late.
    Slow(Duration),
}

/// Those to come.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<(String, String, Fault)>);

impl Faults {
    pub(super) fn push(&mut self, method: &str, path_end: &str, fault: Fault) {
        self.0.push((method.to_owned(), path_end.to_owned(), fault));
    }

    /// None any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The first that fits this request.
    pub(super) fn take(&mut self, method: &str, path: &str) -> Option<Fault> {
        let fits = |(of, end, _): &(String, String, Fault)| of == method && path.ends_with(end.as_str());
        self.0.iter().position(fits).map(|index| self.0.remove(index).2)
    }
}
