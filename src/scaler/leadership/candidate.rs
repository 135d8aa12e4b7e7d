//! Takes part in the election: takes the lease, renews it and gives it up. The [`lease_store`](super::lease_store)
//! knows where the lease is kept, in Redis or in the cluster.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    Leadership, Term,
    in_object::InObject,
    in_redis::InRedis,
    lease::{Lease, since_boot},
    lease_store::{ElectionError, GivenUp, Held, Identity, LONGEST_PAUSE, LeaseStore},
};
use crate::{
    backend::{LeaseObject, ScalingBackend},
    connection::{RedisTarget, backoff},
    model::{Clock, Source, snapshot::Role},
    scaler::{SignsOfLife, load_changes},
    signal::CurrentDirectory,
    telemetry::LeadershipChanged,
};

/// Margin after the end of another leader's lease: Redis counts in whole milliseconds.
const JUST_AFTER: Duration = Duration::from_millis(2);

/// What an autoscaler needs to take part in the election.
pub struct Election {
    /// Redis with the lease, unless the lease is an object of the cluster. The fencing tokens are in Redis in any case.
    pub target: Arc<RedisTarget>,
    /// Object that is the lease, if the lease is not in Redis.
    pub object: Option<Arc<dyn LeaseObject>>,
    /// Name of this autoscaler, for people.
    pub instance: String,
    /// Length of a lease.
    pub lease: Duration,
    /// Worker types whose last changes a new leader reads, and that it wakes then.
    pub directory: Arc<CurrentDirectory>,
    /// Backend that must give up its own workers when another autoscaler leads.
    pub backend: Arc<dyn ScalingBackend>,
    /// Clock of the autoscaler.
    pub clock: Clock,
    /// Signs of life that a lease in Redis carries.
    pub signs: Arc<SignsOfLife>,
}

/// Takes part in the election until it is told to resign.
pub struct Candidate {
    election: Election,
    leadership: Arc<Leadership>,
    lease: Lease,
    lease_store: Box<dyn LeaseStore>,
    given_up: Arc<GivenUp>,
    last_token: u64,
    next: Duration,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
}

impl Candidate {
    /// Returns a candidate that acts for `leadership`.
    pub fn new(election: Election, leadership: Arc<Leadership>) -> Self {
        let given_up = Arc::<GivenUp>::default();
        let lease = Lease::of(election.lease);
        let identity =
            Identity { holder: uuid::Uuid::now_v7().to_string(), instance: election.instance.clone(), lease };
        let target = election.target.clone();
        let lease_store: Box<dyn LeaseStore> = match &election.object {
            Some(object) => Box::new(InObject::new(object.clone(), target, identity, given_up.clone())),
            None => Box::new(InRedis::new(target, identity, given_up.clone(), election.signs.clone())),
        };
        let pauses = Box::new(backoff());
        Self { election, leadership, lease, lease_store, given_up, last_token: 0, next: Duration::ZERO, pauses }
    }

    /// Tries to renew the lease or to take it; otherwise finds out who has it.
    pub async fn attempt(&mut self) {
        let sent_at = since_boot();
        let asked = tokio::time::timeout(self.lease.patience(), self.ask()).await;
        match asked.unwrap_or(Err(ElectionError::Timeout(self.lease_store.name()))) {
            Ok(held) => {
                self.pauses = Box::new(backoff());
                self.last_token = self.last_token.max(held.token);
                if held.mine {
                    self.next = self.lease.renew_every();
                    self.lead(held.token, sent_at).await;
                } else {
                    self.next = (held.ends_in + JUST_AFTER).min(self.lease.renew_every());
                    self.follow(held).await;
                }
            }
            Err(error) => {
                self.lease_store.lost();
                self.next = self.pauses.next().unwrap_or(LONGEST_PAUSE).min(self.lease.renew_every());
                self.fail(&error);
            }
        }
    }

    /// Runs until `resign`, then gives up the lease.
    pub async fn run(mut self, resign: CancellationToken) {
        loop {
            let given_up = self.given_up.clone();
            let pause = self.leadership.left(since_boot()).map_or(self.next, |left| left.min(self.next));
            tokio::select! {
                () = resign.cancelled() => break,
                () = given_up.told() => {}
                () = tokio::time::sleep(pause) => {}
            }
            self.attempt().await;
        }
        self.resign().await;
    }

    async fn ask(&mut self) -> Result<Held, ElectionError> {
        if self.leadership.snapshot().role == Role::Observer {
            return self.lease_store.look().await;
        }
        self.lease_store.take(self.last_token).await
    }

    async fn lead(&mut self, token: u64, sent_at: Duration) {
        let usable_until = self.lease.usable_until(sent_at);
        if self.leadership.extend(token, usable_until, since_boot()) {
            return;
        }
        let Election { target, directory, clock, instance, .. } = &self.election;
        let names: Vec<_> = directory.get().worker_types().cloned().collect();
        let changes = match tokio::time::timeout(self.lease.patience(), load_changes(target, &names)).await {
            Ok(Ok(changes)) => changes,
            Ok(Err(error)) => self.forget(&error.to_string()),
            Err(_) => self.forget("redis does not answer in time"),
        };
        let changes = names.into_iter().zip(changes).filter_map(|(name, change)| Some((name, change?))).collect();
        let since = clock.now();
        self.leadership.begin(Term { token, usable_until, since, changes });
        if self.election.signs.is_carried() {
            // The first renewal carries the canary, which was not written before.
            self.next = Duration::ZERO;
        }
        LeadershipChanged { role: Role::Leader, leader: Some(instance), token: Some(token), problem: None }.emit();
        directory.get().post_all(Source::Leadership);
    }

    #[expect(clippy::unused_self, reason = "says what this candidate does without")]
    fn forget<T>(&self, error: &str) -> Vec<T> {
        tracing::warn!("changes of the previous leader could not be read, cooldowns start over: {error}");
        Vec::new()
    }

    async fn follow(&mut self, held: Held) {
        let before = self.leadership.snapshot();
        let leader = Some((held.instance.clone(), held.token)).filter(|_| held.token > 0);
        let led = self.leadership.follow(leader, None);
        if led || before.token != Some(held.token) || before.problem.is_some() {
            self.tell();
        }
        if led {
            self.election.backend.stand_down().await;
        }
    }

    /// Handles an attempt without an answer: the term in progress continues until its time is over.
    fn fail(&self, error: &ElectionError) {
        if self.leadership.left(since_boot()).is_some() {
            tracing::debug!("the lease was not renewed: {error}");
            return;
        }
        let before = self.leadership.snapshot();
        // Cut off from the lease, this autoscaler does not know whether the leader is, too.
        self.leadership.lapse(error.to_string(), !matches!(error, ElectionError::Refused(_)));
        if before.problem.is_none() || before.leader != self.leadership.snapshot().leader {
            self.tell();
        }
    }

    fn tell(&self) {
        let now = self.leadership.snapshot();
        let (leader, problem) = (now.leader.as_deref(), now.problem.as_deref());
        LeadershipChanged { role: now.role, leader, token: now.token, problem }.emit();
    }

    /// Gives up the lease, if this autoscaler has it. If that fails, the lease ends by itself.
    async fn resign(mut self) {
        if !self.leadership.follow(None, None) {
            return;
        }
        let (name, given_up) = (self.lease_store.name(), self.lease_store.give_up());
        let given_up = tokio::time::timeout(self.lease.patience(), given_up).await;
        match given_up.unwrap_or(Err(ElectionError::Timeout(name))) {
            Ok(true) => self.tell(),
            Ok(false) => {}
            Err(error) => tracing::warn!("the lease could not be given up, it ends by itself: {error}"),
        }
    }
}
