//! What the API does when it does not do what it should.

use std::{num::NonZeroU32, time::Duration};

use swarm::{
    backend::{
        ErrorKind, ScalingBackend,
        fly::{Access, RateLimit},
    },
    config::FlyWorkerSettings,
    model::WorkerId,
};

use super::{
    bench::{Bench, GROUP, POLL, unhurried, up},
    defaults, ids, made,
};
use crate::{
    fake_fly::{FakeFly, Fault, TOKEN},
    support::wait::DEADLINE,
};

/// With a machine to copy, and an API that is given up soon.
async fn impatient() -> Bench {
    let fake = FakeFly::start().await;
    fake.act(|world| world.add_worker("started", GROUP));
    let access = Access { timeout: Duration::from_millis(400), ..unhurried(&fake.url()) };
    let mut bench = Bench::through(fake, defaults(), &access);
    bench.until_up(1).await;
    bench
}

#[tokio::test]
async fn invariant_15_whoever_leads_no_more_makes_and_stops_no_machine() {
    let mut bench = impatient().await;
    let there = up(&bench.pool().await.unwrap());
    bench.backend.act_only_while(Box::new(|| false));
    for (target, retire) in [(3, &[][..]), (0, &there)] {
        let refused = bench.scale(target, retire).await.unwrap_err();
        assert!(refused.kind == ErrorKind::Retryable && refused.message.contains("does not lead"), "{refused}");
    }
    assert_eq!(bench.fake.see(|world| world.requests("POST", "")), 0);
    bench.until_up(1).await;
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_makes_one_machine() {
    for fault in [Fault::Lost, Fault::Cut, Fault::Slow(Duration::from_secs(2))] {
        let mut bench = impatient().await;
        bench.fake.fail("POST", "/machines", fault);
        let started = bench.scale(2, &[]).await.unwrap().started;
        let machines = made(&bench);
        assert_eq!((started.len(), machines.len()), (1, 1), "{fault:?}");
        assert_eq!(started[0].as_str(), machines[0]["id"], "{fault:?}");
        assert_eq!(
            bench.fake.see(|world| world.requests("POST", "/machines")),
            1,
            "{fault:?}: looked up, not repeated"
        );
        assert!(bench.until_up(2).await.contains(&started[0]));
    }
}

#[tokio::test]
async fn a_create_that_was_not_carried_out_is_repeated_under_the_same_name() {
    let mut bench = impatient().await;
    bench.fake.fail("POST", "/machines", Fault::Refused(503, None));
    assert_eq!(bench.scale(2, &[]).await.unwrap().started.len(), 1);
    assert_eq!(bench.fake.see(|world| world.requests("POST", "/machines")), 2);
    bench.until_up(2).await;
}

/// The worst: the answer is lost, and lists don't show the machine yet. It counts all the same, and no second one is
/// made.
#[tokio::test]
async fn a_machine_that_lists_do_not_show_yet_is_not_made_twice() {
    let mut bench = impatient().await;
    bench.fake.act(|world| world.stale = Some(world.list()));
    bench.fake.fail("POST", "/machines", Fault::Lost);
    let error = bench.scale(2, &[]).await.unwrap_err();
    assert!(error.kind == ErrorKind::Retryable && error.message.contains("may have happened"), "{error}");
    assert_eq!(made(&bench).len(), 1, "its name is taken");
    assert_eq!(bench.pool().await.unwrap().instances.len(), 2, "it counts");
    assert!(bench.scale(2, &[]).await.unwrap().started.is_empty());
    bench.fake.act(|world| world.stale = None);
    let id = WorkerId::new(made(&bench)[0]["id"].as_str().unwrap());
    let pool = bench.until("it has a name", |pool| up(pool).contains(&id)).await;
    assert_eq!((up(&pool).len(), pool.manual), (2, vec![]));
}

#[tokio::test]
async fn old_lists_do_not_undo_what_was_done_since() {
    let fake = FakeFly::start().await;
    let (running, stopped) = fake.act(|world| (world.add_worker("started", GROUP), world.add_worker("stopped", GROUP)));
    let mut bench = Bench::on(fake, FlyWorkerSettings { keep_stopped: 5, ..defaults() });
    bench.until_up(1).await;
    bench.fake.act(|world| world.stale = Some(world.list()));
    bench.scale(1, &ids(std::slice::from_ref(&running))).await.unwrap();
    bench.fake.until("they have changed places", |world| world.ids("started") == [stopped.clone()]).await;
    let lists = bench.fake.see(|world| world.requests("GET", "/machines"));
    bench.fake.until("some old lists", |world| world.requests("GET", "/machines") > lists + 5).await;
    let pool = bench.pool().await.unwrap();
    assert_eq!(up(&pool), ids(std::slice::from_ref(&stopped)));
    assert_eq!((pool.manual, pool.exits), (vec![], vec![]));
    assert!(bench.scale(1, &[]).await.unwrap().started.is_empty());
}

#[tokio::test]
async fn leases_of_others_are_respected() {
    let fake = FakeFly::start().await;
    let (running, leased, free) = fake.act(|world| {
        let group = |world: &mut crate::fake_fly::World, state| world.add_worker(state, GROUP);
        (group(world, "started"), group(world, "stopped"), group(world, "stopped"))
    });
    let mut bench = Bench::on(fake, defaults());
    bench.until_up(1).await;
    // Taken after the last list: the refusal tells.
    bench.fake.act(|world| {
        world.lease(&leased, Some("deployment"));
        world.lease(&running, Some("deployment"));
    });
    assert_eq!(bench.scale(2, &[]).await.unwrap().started, ids(std::slice::from_ref(&free)));
    let error = bench.scale(1, &ids(std::slice::from_ref(&running))).await.unwrap_err();
    assert!(error.kind == ErrorKind::Retryable && error.message.contains("lease"), "{error}");
    assert!(up(&bench.pool().await.unwrap()).contains(&WorkerId::new(running.as_str())), "it stays");
    bench.fake.act(|world| world.lease(&running, None));
    bench.scale(1, &ids(std::slice::from_ref(&running))).await.unwrap();
    bench.until("it leaves", |pool| pool.instances.len() == 1).await;
    assert!(bench.fake.see(|world| world.ids("stopped").contains(&leased)));
}

#[tokio::test]
async fn requests_keep_to_the_limits_of_the_api() {
    let fake = FakeFly::start().await;
    fake.act(|world| {
        world.add_worker("started", GROUP);
        world.limited = true;
    });
    // A little slower than the fake, whose clock starts later.
    let rate_limit = RateLimit { every: Duration::from_millis(1_050), burst: NonZeroU32::new(3).unwrap() };
    let access = Access { rate_limit, ..unhurried(&fake.url()) };
    let mut bench = Bench::through(fake, defaults(), &access);
    bench.until_up(1).await;
    let refused = |bench: &Bench| bench.fake.see(|world| world.throttled);
    assert_eq!(bench.scale(6, &[]).await.unwrap().started.len(), 5);
    assert_eq!(refused(&bench), 0, "they waited for their turn");
    bench.backend.shutdown(false).await;
}

#[tokio::test]
async fn too_many_requests_are_repeated_when_the_api_says() {
    let mut bench = impatient().await;
    bench.fake.fail("POST", "/machines", Fault::Refused(429, Some(1)));
    let asked = tokio::time::Instant::now();
    assert_eq!(bench.scale(2, &[]).await.unwrap().started.len(), 1);
    assert!(asked.elapsed() >= Duration::from_secs(1), "not before");
    bench.until_up(2).await;
}

#[tokio::test]
async fn what_can_not_be_read_is_not_zero() {
    let mut bench = impatient().await;
    let down = |bench: &Bench| {
        for _ in 0..1_000 {
            bench.fake.fail("GET", "/machines", Fault::Refused(503, None));
        }
    };
    down(&bench);
    let gave_up = async {
        loop {
            match bench.pool().await {
                Ok(pool) => assert_eq!(up(&pool).len(), 1, "the last list holds as long as it is fresh"),
                Err(error) => return error,
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let error = tokio::time::timeout(DEADLINE, gave_up).await.expect("it is told");
    assert!(error.kind == ErrorKind::Retryable && error.message.contains("fly.io app `shop`"), "{error}");
    assert!(bench.scale(3, &[]).await.is_err(), "nothing is done in the dark");
    bench.fake.act(|world| world.faults.clear());
    bench.until_up(1).await;
}

#[tokio::test]
async fn refusals_name_the_cure_and_no_token() {
    let fake = FakeFly::start().await;
    for (access, cure) in [
        (Access { token: Some("hunter2".into()), ..unhurried(&fake.url()) }, "FLY_API_TOKEN"),
        (Access { base_url: "http://127.0.0.1:9".to_owned(), ..unhurried(&fake.url()) }, "fly.base_url"),
    ] {
        let bench =
            Bench::through(FakeFly::start().await, defaults(), &Access { base_url: access.base_url.clone(), ..access });
        let error = bench.pool().await.unwrap_err();
        assert!(error.message.contains(cure) && !error.message.contains("hunter2"), "{error}");
    }
    let mut bench = impatient().await;
    bench.fake.act(|world| world.read_only = true);
    let error = bench.scale(2, &[]).await.unwrap_err();
    assert!(error.kind == ErrorKind::Permanent && error.message.contains("may only read"), "{error}");
    assert_eq!(bench.until_up(1).await.len(), 1);
}

#[tokio::test]
async fn a_token_in_a_file_is_read_again_when_it_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "expired\n").unwrap();
    let fake = FakeFly::start().await;
    fake.act(|world| world.add_worker("started", GROUP));
    let access = Access { token: None, token_file: Some(file.clone()), ..unhurried(&fake.url()) };
    let mut bench = Bench::through(fake, defaults(), &access);
    assert_eq!(bench.pool().await.unwrap_err().kind, ErrorKind::Permanent);
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    bench.until_up(1).await;
}
