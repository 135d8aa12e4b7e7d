//! The ids of stream entries.

use std::fmt;

/// A stream entry's id. Ids are ordered as Redis orders entries: by time, then by sequence number.
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

    /// Parses `MS-SEQ`.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }

    /// Parses `MS-SEQ`, or `MS` alone, which Redis calls an incomplete id, as the first id of that millisecond.
    pub fn parse_incomplete(text: &str) -> Option<Self> {
        Self::parse(text).or_else(|| text.parse().ok().map(Self::at))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_their_numbers() {
        let is_after = |a, b| StreamId::parse(a).expect("it is an id") > StreamId::parse(b).expect("it is an id");
        assert!(is_after("10-0", "9-5") && is_after("9-10", "9-9") && is_after("18446744073709551615-0", "1-1"));
        assert!(!is_after("9-5", "9-5") && !is_after("0-0", "0-1"));
        assert_eq!(StreamId::default(), StreamId::at(0));
    }

    #[test]
    fn an_id_is_two_numbers_and_an_incomplete_one_is_one() {
        let id = StreamId::parse("1763896658250-7").expect("it is an id");
        assert_eq!((id.ms(), id.to_string().as_str()), (1_763_896_658_250, "1763896658250-7"));
        assert_eq!(StreamId::parse_incomplete("1763896658250-7"), Some(id));
        assert_eq!(StreamId::parse("17"), None);
        assert_eq!(StreamId::parse_incomplete("17"), Some(StreamId::at(17)));
        for text in ["", "-", "17-", "-17", "17-x", "x-17", "1-2-3", "18446744073709551616-0", "a job"] {
            assert_eq!((StreamId::parse(text), StreamId::parse_incomplete(text)), (None, None), "{text}");
        }
    }
}
