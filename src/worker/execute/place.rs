//! Places for sessions: a job that opens a session waits for a place, on this worker or on another one, whichever is
//! free first.

use std::time::Duration;

use tokio::time::sleep;

use super::executor::{End, Executor, Verdict, claim_lost, expired, stopped};
use crate::{
    broker::{BrokerError, Delivery, Job, method_of},
    connection::Connection,
    model::WorkerId,
    telemetry::JobOutcome,
    worker::{connection::StepError, sessions::Place},
};

/// Pause between two searches for a worker that has a place for a session.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(500);
/// Maximum jobs that wait for a place without a slot. Further jobs keep their slots, so that the worker does not take
/// more jobs than it can hold.
const MAX_WAITING: usize = 100;

/// A job that waits for a place. Meanwhile it takes no slot.
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
    /// Returns a place for the session that the job opens; `None` if the job needs no place, or if this worker is
    /// leaving. While there is no place, the job waits without a slot, and is passed on as soon as another worker has a
    /// place. The error is how the job ends instead.
    pub(super) async fn place(&self, delivery: &Delivery, job: &Job, session: &str) -> Result<Option<Place>, End> {
        let method = method_of(&job.job_type, self.config.worker_type.as_str());
        let Some(places) = self.handler.places() else { return Ok(None) };
        if !self.handler.opens_session(method) || self.sessions.held(session) {
            return Ok(None);
        }
        // Jobs that already wait come first.
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
                // The handler's claim fails for the same reason, and the job goes to another worker.
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
                stop = self.in_flight.stopped(&delivery.stream, &delivery.entry) => return Err(stopped(stop)),
            }
        }
    }

    /// Passes the job on to another worker that has room for it; returns `None` if no worker has.
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
