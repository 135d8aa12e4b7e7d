//! Keeps streams short without losing anything: trims only entries that every consumer group has finished.

use super::{BrokerError, Consumer};
use crate::connection::Connection;
use crate::telemetry::StreamTrimmed;

const TRIM: &str = include_str!("lua/trim.lua");
/// Maximum entries of one trim: some milliseconds of the server's time, and more than workers finish between two trims.
const AT_ONCE: usize = 100_000;

impl Consumer {
    /// Trims the entries that every group has had delivered and acknowledged, in one bounded step. Returns how many.
    /// Redis drops entries in blocks of about a hundred, so some stay. Does nothing if the settings turn trimming off.
    ///
    /// # Errors
    /// If Redis did not carry it out.
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
