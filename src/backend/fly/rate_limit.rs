//! Keeps to Fly.io's rate limits before Fly.io has to: one request a second for each action and thing that it is done
//! to, three at once; five and ten for reading one machine
//! (<https://fly.io/docs/machines/api/working-with-machines-api/#rate-limits>). Who comes too early waits.
//!
//! A refusal for too many requests silences its action for the whole app for a while.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::time::{Instant, sleep_until};

/// Kinds of requests. Each has its own limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    List,
    Create,
    Get,
    Start,
    Stop,
    Destroy,
    Wait,
    ListVolumes,
    CreateVolume,
}

impl Action {
    /// Whether a second request does no harm if the first one was carried out.
    pub(super) fn is_idempotent(self) -> bool {
        !matches!(self, Self::Create | Self::CreateVolume)
    }

    /// Whether it starts a worker or ends one.
    pub(super) fn changes_workers(self) -> bool {
        matches!(self, Self::Create | Self::CreateVolume | Self::Start | Self::Stop)
    }
}

/// How often an action may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Time in which one more request is allowed.
    pub every: Duration,
    /// Requests allowed at once after quiet.
    pub burst: NonZeroU32,
}

impl RateLimit {
    /// What Fly.io allows: 1 a second, 3 at once.
    pub const DOCUMENTED: Self = Self { every: Duration::from_secs(1), burst: NonZeroU32::new(3).expect("3 is not 0") };

    fn quota(self, times: NonZeroU32) -> Quota {
        let every = (self.every / times.get()).max(Duration::from_nanos(1));
        let burst = self.burst.saturating_mul(times);
        Quota::with_period(every).expect("it is not zero").allow_burst(burst)
    }
}

/// An action and the app or machine that it is done to.
type Key = (Action, String);

/// See the module.
#[derive(Debug)]
pub(super) struct Throttle {
    usual: DefaultKeyedRateLimiter<Key>,
    reads: DefaultKeyedRateLimiter<Key>,
    silenced: Mutex<HashMap<Key, Instant>>,
}

/// Reads of one machine are let pass three times as often, 3 a second and 9 at once, which is within what is allowed.
const READS: NonZeroU32 = NonZeroU32::new(3).expect("3 is not 0");
/// Number of keys from which on unused ones are dropped.
const MANY_KEYS: usize = 10_000;

impl Throttle {
    pub(super) fn new(rate_limit: RateLimit) -> Self {
        Self {
            usual: RateLimiter::keyed(rate_limit.quota(NonZeroU32::MIN)),
            reads: RateLimiter::keyed(rate_limit.quota(READS)),
            silenced: Mutex::default(),
        }
    }

    /// Waits until `action` may be asked of `thing`, a machine or the app itself.
    pub(super) async fn turn(&self, action: Action, app: &str, thing: &str) {
        let limiter = if action == Action::Get { &self.reads } else { &self.usual };
        if limiter.len() > MANY_KEYS {
            limiter.retain_recent();
        }
        limiter.until_key_ready(&(action, thing.to_owned())).await;
        let until = |silenced: &Mutex<HashMap<Key, Instant>>| {
            silenced.lock().unwrap_or_else(PoisonError::into_inner).get(&(action, app.to_owned())).copied()
        };
        while let Some(at) = until(&self.silenced).filter(|at| *at > Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// Blocks `action` in `app` for `pause`.
    pub(super) fn silence(&self, action: Action, app: &str, pause: Duration) {
        let mut silenced = self.silenced.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        silenced.retain(|_, until| *until > now);
        silenced.insert((action, app.to_owned()), now + pause);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn throttle() -> Throttle {
        Throttle::new(RateLimit { every: Duration::from_secs(3_600), ..RateLimit::DOCUMENTED })
    }

    fn is_let_pass(throttle: &Throttle, action: Action, app: &str, thing: &str) -> bool {
        throttle.turn(action, app, thing).now_or_never().is_some()
    }

    #[tokio::test]
    async fn three_at_once_for_each_action_and_thing() {
        let throttle = throttle();
        for number in 0..5 {
            assert_eq!(is_let_pass(&throttle, Action::Start, "app", "m1"), number < 3, "{number}");
        }
        assert!(is_let_pass(&throttle, Action::Start, "app", "m2"), "another machine");
        assert!(is_let_pass(&throttle, Action::Stop, "app", "m1"), "another action");
    }

    #[tokio::test]
    async fn a_refusal_silences_an_action_for_the_whole_app() {
        let throttle = throttle();
        throttle.silence(Action::Start, "app", Duration::from_secs(600));
        assert!(!is_let_pass(&throttle, Action::Start, "app", "m1"));
        assert!(!is_let_pass(&throttle, Action::Start, "app", "m2"));
        assert!(is_let_pass(&throttle, Action::Stop, "app", "m1"));
        assert!(is_let_pass(&throttle, Action::Start, "other", "m3"));
    }
}
