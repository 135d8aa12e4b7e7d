//! Converts counts and times of the API. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::model::Timestamp;

/// Returns a count, which is never negative in the API.
pub(super) fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

/// Returns a time; 0 if it is before 1970.
pub(super) fn timestamp(time: &Time) -> Timestamp {
    Timestamp(u64::try_from(time.0.as_millisecond()).unwrap_or(0))
}
