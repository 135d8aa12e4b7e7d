//! Parses the replies to the reads of frameworks, in RESP2 and RESP3.

use redis::Value;

use crate::queue_kind::reply::{missing, number, refusal, text};

/// Replies in the order of their commands.
pub(super) struct Replies(std::vec::IntoIter<Value>);

impl Replies {
    pub(super) fn new(replies: Vec<Value>) -> Self {
        Self(replies.into_iter())
    }

    /// Returns the next reply.
    ///
    /// # Errors
    /// If there is none, or the server refused.
    pub(super) fn next(&mut self) -> Result<Value, String> {
        let value = self.0.next().ok_or_else(missing)?;
        refusal(&value).map_or(Ok(value), Err)
    }

    /// Returns the next reply as a number. A missing key counts as 0.
    ///
    /// # Errors
    /// Those of [`next`](Self::next), and if the reply is not a number.
    pub(super) fn count(&mut self) -> Result<u64, String> {
        let value = self.next()?;
        if value == Value::Nil {
            return Ok(0);
        }
        number(&value).ok_or_else(|| format!("expected a number, found {value:?}"))
    }

    /// Returns the next reply as text; `None` for nil.
    ///
    /// # Errors
    /// Those of [`next`](Self::next).
    pub(super) fn text(&mut self) -> Result<Option<String>, String> {
        Ok(text(&self.next()?).map(str::to_owned))
    }

    /// Returns the next reply as a list or set of texts; `None` for a missing one.
    ///
    /// # Errors
    /// Those of [`next`](Self::next), and if the reply is not a list or set.
    pub(super) fn texts(&mut self) -> Result<Vec<Option<String>>, String> {
        match self.next()? {
            Value::Array(all) | Value::Set(all) => Ok(all.iter().map(|one| text(one).map(str::to_owned)).collect()),
            Value::Nil => Ok(Vec::new()),
            other => Err(format!("expected a list, found {other:?}")),
        }
    }

    /// Returns the next reply as members of a sorted set with their scores.
    ///
    /// # Errors
    /// Those of [`next`](Self::next), and if the reply has another shape.
    pub(super) fn scored(&mut self) -> Result<Vec<(String, f64)>, String> {
        let value = self.next()?;
        let odd = || format!("expected members and scores, found {value:?}");
        let Value::Array(all) = &value else { return Err(odd()) };
        // RESP3 sends pairs, RESP2 a flat list.
        let pairs: Vec<(&Value, &Value)> = match all.first() {
            Some(Value::Array(_)) => all
                .iter()
                .filter_map(|pair| match pair {
                    Value::Array(pair) => Some((pair.first()?, pair.get(1)?)),
                    _ => None,
                })
                .collect(),
            _ => all.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect(),
        };
        let one = |(member, score): (&Value, &Value)| Some((text(member)?.to_owned(), float(score)?));
        pairs.into_iter().map(one).collect::<Option<_>>().ok_or_else(odd)
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Double(score) => Some(*score),
        other => text(other)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_read_alike_in_both_protocols() {
        let member = || Value::BulkString(b"a".to_vec());
        let resp2 = Value::Array(vec![member(), Value::BulkString(b"1.5".to_vec())]);
        let resp3 = Value::Array(vec![Value::Array(vec![member(), Value::Double(1.5)])]);
        for reply in [resp2, resp3] {
            assert_eq!(Replies::new(vec![reply]).scored(), Ok(vec![("a".to_owned(), 1.5)]));
        }
        assert_eq!(Replies::new(vec![Value::Array(Vec::new())]).scored(), Ok(Vec::new()));
        assert!(Replies::new(vec![Value::Int(1)]).scored().is_err());
        assert!(Replies::new(Vec::new()).count().is_err());
    }
}
