//! Tests of cases that no decision causes in a whole simulation.

use super::*;
use crate::simulation::{TraceOptions, trace::TraceJob};

#[test]
fn what_a_worker_has_not_finished_when_its_drain_ends_is_done_again() {
    let setup = Setup {
        worker_type: WorkerType::new("browser"),
        settings: WorkerTypeSettings::default(),
        scaler: ScalerSettings::default(),
        startup: Times::Fixed(Duration::ZERO),
        initial: 2,
        tail: Duration::from_secs(60),
        seed: TraceOptions::default().seed,
    };
    let job = TraceJob { arrives: SimTime::START, service: Duration::from_secs(8) };
    let trace = Trace { begins: Timestamp(0), lasts: Duration::ZERO, jobs: vec![job; 2], services: String::new() };
    let mut engine = Engine::new(&setup, &trace, Duration::from_secs(60));
    engine.begin();
    engine.arrive();
    let busy = engine.pool.list().instances.into_iter().map(|instance| instance.id).take(1).collect();
    let drain_timeout = Duration::from_secs(5);
    let leave = ScaleRequest { worker_type: setup.worker_type.clone(), target: 1, retire: busy, drain_timeout };
    engine.scale(&leave);
    engine.settle();
    assert_eq!((engine.pool.counts().ready, engine.pool.counts().draining, engine.pool.counts().busy), (1, 1, 2));
    while let Some((at, next)) = engine.next().filter(|(at, _)| *at < SimTime(20_000_000)) {
        engine.step(at, next);
    }
    let report = engine.finish(SimTime(60_000_000));
    assert_eq!((report.finished, report.redone), (2, 1));
    assert!(report.wait_seconds.max == 0.0, "both were begun at once: {:?}", report.wait_seconds);
    // The other five seconds of work were lost.
    assert!((report.busy_hours * 3_600.0 - 21.0).abs() < 1e-6, "{}", report.busy_hours * 3_600.0);
}
