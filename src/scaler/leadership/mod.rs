//! Which of several autoscalers acts: one leads, by a lease in Redis or in the cluster, and the others stand by.
//!
//! Owns the lease ([`Candidate`]) and the answer to "may I write now" ([`Leadership::permit`]), which callers ask right
//! before each write to a backend. The answer comes from a clock of this machine, never from Redis: a leader that was
//! stopped or cut off for longer than its lease finds the lease over before it can act. Must not know what is written.

mod candidate;
mod in_object;
mod in_redis;
mod lease;
mod lease_store;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub use self::candidate::{Candidate, Election};
use self::lease::{SinceBoot, since_boot};
use crate::{
    model::{
        Timestamp, WorkerType,
        snapshot::{Change, LeadershipSnapshot, Role},
    },
    scaler::signs_of_life::Leads,
};

/// Permission to write once, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    /// Fencing token of the term; `None` without an election.
    pub token: Option<u64>,
}

/// A time during which one autoscaler leads without interruption.
#[derive(Clone, Debug)]
struct Term {
    token: u64,
    usable_until: SinceBoot,
    since: Timestamp,
    /// Last changes of the worker types, as the previous leader left them; empty if they can't be read.
    changes: HashMap<WorkerType, Change>,
}

#[derive(Debug)]
enum LeadershipState {
    /// There is no election.
    Unopposed {
        since: Timestamp,
    },
    Leading(Term),
    Following {
        leader: Option<(String, u64)>,
        problem: Option<String>,
    },
    /// An observer, which is never a candidate.
    Observing {
        leader: Option<(String, u64)>,
        problem: Option<String>,
    },
}

/// Leadership of this autoscaler. Written by its [`Candidate`], read by all parts.
#[derive(Debug)]
pub struct Leadership {
    instance: String,
    state: Mutex<LeadershipState>,
    /// Number of the term, another one for each term; 0 while this autoscaler does not lead. Ten thousand actors can
    /// read it without a lock.
    term: AtomicU64,
    terms: AtomicU64,
}

impl Leads for Leadership {
    fn leads(&self) -> bool {
        self.permit().is_some()
    }
}

impl Leadership {
    fn new(instance: &str, state: LeadershipState) -> Arc<Self> {
        let term = u64::from(matches!(state, LeadershipState::Unopposed { .. }));
        let (term, terms) = (AtomicU64::new(term), AtomicU64::new(term));
        Arc::new(Self { instance: instance.to_owned(), state: Mutex::new(state), term, terms })
    }

    /// Returns the leadership of the only autoscaler, which always leads.
    pub fn unopposed(instance: &str, since: Timestamp) -> Arc<Self> {
        Self::new(instance, LeadershipState::Unopposed { since })
    }

    /// Returns the leadership of one of several autoscalers, before its [`Candidate`] finds out more.
    pub fn standby(instance: &str) -> Arc<Self> {
        Self::new(instance, LeadershipState::Following { leader: None, problem: None })
    }

    /// Returns the leadership of an autoscaler that never acts.
    pub fn observer(instance: &str) -> Arc<Self> {
        Self::new(instance, LeadershipState::Observing { leader: None, problem: None })
    }

    /// Returns whether a write may begin now. The time is read here, so call it right before the write.
    pub fn permit(&self) -> Option<Permit> {
        self.permit_at(since_boot())
    }

    fn permit_at(&self, now: SinceBoot) -> Option<Permit> {
        match &*self.state() {
            LeadershipState::Unopposed { .. } => Some(Permit { token: None }),
            LeadershipState::Leading(term) if now < term.usable_until => Some(Permit { token: Some(term.token) }),
            _ => None,
        }
    }

    /// Returns the number of the term, another one for each term; `None` while this autoscaler does not lead.
    pub fn term(&self) -> Option<u64> {
        Some(self.term.load(Ordering::Acquire)).filter(|term| *term > 0)
    }

    /// Returns the last change of a worker type, as the previous leader left it.
    pub fn remembered(&self, worker_type: &WorkerType) -> Option<Change> {
        match &*self.state() {
            LeadershipState::Leading(term) => term.changes.get(worker_type).copied(),
            _ => None,
        }
    }

    /// Returns the state that is shown to readers.
    pub fn snapshot(&self) -> LeadershipSnapshot {
        let leads = self.permit().is_some();
        let (role, leader, problem) = match &*self.state() {
            LeadershipState::Unopposed { since } => return self.leading(None, *since),
            LeadershipState::Leading(term) if leads => return self.leading(Some(term.token), term.since),
            LeadershipState::Leading(_) => (Role::Standby, None, Some("its lease ran out".to_owned())),
            LeadershipState::Following { leader, problem } => (Role::Standby, leader.clone(), problem.clone()),
            LeadershipState::Observing { leader, problem } => (Role::Observer, leader.clone(), problem.clone()),
        };
        let (leader, token) = leader.unzip();
        LeadershipSnapshot { role, leader, token, since: None, problem }
    }

    fn leading(&self, token: Option<u64>, since: Timestamp) -> LeadershipSnapshot {
        let leader = Some(self.instance.clone());
        LeadershipSnapshot { role: Role::Leader, leader, token, since: Some(since), problem: None }
    }

    /// Extends the term in progress. Returns false if there is none, or if another autoscaler may have led in between.
    /// The token rises by one if Redis lost the lease and this autoscaler took it again immediately.
    fn extend(&self, token: u64, usable_until: SinceBoot, now: SinceBoot) -> bool {
        match &mut *self.state() {
            LeadershipState::Leading(term) if now < term.usable_until && token.wrapping_sub(term.token) <= 1 => {
                term.token = token;
                term.usable_until = usable_until;
                true
            }
            _ => false,
        }
    }

    fn begin(&self, term: Term) {
        let mut state = self.state();
        *state = LeadershipState::Leading(term);
        self.term.store(self.terms.fetch_add(1, Ordering::AcqRel) + 1, Ordering::Release);
    }

    /// Records that another autoscaler leads, or that no leader is known. Returns whether that ended a term.
    fn follow(&self, leader: Option<(String, u64)>, problem: Option<String>) -> bool {
        let mut state = self.state();
        let led = matches!(*state, LeadershipState::Leading(_));
        self.term.store(0, Ordering::Release);
        *state = match *state {
            LeadershipState::Observing { .. } => LeadershipState::Observing { leader, problem },
            _ => LeadershipState::Following { leader, problem },
        };
        led
    }

    /// Records that the lease can't be had and that of this autoscaler is over. `may_lead` says whether a leader that
    /// was followed may still lead.
    fn lapse(&self, problem: String, may_lead: bool) {
        let leader = match &mut *self.state() {
            LeadershipState::Following { leader, .. } | LeadershipState::Observing { leader, .. } => leader.take(),
            _ => None,
        };
        self.follow(leader.filter(|_| may_lead), Some(problem));
    }

    /// Returns the remaining time of the term; `None` while this autoscaler does not lead, also because the time is
    /// over.
    fn left(&self, now: SinceBoot) -> Option<std::time::Duration> {
        match &*self.state() {
            LeadershipState::Leading(term) => term.usable_until.checked_sub(now).filter(|left| !left.is_zero()),
            _ => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, LeadershipState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SinceBoot {
        Duration::from_secs(seconds)
    }

    fn leading(token: u64, until: u64) -> Arc<Leadership> {
        let leadership = Leadership::standby("here");
        let change = Change { at: Timestamp(5), from: 1, to: 2 };
        let changes = HashMap::from([(WorkerType::new("browser"), change)]);
        leadership.begin(Term { token, usable_until: at(until), since: Timestamp(1), changes });
        leadership
    }

    #[test]
    fn a_permit_ends_with_the_lease_whatever_the_wall_clock_says() {
        let leadership = leading(7, 100);
        assert_eq!(leadership.permit_at(at(99)), Some(Permit { token: Some(7) }));
        assert_eq!(leadership.permit_at(at(100)), None, "frozen for long enough, it does not act on waking");
        assert_eq!(leadership.permit_at(at(100_000)), None);
    }

    #[test]
    fn a_renewal_in_time_lengthens_the_term_and_a_late_one_does_not() {
        let leadership = leading(7, 100);
        let term = leadership.term();
        assert!(leadership.extend(7, at(200), at(99)));
        assert_eq!((leadership.permit_at(at(150)).and_then(|it| it.token), leadership.term()), (Some(7), term));
        assert!(!leadership.extend(7, at(300), at(200)), "after its end somebody else may have led");
    }

    #[test]
    fn a_lease_that_redis_lost_goes_on_unless_somebody_led_in_between() {
        let leadership = leading(7, 100);
        assert!(!leadership.extend(9, at(200), at(50)), "token 8 was somebody else's");
        assert!(leadership.extend(8, at(200), at(50)));
        assert_eq!(leadership.permit_at(at(50)), Some(Permit { token: Some(8) }));
    }

    #[test]
    fn each_term_has_a_number_of_its_own_and_brings_what_the_leader_before_did() {
        let leadership = leading(7, u64::MAX / 2);
        let (first, browser) = (leadership.term(), WorkerType::new("browser"));
        assert_eq!(leadership.remembered(&browser).map(|change| change.to), Some(2));
        assert_eq!(leadership.remembered(&WorkerType::new("other")), None);
        assert!(leadership.follow(Some(("there".to_owned(), 8)), None));
        assert_eq!(
            (leadership.term(), leadership.permit_at(at(0)), leadership.remembered(&browser)),
            (None, None, None)
        );
        leadership.begin(Term { token: 9, usable_until: at(300), since: Timestamp(2), changes: HashMap::new() });
        assert!(leadership.term().is_some() && leadership.term() != first);
    }

    #[test]
    fn a_leader_that_was_followed_may_lead_unless_nobody_holds_the_lease() {
        let standby = Leadership::standby("here");
        standby.follow(Some(("there".to_owned(), 8)), None);
        for (may_lead, leader) in [(true, Some("there")), (false, None), (true, None)] {
            standby.lapse("why".to_owned(), may_lead);
            let shown = standby.snapshot();
            assert_eq!((shown.leader.as_deref(), shown.problem.as_deref()), (leader, Some("why")));
        }
    }

    #[test]
    fn what_is_shown_tells_who_leads() {
        let shown = leading(7, u64::MAX / 2).snapshot();
        assert_eq!((shown.role, shown.leader.as_deref(), shown.token), (Role::Leader, Some("here"), Some(7)));
        let over = leading(7, 0).snapshot();
        assert_eq!((over.role, over.leader, over.token), (Role::Standby, None, None));
        let observer = Leadership::observer("here");
        observer.follow(Some(("there".to_owned(), 8)), None);
        let shown = observer.snapshot();
        assert_eq!((shown.role, shown.leader.as_deref(), shown.token), (Role::Observer, Some("there"), Some(8)));
        assert_eq!(Leadership::unopposed("here", Timestamp(3)).snapshot().since, Some(Timestamp(3)));
    }
}
