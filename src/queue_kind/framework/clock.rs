//! The server's clock, estimated from replies to TIME. Frameworks compare due times with their own clocks; the server's
//! clock is the only one that all processes of a deployment share.

use redis::{Cmd, Value};

use crate::{
    model::Timestamp,
    queue_kind::reply::{number, refusal},
};

/// Maximum error of the estimate. If the error is larger, the counts are read again.
const MAX_ERROR_MS: i64 = 20;

/// Estimate of the server's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServerClock {
    /// Milliseconds by which the server's clock is ahead of this process's clock.
    ahead: i64,
    sent: Timestamp,
    now: Timestamp,
}

impl ServerClock {
    /// Returns the command that reads the time.
    pub(super) fn command() -> Cmd {
        redis::cmd("TIME")
    }

    /// Sets the local time.
    pub(super) fn note(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Records that TIME is about to be sent.
    pub(super) fn asked(&mut self) {
        self.sent = self.now;
    }

    /// Handles a reply to TIME. Returns whether the estimate with which the request was made was good enough.
    ///
    /// # Errors
    /// If the server refused.
    pub(super) fn answered(&mut self, reply: &Value) -> Result<bool, String> {
        let odd = || refusal(reply).unwrap_or_else(|| format!("unexpected reply to TIME: {reply:?}"));
        let Value::Array(parts) = reply else { return Err(odd()) };
        let [seconds, micros] = parts.as_slice() else { return Err(odd()) };
        let (Some(seconds), Some(micros)) = (number(seconds), number(micros)) else { return Err(odd()) };
        let server = i64::try_from(seconds.saturating_mul(1_000) + micros / 1_000).unwrap_or(i64::MAX);
        let between = self.sent.0.midpoint(self.now.0);
        let ahead = server - i64::try_from(between).unwrap_or(i64::MAX);
        let good = (ahead - self.ahead).abs() <= MAX_ERROR_MS;
        // Half a round trip is uncertain in any case, so a small difference does not change the estimate, which then
        // has no jitter.
        if !good {
            self.ahead = ahead;
        }
        Ok(good)
    }

    /// Returns the local time.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns the server's time now, in milliseconds.
    pub(super) fn server_ms(&self) -> u64 {
        self.now.0.saturating_add_signed(self.ahead)
    }

    /// Converts a time of the server's clock to the local clock.
    pub(super) fn ours(&self, server_ms: u64) -> Timestamp {
        Timestamp(server_ms.saturating_add_signed(-self.ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(ms: u64) -> Value {
        let part = |number: u64| Value::BulkString(number.to_string().into_bytes());
        Value::Array(vec![part(ms / 1_000), part(ms % 1_000 * 1_000)])
    }

    #[test]
    fn an_estimate_stays_until_it_is_wrong() {
        let mut clock = ServerClock::default();
        clock.note(Timestamp(1_000));
        clock.asked();
        clock.note(Timestamp(1_010));
        assert_eq!(clock.answered(&reply(61_005)), Ok(false), "a minute ahead");
        assert_eq!((clock.server_ms(), clock.ours(62_000)), (61_010, Timestamp(2_000)));
        clock.asked();
        clock.note(Timestamp(1_014));
        assert_eq!(clock.answered(&reply(61_015)), Ok(true), "3 ms are within a round trip");
        assert_eq!(clock.ours(62_000), Timestamp(2_000));
        assert!(clock.answered(&Value::Okay).is_err());
    }
}
