//! The job envelope: the JSON in the field `json` of a stream entry. Owns its reading and writing; trusts nothing in
//! it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::exact;
use crate::model::{Timestamp, keys};

/// Prefix of all result keys. A worker writes, and sets an expiry on, no other key that a job names: otherwise a job
/// could make it delete a queue.
const RESULT_PREFIX: &str = "result:";
/// Longest name in a job, in bytes: names become parts of keys, lines of logs and columns of tables.
const MAX_NAME: usize = 512;

/// One job in its wire format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Unique id, chosen by the publisher. At most 512 bytes, like the other names.
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
    /// Key of the list that the result is pushed to, beginning with `result:`; `None` if no publisher waits.
    #[serde(default)]
    pub reply_to: Option<String>,
    /// When the job was published, in seconds since the Unix epoch.
    #[serde(default)]
    pub created_ts: Option<f64>,
    /// Idempotency key. A second job with the same key, published within the window, is this job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Latest start, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ts: Option<f64>,
    /// Earliest start, in seconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ts: Option<f64>,
    /// When the publisher stops waiting for the result, in seconds since the Unix epoch: a failed job is not retried
    /// after that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_by_ts: Option<f64>,
    /// Maximum attempts, instead of the setting of the worker type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Time limit of an attempt in seconds, instead of the setting of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// Seconds for which the result is kept, instead of the setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result_ttl_seconds: Option<u64>,
    /// Session of the job. Jobs of the same session are for the worker that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Failures before the job was put on its stream again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// Interruptions before the job was put on its stream again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interruptions: u32,
    /// The only consumer group that the job is for: set when one of several groups on a stream retries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Fields that this version does not know; they are preserved.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Why an entry does not hold a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The entry has no field `json`.
    #[error("the entry has no field `json`; put the job into it as one JSON object")]
    NoJson,
    /// The field is not JSON, or does not have the shape of a job.
    #[error("the field `json` holds no job: {0}")]
    Shape(String),
    /// A field that must not be empty is empty.
    #[error("the job's `{0}` is empty")]
    Empty(&'static str),
    /// A name is too long.
    #[error("the job's `{field}` has {bytes} bytes; at most {MAX_NAME} are allowed")]
    TooLong {
        /// Name of the field.
        field: &'static str,
        /// Length of the JSON, in bytes.
        bytes: usize,
    },
    /// An option of the job is outside its limits.
    #[error("the job's `{field}` is outside its limits; set it to {allowed}, or leave it out")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// Permitted values.
        allowed: String,
    },
    /// The JSON is larger than a job may be.
    #[error("the job has {bytes} bytes, more than `broker.job_max_bytes` = {limit}: send less, or raise the limit")]
    TooLarge {
        /// Length of the field, in bytes.
        bytes: usize,
        /// Maximum length, in bytes.
        limit: usize,
    },
    /// `reply_to` names a key that is not for results.
    #[error("the job's `reply_to` must begin with `result:`, for example `result:{{id}}`")]
    ReplyTo,
}

impl Job {
    /// Returns a new job with a fresh id, created now, without a waiting publisher.
    pub fn new(job_type: impl Into<String>, args: Vec<Value>, kwargs: Map<String, Value>) -> Self {
        Self {
            id: Uuid::now_v7().to_string(),
            job_type: job_type.into(),
            args,
            kwargs,
            reply_to: None,
            created_ts: Some(seconds(Timestamp::wall())),
            idempotency_key: None,
            deadline_ts: None,
            not_before_ts: None,
            reply_by_ts: None,
            max_attempts: None,
            timeout_seconds: None,
            result_ttl_seconds: None,
            session: None,
            attempt: 0,
            interruptions: 0,
            group: None,
            extra: Map::new(),
        }
    }

    /// Returns the same job, with a request for its result.
    #[must_use]
    pub fn with_reply(mut self) -> Self {
        self.reply_to = Some(keys::result(&self.id));
        self
    }

    /// Returns the same job with an idempotency key. It requests the result too, because a second publisher may wait
    /// for it.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self.with_reply()
    }

    /// Returns the same job, to be started within `time` from now or not at all.
    #[must_use]
    pub fn with_deadline(mut self, time: Duration) -> Self {
        self.deadline_ts = Some(seconds(Timestamp::wall().after(time)));
        self
    }

    /// Returns the same job, to be started `delay` from now at the earliest.
    #[must_use]
    pub fn with_delay(mut self, delay: Duration) -> Self {
        self.not_before_ts = Some(seconds(Timestamp::wall().after(delay)));
        self
    }

    /// Returns the same job as part of a session.
    #[must_use]
    pub fn with_session(mut self, session: impl Into<String>) -> Self {
        self.session = Some(session.into());
        self
    }

    /// Returns the latest start; `None` if there is no deadline.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline_ts.map(timestamp)
    }

    /// Returns the milliseconds since the deadline; `None` if the deadline has not passed.
    pub fn late_ms(&self) -> Option<u64> {
        let deadline = self.deadline()?;
        let now = Timestamp::wall();
        (now > deadline).then(|| u64::try_from(now.since(deadline).as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the earliest start; `None` if the job may start immediately.
    pub fn not_before(&self) -> Option<Timestamp> {
        self.not_before_ts.map(timestamp)
    }

    /// Parses the content of the field `json`, which may have at most `limit` bytes.
    pub fn parse(json: &[u8], limit: usize) -> Result<Self, EnvelopeError> {
        if json.len() > limit {
            return Err(EnvelopeError::TooLarge { bytes: json.len(), limit });
        }
        let job: Self = exact::from_slice(json).map_err(|error| EnvelopeError::Shape(error.to_string()))?;
        job.check()?;
        Ok(job)
    }

    /// Returns the content of the field `json`, if [`parse`](Self::parse) would accept the job.
    pub fn encode(&self, limit: usize) -> Result<String, EnvelopeError> {
        self.check()?;
        let json = self.to_json();
        if json.len() > limit {
            return Err(EnvelopeError::TooLarge { bytes: json.len(), limit });
        }
        Ok(json)
    }

    /// Writes the content of the field `json` to a writer that never fails.
    pub(super) fn write_json(&self, mut to: impl std::io::Write) {
        let written = if exact::any_marked() {
            to.write_all(self.to_json().as_bytes()).map_err(serde_json::Error::io)
        } else {
            serde_json::to_writer(to, self)
        };
        written.expect("keys are strings and values are JSON already, and memory takes them");
    }

    /// Returns the content of the field `json`.
    pub fn to_json(&self) -> String {
        exact::to_string(self)
    }

    pub(super) fn check(&self) -> Result<(), EnvelopeError> {
        let names = [
            ("id", Some(&self.id)),
            ("type", Some(&self.job_type)),
            ("reply_to", self.reply_to.as_ref()),
            ("idempotency_key", self.idempotency_key.as_ref()),
            ("session", self.session.as_ref()),
            ("group", self.group.as_ref()),
        ];
        for (field, name) in names.into_iter().filter_map(|(field, name)| Some((field, name?))) {
            match name.len() {
                0 => return Err(EnvelopeError::Empty(field)),
                bytes if bytes > MAX_NAME => return Err(EnvelopeError::TooLong { field, bytes }),
                _ => {}
            }
        }
        match &self.reply_to {
            Some(key) if !key.starts_with(RESULT_PREFIX) => Err(EnvelopeError::ReplyTo),
            _ => self.check_options(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double for 280,000 years")]
pub(super) fn seconds(at: Timestamp) -> f64 {
    at.0 as f64 / 1_000.0
}

/// Converts seconds since 1970. Times before 1970 become 1970, and times beyond any calendar the end of time, because
/// the cast saturates.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is what is wanted")]
pub(super) fn timestamp(seconds: f64) -> Timestamp {
    Timestamp((seconds * 1_000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const LIMIT: usize = 1 << 20;

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
        let job = Job::parse(br#"{"id":"a","type":"browser.echo","trace":{"span":7}}"#, LIMIT).unwrap();
        assert_eq!((job.args.len(), job.kwargs.len(), &job.reply_to, job.created_ts), (0, 0, &None, None));
        assert_eq!(job.extra["trace"], json!({"span": 7}));
        assert_eq!(Job::parse(job.to_json().as_bytes(), LIMIT).unwrap(), job);
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
            let error = Job::parse(json.as_bytes(), LIMIT).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    /// Returns arbitrary JSON, at most four levels deep.
    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(".{0,8}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn name() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(".{0,40}")
    }

    prop_compose! {
        /// Returns an arbitrary job, including jobs that no worker accepts.
        fn any_job()(
            id in ".{0,40}", job_type in "[a-z.]{0,20}", args in proptest::collection::vec(json_value(), 0..4),
            kwargs in proptest::collection::hash_map("[a-z]{1,8}", json_value(), 0..4),
            extra in proptest::collection::hash_map("x_[a-z]{1,8}", json_value(), 0..4),
            reply_to in proptest::option::of("(result:)?.{0,20}"), names in [name(), name(), name()],
            times in [
                proptest::option::of(-1e18..1e18_f64), proptest::option::of(-1e18..1e18_f64),
                proptest::option::of(-1e18..1e18_f64),
            ],
            options in (proptest::option::of(0..1_100_u32), proptest::option::of(-1.0..3e6_f64),
                        proptest::option::of(0..700_000_u64)),
            created_ts in proptest::option::of(any::<u32>().prop_map(f64::from)),
            [attempt, interruptions] in any::<[u32; 2]>(),
        ) -> Job {
            let ([idempotency_key, session, group], [deadline_ts, not_before_ts, reply_by_ts]) = (names, times);
            let (max_attempts, timeout_seconds, result_ttl_seconds) = options;
            let (kwargs, extra) = (kwargs.into_iter().collect(), extra.into_iter().collect());
            Job { id, job_type, args, kwargs, reply_to, created_ts, idempotency_key, deadline_ts, not_before_ts,
                  reply_by_ts, max_attempts, timeout_seconds, result_ttl_seconds, session, attempt, interruptions, group,
                  extra }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_parsing_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Job::parse(&bytes, LIMIT);
        }

        #[test]
        fn no_json_makes_parsing_panic_and_what_is_taken_stays_the_same(json in json_value(), times in 0..4_u8) {
            // A known field with arbitrary JSON as its value.
            let names = ["id", "type", "args", "kwargs", "reply_to", "deadline_ts", "attempt", "group"];
            let envelope = json!({"id": "a", "type": "b.c", names[usize::from(times)]: json, names[usize::from(times) + 4]: json});
            if let Ok(job) = Job::parse(envelope.to_string().as_bytes(), LIMIT) {
                prop_assert_eq!(Job::parse(job.to_json().as_bytes(), LIMIT), Ok(job));
            }
        }

        #[test]
        fn what_may_be_published_is_read_as_it_was(job in any_job()) {
            if let Ok(json) = job.encode(LIMIT) {
                let read = Job::parse(json.as_bytes(), LIMIT);
                prop_assert_eq!(read.as_ref().map(Job::to_json), Ok(json));
            } else {
                prop_assert!(Job::parse(job.to_json().as_bytes(), LIMIT).is_err());
            }
        }

        #[test]
        fn no_job_is_taken_beyond_the_limit(job in any_job(), limit in 0..400_usize) {
            let json = job.to_json();
            prop_assert!(job.max_bytes() >= json.len());
            if json.len() > limit {
                let too_large = EnvelopeError::TooLarge { bytes: json.len(), limit };
                prop_assert_eq!(Job::parse(json.as_bytes(), limit), Err(too_large));
                prop_assert!(job.encode(limit).is_err());
            }
        }

        #[test]
        fn times_never_overflow(seconds in any::<f64>()) {
            let job = Job { deadline_ts: Some(seconds), ..Job::new("a.b", Vec::new(), Map::new()) };
            prop_assert!(job.deadline().is_some());
        }
    }
}
