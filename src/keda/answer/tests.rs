use super::{
    fixtures::{fleet, seen},
    *,
};
use crate::model::{Demand, PoolCounts, Reading, WorkerType};

fn trigger(name: &str) -> Trigger {
    Trigger { worker_type: WorkerType::new(name), metric: Metric::Workers }
}

/// The number of workers, the depth, and whether there is work.
type All = (Result<u64, Refusal>, Result<u64, Refusal>, Result<bool, Refusal>);

fn all(fleet: &FleetSnapshot) -> All {
    let answer = Answer::find(fleet, &trigger("a")).unwrap_or_else(|refusal| panic!("{refusal:?}"));
    (answer.value(Metric::Workers), answer.value(Metric::Depth { target: 5.0 }), answer.is_active())
}

fn refused(fleet: &FleetSnapshot) -> String {
    let told = |refusal: Refusal| match refusal {
        Refusal::Unavailable(message) => message,
        other => panic!("{other:?}"),
    };
    let (workers, depth, active) = all(fleet);
    let told = [workers.unwrap_err(), depth.unwrap_err(), active.unwrap_err()].map(told);
    assert!(told.iter().all(|message| *message == told[0]), "{told:?}");
    told.into_iter().next().unwrap()
}

#[test]
fn what_is_known_is_answered() {
    assert_eq!(all(&fleet(vec![seen(7, Some(2))])), (Ok(2), Ok(7), Ok(true)));
    assert_eq!(all(&fleet(vec![seen(0, Some(0))])), (Ok(0), Ok(0), Ok(false)));
}

#[test]
fn a_worker_at_work_is_active_even_if_none_is_recommended() {
    for pool in [
        PoolCounts { ready: 1, busy: 1, ..PoolCounts::default() },
        PoolCounts { ready: 1, possibly_busy: 1, ..PoolCounts::default() },
    ] {
        let seen = TypeSnapshot { pool: Reading::Known(pool), ..seen(0, Some(0)) };
        assert_eq!(all(&fleet(vec![seen])).2, Ok(true));
    }
}

#[test]
fn nothing_unknown_is_answered_as_zero_or_inactive() {
    let unread = TypeSnapshot { demand: Demand::failed("not observed yet"), ..seen(0, None) };
    assert_eq!(refused(&fleet(vec![unread])), "worker type `a`: not observed yet");
    let away = FleetSnapshot { redis_error: Some("redis is away".to_owned()), ..fleet(vec![seen(0, Some(0))]) };
    assert_eq!(refused(&away), "worker type `a`: redis is away");
    let dry = FleetSnapshot { dry_run: true, ..fleet(vec![seen(9, None)]) };
    assert!(refused(&dry).contains("dry_run"));
}

#[test]
fn without_a_number_the_depth_is_still_known() {
    let paused = fleet(vec![seen(3, None)]);
    let (workers, depth, active) = all(&paused);
    assert!(matches!(workers, Err(Refusal::Unavailable(message)) if message.contains("paused")));
    assert!(active.is_err());
    assert_eq!(depth, Ok(3));
    let blind = TypeSnapshot { pool: Reading::Failed("refused".to_owned()), ..seen(3, None) };
    let (workers, depth, _) = all(&fleet(vec![blind]));
    assert_eq!(workers, Err(Refusal::Unavailable("worker type `a`: refused".to_owned())));
    assert_eq!(depth, Ok(3));
}

#[test]
fn an_unknown_type_is_told_the_known_ones() {
    let told = |fleet: &FleetSnapshot| match Answer::find(fleet, &trigger("b")) {
        Err(Refusal::UnknownType(message)) => message,
        _ => panic!("found"),
    };
    assert_eq!(told(&fleet(vec![seen(0, None)])), "there is no worker type `b`; there are a");
    let many = (0..25).map(|number| TypeSnapshot::at_rest(&format!("t{number}"))).collect();
    assert!(told(&fleet(many)).ends_with("t19 and others"));
}
