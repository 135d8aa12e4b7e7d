//! The job envelope: the JSON in the field `json` of a stream entry. Owns reading and writing it; trusts nothing in it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::model::{Timestamp, keys};

/// All result keys begin so. A worker writes, and sets an expiry on, no other key that a job names: a job could else make
/// it delete a queue.
const RESULT_PREFIX: &str = "result:";

/// One job as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Unique; chosen by the publisher.
    pub id: String,
    /// `{worker type}.{method}`, for example `browser.goto`.
    #[serde(rename = "type")]
    pub job_type: String,
    /// Positional arguments.
    #[serde(default)]
    pub args: Vec<Value>,
    /// Named arguments.
    #[serde(default)]
    pub kwargs: Map<String, Value>,
    /// Key of the list that the result is pushed to; none if nobody waits. Begins with `result:`.
    #[serde(default)]
    pub reply_to: Option<String>,
    /// When it was published, in seconds since the Unix epoch.
    #[serde(default)]
    pub created_ts: Option<f64>,
    /// Fields that this version does not know: kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Why an entry is no job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The entry has no field `json`.
    #[error("the entry has no field `json`; put the job into it as one JSON object")]
    NoJson,
    /// Not JSON, or not of a job's shape.
    #[error("the field `json` holds no job: {0}")]
    Shape(String),
    /// A field that must not be empty is.
    #[error("the job's `{0}` is empty")]
    Empty(&'static str),
    /// `reply_to` names a key that is not for results.
    #[error("the job's `reply_to` must begin with `result:`, for example `result:{{id}}`")]
    ReplyTo,
}

impl Job {
    /// A new job with a fresh id, created now, that nobody waits for.
    pub fn new(job_type: impl Into<String>, args: Vec<Value>, kwargs: Map<String, Value>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double for 280,000 years")]
        let created_ts = Timestamp::wall().0 as f64 / 1_000.0;
        Self {
            id: Uuid::now_v7().to_string(),
            job_type: job_type.into(),
            args,
            kwargs,
            reply_to: None,
            created_ts: Some(created_ts),
            extra: Map::new(),
        }
    }

    /// The same job, with a result asked for.
    #[must_use]
    pub fn with_reply(mut self) -> Self {
        self.reply_to = Some(keys::result(&self.id));
        self
    }

    /// Reads the content of the field `json`.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        let job: Self = serde_json::from_slice(json).map_err(|error| EnvelopeError::Shape(error.to_string()))?;
        if job.id.is_empty() {
            return Err(EnvelopeError::Empty("id"));
        }
        if job.job_type.is_empty() {
            return Err(EnvelopeError::Empty("type"));
        }
        match &job.reply_to {
            Some(key) if !key.starts_with(RESULT_PREFIX) => Err(EnvelopeError::ReplyTo),
            _ => Ok(job),
        }
    }

    /// The content of the field `json`.
    #[expect(clippy::missing_panics_doc, reason = "it never does")]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("keys are strings and values are JSON already")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_wire_format_is_fixed() {
        let mut job = Job::new("browser.goto", vec![json!("https://example.org")], Map::new()).with_reply();
        job.id = "j1".to_owned();
        job.reply_to = Some("result:j1".to_owned());
        job.created_ts = Some(1_763_896_658.25);
        let wire: Value = serde_json::from_str(&job.to_json()).unwrap();
        assert_eq!(
            wire,
            json!({"id": "j1", "type": "browser.goto", "args": ["https://example.org"], "kwargs": {},
                   "reply_to": "result:j1", "created_ts": 1_763_896_658.25})
        );
    }

    #[test]
    fn optional_fields_may_be_missing_and_unknown_ones_are_kept() {
        let job = Job::parse(br#"{"id":"a","type":"browser.echo","trace":{"span":7}}"#).unwrap();
        assert_eq!((job.args.len(), job.kwargs.len(), &job.reply_to, job.created_ts), (0, 0, &None, None));
        assert_eq!(job.extra["trace"], json!({"span": 7}));
        assert_eq!(Job::parse(job.to_json().as_bytes()).unwrap(), job);
    }

    #[test]
    fn malformed_envelopes_are_errors() {
        let deep = format!(r#"{{"id":"a","type":"a.b","x":{}"#, "[".repeat(100_000));
        for (json, says) in [
            ("not json", "expected"),
            ("[]", "invalid type: sequence"),
            (r#"{"type":"a.b"}"#, "missing field `id`"),
            (r#"{"id":7,"type":"a.b"}"#, "expected a string"),
            (r#"{"id":"","type":"a.b"}"#, "`id` is empty"),
            (r#"{"id":"a","type":""}"#, "`type` is empty"),
            (r#"{"id":"a","type":"a.b","args":{}}"#, "expected a sequence"),
            (r#"{"id":"a","type":"a.b","reply_to":"browser:jobs"}"#, "must begin with `result:`"),
            (&deep, "recursion limit"),
        ] {
            let error = Job::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_parsing_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Job::parse(&bytes);
        }
    }
}
