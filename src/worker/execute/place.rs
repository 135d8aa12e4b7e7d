//! Places for sessions: a job that opens one waits for a place, here or on another worker, whichever is free first.

use std::time::Duration;

use tokio::time::sleep;

use super::executor::{End, Executor, Verdict, claim_lost, expired};
use crate::{
    broker::{BrokerError, Delivery, Job, method_of},
    connection::Connection,
    model::WorkerId,
    telemetry::JobOutcome,
    worker::{connection::StepError, sessions::Place},
};

/// Between two looks for a worker with a place for a session.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(500);
/// Jobs that may wait for a place without a slot. More keep their slots, so that no more are taken than can be held.
const MAX_WAITING: usize = 100;

/// A job that waits for a place. It takes no slot meanwhile.
struct Waiting<'a> {
    executor: &'a Executor,
    lends: bool,
}

impl<'a> Waiting<'a> {
    fn begin(executor: &'a Executor) -> Self {
        let mut lends = false;
        executor.status.send_modify(|status| {
            lends = status.waiting < MAX_WAITING;
            status.waiting += 1;
        });
        if lends {
            executor.in_flight.lend_slot();
        }
        Self { executor, lends }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.lends {
            self.executor.in_flight.take_slots(1);
        }
        self.executor.status.send_modify(|status| status.waiting -= 1);
    }
}

impl Executor {
    /// A place for the session that the job opens, if it opens one. While there is none the job waits without a slot, and is
    /// passed on to a worker that has a place. The error is how the job ends instead.
    pub(super) async fn place(&self, delivery: &Delivery, job: &Job, session: &str) -> Result<Option<Place>, End> {
        let method = method_of(&job.job_type, self.config.worker_type.as_str());
        let Some(places) = self.handler.places() else { return Ok(None) };
        if !self.handler.opens_session(method) || self.sessions.held(session) {
            return Ok(None);
        }
        // Those that wait already come first.
        if self.status.borrow().waiting == 0
            && let Some(place) = self.sessions.try_place(session, places)
        {
            return Ok(Some(place));
        }
        tracing::info!(job = job.id, session, places, "no place for a session: its job waits for one");
        let _waiting = Waiting::begin(self);
        loop {
            let freed = self.sessions.place_freed();
            let places = self.handler.places().unwrap_or(usize::MAX);
            if let Some(place) = self.sessions.try_place(session, places) {
                return Ok(Some(place));
            }
            if self.status.borrow().is_leaving() {
                // The handler's claim says so, and the job goes to others.
                return Ok(None);
            }
            if let Some(late_ms) = job.late_ms() {
                return Err(expired(late_ms));
            }
            if let Some(end) = self.pass_on(delivery, job).await {
                return Err(end);
            }
            tokio::select! {
                () = freed => {}
                () = sleep(LOOK_FOR_ROOM) => {}
                () = self.in_flight.revoked(&delivery.stream, &delivery.entry) => return Err(claim_lost()),
            }
        }
    }

    /// Gives the job to another worker that has room for it; `None` if there is none.
    async fn pass_on(&self, delivery: &Delivery, job: &Job) -> Option<End> {
        let (claims, consumer) = (self.sessions.claims(), self.consumer.on(&delivery.stream));
        let passing = async |connection: &mut Connection| -> Result<Option<(WorkerId, bool)>, BrokerError> {
            let Some(to) = claims.with_room(connection, &consumer).await? else { return Ok(None) };
            let given = claims.pass_on(connection, &consumer, (&delivery.entry, delivery.number), &to).await?;
            Ok(Some((to, given)))
        };
        match self.commands.step::<_, StepError>(passing).await {
            Ok(Some((to, true))) => {
                tracing::info!(job = job.id, %to, "job passed on to a worker that has a place for its session");
                Some(End { outcome: JobOutcome::HandedOver, verdict: Verdict::HandedOver, error: None })
            }
            Ok(Some((_, false))) => Some(claim_lost()),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(job = job.id, %error, "can't look for a worker with a place; trying again");
                None
            }
        }
    }
}
