//! Keeps streams short. Trims only entries that every consumer group has finished, and only dead letters beyond the
//! limits of the settings.

use super::{BrokerError, Consumer};
use crate::connection::Connection;
use crate::telemetry::{DeadLettersDropped, StreamTrimmed};

const TRIM: &str = include_str!("lua/trim.lua");
const TRIM_DEAD: &str = include_str!("lua/trim_dead.lua");
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

    /// Drops the dead letters of the stream that are beyond the settings' number or age. Returns how many. Does nothing
    /// without such a limit.
    ///
    /// # Errors
    /// If Redis did not carry it out.
    pub async fn trim_dead(&self, connection: &mut Connection) -> Result<u64, BrokerError> {
        let (max, age) = (self.policy.broker.dead_letters_max, self.policy.broker.dead_letters_max_age_seconds);
        if max == 0 && age == 0 {
            return Ok(0);
        }
        let mut command = redis::cmd("EVAL");
        command.arg(TRIM_DEAD).arg(1).arg(connection.layout().dead_letters(&self.stream));
        command.arg(max).arg(age.saturating_mul(1_000));
        let dropped = command.query_async(connection).await;
        let letters: u64 = dropped.map_err(|cause| self.failed("drop dead letters", cause))?;
        if letters > 0 {
            DeadLettersDropped { stream: &self.stream, letters }.emit();
        }
        Ok(letters)
    }
}
