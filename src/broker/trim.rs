//! Keeps streams short without losing anything: only what every consumer group has finished goes.

use super::{BrokerError, Consumer};
use crate::connection::Connection;
use crate::telemetry::StreamTrimmed;

const TRIM: &str = include_str!("lua/trim.lua");
/// Entries trimmed at once: some milliseconds of the server's time, and more than workers finish between two trims.
const AT_ONCE: usize = 100_000;

impl Consumer {
    /// Trims the stream of entries that every group has had delivered and acknowledged, in one bounded step; answers how many.
    /// Redis drops them in blocks of about a hundred, so that some stay. Does nothing if the settings say so.
    ///
    /// # Errors
    /// If Redis did not do it.
    pub async fn trim(&self, connection: &mut Connection) -> Result<u64, BrokerError> {
        if !self.policy.broker.trim {
            return Ok(0);
        }
        let mut command = redis::cmd("EVAL");
        command.arg(TRIM).arg(1).arg(&self.stream).arg(AT_ONCE);
        let trimmed = command.query_async(connection).await;
        let entries: u64 = trimmed.map_err(|cause| self.failed("trim finished entries", cause))?;
        if entries > 0 {
            StreamTrimmed { stream: &self.stream, entries }.emit();
        }
        Ok(entries)
    }
}
