//! The ids of stream entries.

use std::fmt;

/// A stream entry's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId {
    ms: u64,
    seq: u64,
}

impl StreamId {
    /// Returns the first id of a millisecond.
    pub fn at(ms: u64) -> Self {
        Self { ms, seq: 0 }
    }

    /// Returns when the entry was added, in milliseconds, if its id was made by the server.
    pub fn ms(self) -> u64 {
        self.ms
    }

    /// Reads `MS-SEQ`.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}
