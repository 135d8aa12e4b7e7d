//! One suite for every backend: what the scaler relies on, whoever runs the workers. A backend joins by implementing
//! [`Rig`] and adding a line at the end.

use std::time::{Duration, Instant};

use crate::support::wait::DEADLINE;
use futures_util::FutureExt;
use swarm::{
    backend::{BackendError, Phase, Pool, ScaleReport, ScaleRequest, ScalingBackend},
    model::{WorkerId, WorkerType},
};

mod command;
mod docker;
mod fly;
mod process;

/// A drain that no test waits for.
const LONG: Duration = Duration::from_secs(600);

/// A backend with one worker type, whose workers do nothing until they are asked to leave, and then leave.
pub(crate) trait Rig: Sized {
    /// Whether a report names the workers that were started, and whoever ended is replaced by nobody else.
    const NAMES_STARTED: bool = true;

    /// Starts it.
    async fn start() -> Self;

    fn backend(&self) -> &dyn ScalingBackend;

    fn worker_type(&self) -> WorkerType;

    /// Waits until the backend has said once more that something changed.
    async fn changed(&mut self);

    /// Makes a worker end by itself, unsuccessfully.
    async fn crash(&self, id: &WorkerId);

    /// From now on no worker can be started, until `true` allows it again.
    async fn allow_starts(&self, allowed: bool);

    /// How many workers exist, counted past the backend.
    async fn count(&self) -> usize;

    /// Waits until the workers that run notice what they are asked to do.
    async fn until_listening(&self) {}

    async fn scale(&self, target: u32, retire: &[WorkerId]) -> Result<ScaleReport, BackendError> {
        let (worker_type, retire) = (self.worker_type(), retire.to_vec());
        self.backend().scale(ScaleRequest { worker_type, target, retire, drain_timeout: LONG }).await
    }

    /// Starts workers until there are `target`; returns those that are new.
    async fn grow(&mut self, target: u32) -> Vec<WorkerId> {
        let before = live(&self.backend().observe(&self.worker_type()).await.unwrap());
        let started = self.scale(target, &[]).await.unwrap().started;
        if Self::NAMES_STARTED {
            self.until_listening().await;
            return started;
        }
        let all_ready =
            |pool: &Pool| pool.instances.iter().filter(|one| one.phase == Phase::Ready).count() == target as usize;
        let pool = self.until("all are ready", all_ready).await;
        live(&pool).into_iter().filter(|id| !before.contains(id)).collect()
    }

    /// Waits until the pool is as wanted, looking whenever the backend says that it changed.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Pool) -> bool) -> Pool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let seen = self.backend().observe(&self.worker_type()).await;
            if let Ok(pool) = &seen
                && wanted(pool)
            {
                return pool.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let told = tokio::time::timeout(left, self.changed()).await;
            assert!(told.is_ok(), "not within {DEADLINE:?}: {what}; last seen: {seen:#?}");
        }
    }

    async fn until_count(&self, count: usize) {
        let deadline = Instant::now() + DEADLINE;
        while self.count().await != count {
            assert!(Instant::now() < deadline, "{} workers, not {count}", self.count().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn live(pool: &Pool) -> Vec<WorkerId> {
    let live = pool.instances.iter().filter(|instance| instance.phase != Phase::Draining);
    live.map(|instance| instance.id.clone()).collect()
}

fn sorted(mut ids: Vec<WorkerId>) -> Vec<WorkerId> {
    ids.sort();
    ids
}

/// Counts, and targets that are absolute.
async fn a_target_is_absolute_and_asking_twice_changes_nothing<R: Rig>(mut rig: R) {
    rig.until("an empty pool", |pool| pool.instances.is_empty()).await;
    let started = rig.grow(3).await;
    assert_eq!(started.len(), 3);
    assert_eq!(rig.scale(3, &[]).await.unwrap(), ScaleReport::default());
    assert_eq!(rig.scale(1, &[]).await.unwrap(), ScaleReport::default(), "nobody was named");
    let pool = rig.until("three workers", |pool| live(pool).len() == 3).await;
    assert_eq!(sorted(live(&pool)), sorted(started));
    assert_eq!((pool.exits, pool.manual), (Vec::new(), Vec::new()));
    rig.until_count(3).await;
    rig.backend().shutdown(true).await;
    rig.until_count(0).await;
}

async fn concurrent_requests_do_not_overshoot<R: Rig>(mut rig: R) {
    rig.until("an empty pool", |pool| pool.instances.is_empty()).await;
    let (a, b) = tokio::join!(rig.scale(4, &[]), rig.scale(3, &[]));
    let started = a.unwrap().started.len() + b.unwrap().started.len();
    assert!(started == 4 || !R::NAMES_STARTED, "{started}");
    rig.until("four workers", |pool| live(pool).len() == 4).await;
    rig.until_count(4).await;
    rig.backend().shutdown(true).await;
}

async fn exactly_the_named_workers_leave<R: Rig>(mut rig: R) {
    rig.until("an empty pool", |pool| pool.instances.is_empty()).await;
    let ids = rig.grow(4).await;
    let retire = [ids[2].clone(), WorkerId::new("nobody"), ids[0].clone()];
    let mut report = rig.scale(2, &retire).await.unwrap();
    let mut expected = vec![ids[2].clone(), ids[0].clone()];
    if !R::NAMES_STARTED {
        // A controller has an order of its own, in which those that were named go.
        (report.retired, expected) = (sorted(report.retired), sorted(expected));
    }
    assert_eq!(report, ScaleReport { started: Vec::new(), retired: expected });
    let stay = sorted(vec![ids[1].clone(), ids[3].clone()]);
    let pool = rig.until("two are gone", |pool| pool.instances.len() == 2).await;
    assert_eq!(sorted(live(&pool)), stay);
    assert_eq!((pool.exits, pool.manual), (Vec::new(), Vec::new()), "they left because they were asked to");
    assert_eq!(rig.scale(2, &retire).await.unwrap(), ScaleReport::default(), "asking again changes nothing");
    rig.until_count(2).await;
    rig.backend().shutdown(true).await;
}

/// What was done before a failure is told, and a retry makes up for the rest and no more.
async fn a_partial_failure_tells_what_was_done_and_a_retry_makes_up_for_the_rest<R: Rig>(mut rig: R) {
    rig.until("an empty pool", |pool| pool.instances.is_empty()).await;
    let ids = rig.grow(2).await;
    rig.until_count(2).await;
    rig.allow_starts(false).await;
    let error = rig.scale(3, &ids[..1]).await.unwrap_err();
    assert_eq!(error.done, ScaleReport { started: Vec::new(), retired: vec![ids[0].clone()] }, "{error}");
    assert!(!error.message.is_empty() && error.message.starts_with(|c: char| !c.is_uppercase()), "{error}");
    let pool = rig.until("one is left", |pool| pool.instances.len() == 1).await;
    assert_eq!(live(&pool), ids[1..]);

    rig.allow_starts(true).await;
    assert_eq!(rig.scale(3, &ids[..1]).await.unwrap().started.len(), 2);
    rig.until("three workers", |pool| live(pool).len() == 3).await;
    rig.until_count(3).await;
    rig.backend().shutdown(true).await;
}

/// A caller that loses patience leaves nothing half done: whoever asks next gets exactly the target.
async fn an_abandoned_request_leaves_nothing_half_done<R: Rig>(mut rig: R) {
    rig.until("an empty pool", |pool| pool.instances.is_empty()).await;
    {
        let mut abandoned = Box::pin(rig.scale(3, &[]));
        // On a loaded machine a quick backend may have finished by then.
        if abandoned.as_mut().now_or_never().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let _ = abandoned.as_mut().now_or_never();
        }
    }
    rig.scale(3, &[]).await.unwrap();
    rig.until("three workers", |pool| live(pool).len() == 3).await;
    rig.until_count(3).await;
    assert_eq!(rig.scale(3, &[]).await.unwrap(), ScaleReport::default());
    rig.backend().shutdown(true).await;
    rig.until_count(0).await;
}

/// The backend says by itself that a worker has ended, which one and how.
async fn a_worker_that_ends_is_noticed_and_can_be_replaced<R: Rig>(mut rig: R) {
    rig.until("an empty pool", |pool| pool.instances.is_empty()).await;
    let ids = rig.grow(2).await;
    rig.until_count(2).await;
    rig.crash(&ids[0]).await;
    let pool = rig.until("an exit", |pool| !pool.exits.is_empty()).await;
    let stay = if R::NAMES_STARTED { &ids[1..] } else { &ids[..] };
    assert_eq!(sorted(live(&pool)), sorted(stay.to_vec()), "a platform that restarts workers has all of them still");
    let exit = &pool.exits[0];
    assert_eq!((exit.seq, &exit.id, exit.success), (1, &ids[0], false), "{exit:?}");
    assert_eq!(pool.manual, Vec::new(), "nobody else changed anything");
    let replaced = rig.scale(2, &[]).await.unwrap().started;
    assert_eq!(replaced.len(), ids.len() - stay.len(), "{replaced:?}");
    assert!(!replaced.contains(&ids[0]));
    rig.until_count(2).await;
    rig.backend().shutdown(true).await;
}

async fn a_stopped_backend_starts_nobody<R: Rig>(mut rig: R) {
    rig.until("an empty pool", |pool| pool.instances.is_empty()).await;
    rig.scale(1, &[]).await.unwrap();
    rig.backend().shutdown(true).await;
    assert!(rig.scale(2, &[]).await.is_err());
    rig.until_count(0).await;
}

async fn an_unknown_worker_type_is_an_error<R: Rig>(mut rig: R) {
    rig.until("an empty pool", |pool| pool.instances.is_empty()).await;
    let unknown = WorkerType::new("unheard-of");
    let error = rig.backend().observe(&unknown).await.unwrap_err();
    assert!(error.message.contains("unheard-of"), "{error}");
    rig.backend().shutdown(true).await;
}

/// The suite over each of some backends.
macro_rules! conforms {
    ($($(#[$attribute:meta])* $name:ident: $rig:ty;)*) => {
        $(conforms! { @ [$(#[$attribute])*] $name $rig:
            a_target_is_absolute_and_asking_twice_changes_nothing
            concurrent_requests_do_not_overshoot
            exactly_the_named_workers_leave
            a_partial_failure_tells_what_was_done_and_a_retry_makes_up_for_the_rest
            an_abandoned_request_leaves_nothing_half_done
            a_worker_that_ends_is_noticed_and_can_be_replaced
            a_stopped_backend_starts_nobody
            an_unknown_worker_type_is_an_error
        })*
    };
    (@ $attributes:tt $name:ident $rig:ty: $($case:ident)*) => {
        mod $name {
            $(conforms! { @case $attributes $rig: $case })*
        }
    };
    (@case [$(#[$attribute:meta])*] $rig:ty: $case:ident) => {
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            super::$case(<$rig as super::Rig>::start().await).await;
        }
    };
}

conforms! {
    on_processes: super::process::Processes;
    #[cfg_attr(without_docker, ignore = "no Docker engine can be had")]
    on_docker: super::docker::Containers;
    on_fly: super::fly::Machines;
    on_command: super::command::Commanded;
    on_command_over_http: super::command::Served;
    on_kubernetes_jobs: crate::kubernetes::conformance::Jobs;
}

// A Deployment has one count: what is asked of it is done as a whole or not at all, so there is no partial failure.
conforms! { @ [] on_kubernetes crate::kubernetes::conformance::Pods:
    a_target_is_absolute_and_asking_twice_changes_nothing
    concurrent_requests_do_not_overshoot
    exactly_the_named_workers_leave
    an_abandoned_request_leaves_nothing_half_done
    a_worker_that_ends_is_noticed_and_can_be_replaced
    a_stopped_backend_starts_nobody
    an_unknown_worker_type_is_an_error
}
