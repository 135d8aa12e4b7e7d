//! Platforms that make up the ids of workers, or have only a number of them.

use swarm::{
    backend::{Phase, Pool, Removal, ScaleReport, ScalingBackend},
    model::WorkerId,
};

use super::bench::{Bench, by_number, counted, mail};
use crate::support::wait::DEADLINE;

fn listed(pool: &Pool) -> Vec<&str> {
    pool.instances.iter().map(|one| one.id.as_str()).filter(|id| id.starts_with("w-")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_the_platform_makes_up_come_from_the_list() {
    let mut bench = Bench::start(counted);
    assert_eq!(bench.scale(3, &[]).await.unwrap(), ScaleReport::default(), "nobody knows their ids yet");
    assert_eq!(bench.scale(3, &[]).await.unwrap(), ScaleReport::default());
    let pool = bench.until("three workers", |pool| listed(pool).len() == 3).await;
    assert_eq!((pool.instances.len(), pool.manual, pool.exits), (3, Vec::new(), Vec::new()));
    let report = bench.scale(2, &["w-2"]).await.unwrap();
    assert_eq!(report.retired, [WorkerId::new("w-2")]);
    bench.until("two workers", |pool| listed(pool) == ["w-1", "w-3"]).await;
    assert_eq!(bench.running(), ["w-1", "w-3"]);
    bench.backend.shutdown(true).await;
    assert_eq!(bench.running(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_falls_by_those_that_the_platform_removes_first() {
    let mut bench = Bench::start(|| swarm::config::CommandSettings {
        removes: swarm::config::Removes::Newest,
        ..by_number("newest")
    });
    bench.scale(4, &[]).await.unwrap();
    let pool = bench.until("four workers", |pool| listed(pool).len() == 4).await;
    let order = ["w-4", "w-3", "w-2", "w-1"].map(|id| vec![WorkerId::new(id)]);
    assert_eq!(pool.removal, Removal::ByOrder(order.to_vec()));
    let report = bench.scale(2, &["w-4", "w-3"]).await.unwrap();
    assert_eq!(report.retired, ["w-4", "w-3"].map(WorkerId::new));
    assert_eq!(bench.running(), ["w-1", "w-2"]);
    let pool = bench.until("two workers", |pool| pool.instances.len() == 2).await;
    assert_eq!((pool.exits, pool.manual), (Vec::new(), Vec::new()));
    bench.backend.shutdown(false).await;
    assert_eq!(bench.running(), ["w-1", "w-2"], "they go on without the scaler");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_does_not_drain_keeps_the_number_and_everybody_goes_on_working() {
    let mut bench = Bench::start(|| by_number("newest"));
    bench.scale(3, &[]).await.unwrap();
    bench.until("three workers", |pool| listed(pool).len() == 3).await;
    bench.drains.busy.lock().unwrap().insert(WorkerId::new("w-1"));
    // Undeclared, the platform may remove any of them.
    let error = bench.scale(1, &["w-3", "w-2"]).await.unwrap_err();
    assert!(error.message.contains("worker `w-1` has not drained within"), "{error}");
    assert_eq!(bench.running(), ["w-1", "w-2", "w-3"]);
    assert!(bench.drains.asked.lock().unwrap().is_empty(), "they may take jobs again");

    bench.drains.busy.lock().unwrap().clear();
    bench.scale(1, &["w-3", "w-2"]).await.unwrap();
    assert_eq!(bench.running(), ["w-1"]);
    assert!(!bench.drains.asked.lock().unwrap().contains(&WorkerId::new("w-1")), "it stays, and may take jobs");
    let pool = bench.until("one worker", |pool| listed(pool) == ["w-1"] && pool.instances.len() == 1).await;
    assert!(pool.instances.iter().all(|one| one.phase == Phase::Running), "{pool:?}");
    bench.backend.shutdown(false).await;
}

/// The command did its work and was killed before it could say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_jobs_again_while_the_number_may_have_fallen() {
    let killed = "\"$0\" scale \"$1\" newest; [ \"$1\" != 1 ] || kill -9 $$";
    let mut bench = Bench::start(|| {
        let mut settings = by_number("newest");
        let (program, target) = (settings.scale[0].clone(), "{target}".to_owned());
        settings.scale = vec!["sh".to_owned(), "-c".to_owned(), killed.to_owned(), program, target];
        settings
    });
    bench.scale(3, &[]).await.unwrap();
    bench.until("three workers", |pool| listed(pool).len() == 3).await;
    let error = bench.scale(1, &["w-3", "w-2"]).await.unwrap_err();
    assert!(error.message.contains("ended with signal 9"), "{error}");
    assert_eq!(bench.drains.asked.lock().unwrap().len(), 3, "whoever may be removed takes no jobs");
    bench.until("one worker", |pool| listed(pool) == ["w-1"]).await;
    bench.backend.shutdown(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_without_room_is_an_error_and_the_next_try_asks_for_the_rest() {
    let mut bench = Bench::start(|| by_number("oldest"));
    bench.scale(1, &[]).await.unwrap();
    bench.until("one worker", |pool| listed(pool).len() == 1).await;
    bench.allow_starts(false);
    let error = bench.scale(3, &[]).await.unwrap_err();
    assert!(error.message.contains("exit code 75: no room for another worker"), "{error}");
    bench.until("no more than that", |pool| pool.instances.len() == 1).await;
    bench.allow_starts(true);
    bench.scale(3, &[]).await.unwrap();
    bench.until("three workers", |pool| listed(pool).len() == 3).await;
    bench.backend.shutdown(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_fails_makes_the_pool_unknown_and_not_empty() {
    let mut bench = Bench::start(counted);
    bench.scale(1, &[]).await.unwrap();
    bench.until("one worker", |pool| listed(pool).len() == 1).await;
    std::fs::write(bench.path().join("workers/nonsense"), "Error: not logged in\n").unwrap();
    let deadline = std::time::Instant::now() + DEADLINE;
    let error = loop {
        match bench.backend.observe(&mail()).await {
            Err(error) => break error,
            Ok(pool) => assert_eq!(listed(&pool), ["w-1"], "the last good list holds for a while"),
        }
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(error.message.contains("expected one JSON object"), "{error}");
    std::fs::remove_file(bench.path().join("workers/nonsense")).unwrap();
    bench.until("it is known again", |pool| listed(pool) == ["w-1"]).await;
    bench.backend.shutdown(false).await;
}
