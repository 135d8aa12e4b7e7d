//! Rate limits of commands: per person and per channel, in a minute.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::access::Caller;
use crate::config::DiscordSettings;

/// Number of people or channels from which on inactive ones are forgotten.
const MANY: usize = 10_000;

/// Which limit is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMany {
    /// The caller's own limit; the next command is accepted after this time.
    User(Duration),
    /// The limit of the whole channel.
    Channel(Duration),
}

/// Counts commands.
#[derive(Debug)]
pub(super) struct Limits {
    clock: DefaultClock,
    users: DefaultKeyedRateLimiter<u64>,
    channels: DefaultKeyedRateLimiter<u64>,
}

impl Limits {
    pub(super) fn new(settings: &DiscordSettings) -> Self {
        let quota = |per_minute| Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
        Self {
            clock: DefaultClock::default(),
            users: RateLimiter::keyed(quota(settings.user_per_minute)),
            channels: RateLimiter::keyed(quota(settings.channel_per_minute)),
        }
    }

    /// Counts a command of `caller`, if it is within the limits.
    pub(super) fn count(&self, caller: &Caller) -> Result<(), TooMany> {
        self.pass(&self.users, caller.user).map_err(TooMany::User)?;
        self.pass(&self.channels, caller.channel).map_err(TooMany::Channel)
    }

    fn pass(&self, limiter: &DefaultKeyedRateLimiter<u64>, id: u64) -> Result<(), Duration> {
        if limiter.len() > MANY {
            limiter.retain_recent();
        }
        limiter.check_key(&id).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use twilight_model::guild::Permissions;

    use super::*;

    #[test]
    fn people_and_channels_are_counted_apart() {
        let settings = DiscordSettings { user_per_minute: 2, channel_per_minute: 3, ..DiscordSettings::default() };
        let limits = Limits::new(&settings);
        let count = |user, channel| {
            let permissions = Permissions::empty();
            limits.count(&Caller { user, name: String::new(), guild: Some(1), channel, roles: Vec::new(), permissions })
        };
        assert_eq!((count(1, 10), count(1, 10)), (Ok(()), Ok(())));
        assert!(matches!(count(1, 11), Err(TooMany::User(wait)) if wait <= Duration::from_secs(60)));
        assert_eq!(count(2, 10), Ok(()));
        assert!(matches!(count(2, 10), Err(TooMany::Channel(_))));
        assert_eq!(count(3, 11), Ok(()));
    }
}
