//! Validates a job before it is encoded: the publisher promises to publish no job if one is invalid, and encodes each
//! only when its batch is made.

use serde_json::{Map, Value};

use super::{EnvelopeError, Job};

/// More bytes than a job's JSON has without its names, arguments and unknown fields.
const ENVELOPE: usize = 560;

impl Job {
    /// Validates that the job can be [encoded](Self::encode). Returns the JSON if it had to be written to find out.
    pub(super) fn validate(&self, limit: usize) -> Result<Option<String>, EnvelopeError> {
        if self.max_bytes() > limit {
            return self.encode(limit).map(Some);
        }
        self.check().map(|()| None)
    }

    /// Returns an upper limit for the bytes of the job's JSON.
    pub(super) fn max_bytes(&self) -> usize {
        let names = [Some(&self.id), Some(&self.job_type), self.reply_to.as_ref(), self.idempotency_key.as_ref()];
        let names = names.into_iter().chain([self.session.as_ref(), self.group.as_ref()]).flatten();
        let names: usize = names.map(|name| max_bytes_of_text(name)).sum();
        let args: usize = self.args.iter().map(max_bytes_of).sum();
        ENVELOPE + names + args + max_bytes_of_map(&self.kwargs) + max_bytes_of_map(&self.extra)
    }
}

/// Each byte takes at most six, as in `\u001f`; then the quotes, and a comma or colon.
fn max_bytes_of_text(text: &str) -> usize {
    6 * text.len() + 3
}

fn max_bytes_of_map(map: &Map<String, Value>) -> usize {
    3 + map.iter().map(|(name, value)| max_bytes_of_text(name) + max_bytes_of(value)).sum::<usize>()
}

/// Returns an upper limit including a comma.
fn max_bytes_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 6,
        // The longest number is a double of 17 digits with sign, point and exponent.
        Value::Number(_) => 32,
        Value::String(text) => max_bytes_of_text(text),
        Value::Array(values) => 3 + values.iter().map(max_bytes_of).sum::<usize>(),
        Value::Object(map) => max_bytes_of_map(map),
    }
}
