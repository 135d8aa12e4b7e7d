use proptest::prelude::*;

use super::*;
use crate::{
    model::{Counters, Demand},
    probe::{ConsumerPending, Heartbeats, Places},
};

const LIFETIME: Duration = Duration::from_secs(10);

fn instance(name: &str) -> Instance {
    Instance::new(WorkerId::new(name), Phase::Running, Timestamp(1))
}

fn idle() -> Heartbeat {
    Heartbeat { state: WorkerState::Idle, sessions: 0, places: None }
}

fn answer(heartbeats: Vec<Option<Heartbeat>>, holders: &[&str]) -> Answer {
    let consumer = |name: &&str| ConsumerPending { name: (*name).to_owned(), jobs: 1 };
    Answer {
        demand: Demand { lag: Reading::Known(0), pending: Reading::Known(0), oldest: Reading::Known(None) },
        queues: None,
        counters: Counters::default(),
        consumers: Reading::Known(holders.iter().map(consumer).collect()),
        heartbeats: Reading::Known(heartbeats.into_iter().map(Reading::Known).collect()),
        all_exist: true,
        framework: None,
    }
}

/// One look at workers, whose heartbeats are these now.
struct Look {
    /// Whether each of them was read.
    read: Vec<bool>,
    /// Whether of each of them only the existence was asked.
    asked: Vec<bool>,
    heartbeats: Heartbeats,
    is_partial: bool,
}

fn look_with(
    remembered: &mut RememberedHeartbeats,
    workers: &[(Instance, Option<Heartbeat>)],
    now: Instant,
    with: impl FnOnce(Vec<Option<Heartbeat>>) -> Answer,
) -> Look {
    let instances: Vec<_> = workers.iter().map(|(instance, _)| instance.clone()).collect();
    let mut recalled = remembered.recall(&instances, LIFETIME, now);
    let asked: Vec<bool> = recalled.iter().map(|recalled| matches!(recalled, Recalled::IfItExists(_))).collect();
    if workers.iter().zip(&asked).any(|((_, heartbeat), asked)| *asked && heartbeat.is_none()) {
        for recalled in &mut recalled {
            *recalled = recalled.without_existence();
        }
    }
    let read: Vec<bool> = recalled.iter().map(|recalled| *recalled == Recalled::Nothing).collect();
    let wanted = workers.iter().zip(&read).filter(|(_, read)| **read).map(|((_, heartbeat), _)| *heartbeat);
    let mut answer = with(wanted.collect());
    let is_partial = remembered.complete(&mut answer, &instances, recalled, now);
    Look { read, asked, heartbeats: answer.heartbeats, is_partial }
}

fn look(remembered: &mut RememberedHeartbeats, workers: &[(Instance, Option<Heartbeat>)], now: Instant) -> Look {
    look_with(remembered, workers, now, |heartbeats| answer(heartbeats, &[]))
}

#[test]
fn an_idle_worker_is_asked_for_when_its_heartbeat_could_have_lapsed() {
    let (mut remembered, start) = (RememberedHeartbeats::default(), Instant::now());
    let workers = [(instance("a"), Some(idle())), (instance("b"), Some(idle()))];
    let first = look(&mut remembered, &workers, start);
    assert_eq!((first.read, first.is_partial), (vec![true, true], false));
    let before_the_end = look(&mut remembered, &workers, start + LIFETIME - Duration::from_millis(1));
    assert_eq!((before_the_end.read, before_the_end.is_partial), (vec![false, false], true));
    assert_eq!(before_the_end.heartbeats, answer(vec![Some(idle()), Some(idle())], &[]).heartbeats);
    let at_the_end = look(&mut remembered, &workers, start + LIFETIME);
    assert_eq!(at_the_end.asked, [true, true], "a look does not prolong it");
    assert_eq!((at_the_end.read, at_the_end.is_partial), (vec![false, false], true), "they exist");
    let soon = look(&mut remembered, &workers, start + LIFETIME + Duration::from_secs(1));
    assert_eq!((soon.read, soon.asked), (vec![false, false], vec![false, false]));
    let later = look(&mut remembered, &workers, start + 2 * LIFETIME);
    assert_eq!((later.read, later.asked), (vec![false, false], vec![true, true]));
    let at_last = look(&mut remembered, &workers, start + 3 * LIFETIME);
    assert_eq!((at_last.read, at_last.is_partial), (vec![true, true], false), "from time to time");
}

#[test]
fn if_one_of_them_lapsed_each_that_was_asked_for_is_read() {
    let (mut remembered, start) = (RememberedHeartbeats::default(), Instant::now());
    let both = [(instance("a"), Some(idle())), (instance("b"), Some(idle()))];
    look(&mut remembered, &both[..1], start);
    look(&mut remembered, &both, start + LIFETIME / 2);
    let [(a, _), b] = both;
    let one_died = look(&mut remembered, &[(a, None), b], start + LIFETIME);
    assert_eq!((one_died.asked, one_died.read), (vec![true, false], vec![true, false]));
    assert_eq!(one_died.heartbeats, answer(vec![None, Some(idle())], &[]).heartbeats);
}

#[test]
fn workers_that_are_not_idle_are_read_at_each_look() {
    let places = Some(Places { all: 2, free_slots: Some(2), waiting: 0 });
    let others = [
        None,
        Some(Heartbeat { state: WorkerState::Busy, ..idle() }),
        Some(Heartbeat { state: WorkerState::Waiting, ..idle() }),
        Some(Heartbeat { state: WorkerState::Error, ..idle() }),
        Some(Heartbeat { state: WorkerState::Draining, ..idle() }),
        Some(Heartbeat { sessions: 1, ..idle() }),
        Some(Heartbeat { places, ..idle() }),
    ];
    for heartbeat in others {
        let (mut remembered, now) = (RememberedHeartbeats::default(), Instant::now());
        let workers = [(instance("other"), heartbeat), (instance("idle"), Some(idle()))];
        look(&mut remembered, &workers, now);
        let second = look(&mut remembered, &workers, now);
        assert_eq!(second.read, [true, false], "{heartbeat:?}");
        let both = answer(vec![heartbeat, Some(idle())], &[]).heartbeats;
        assert_eq!(second.heartbeats, both, "in the order of the pool");
    }
}

#[test]
fn a_worker_that_holds_a_job_or_may_hold_one_is_read_again() {
    let (mut remembered, now) = (RememberedHeartbeats::default(), Instant::now());
    let workers = [(instance("a"), Some(idle())), (instance("b"), Some(idle()))];
    look(&mut remembered, &workers, now);
    let delivered = |heartbeats| answer(heartbeats, &["a"]);
    assert_eq!(look_with(&mut remembered, &workers, now, delivered).read, [false, false]);
    assert_eq!(look(&mut remembered, &workers, now).read, [true, false], "it held a job at the look before");
    let unknown = |heartbeats| Answer {
        consumers: Reading::Unknown("a list does not tell".to_owned()),
        ..answer(heartbeats, &[])
    };
    look_with(&mut remembered, &workers, now, unknown);
    assert_eq!(look(&mut remembered, &workers, now).read, [true, true]);
}

#[test]
fn a_reading_that_failed_leaves_nothing_and_passes_on_that_it_failed() {
    let (mut remembered, now) = (RememberedHeartbeats::default(), Instant::now());
    let workers = [(instance("a"), Some(idle())), (instance("b"), None)];
    look(&mut remembered, &workers, now);
    let away = look_with(&mut remembered, &workers, now, |_| Answer::failed("redis is away"));
    assert!(matches!(away.heartbeats, Reading::Failed(_)) && !away.is_partial, "{:?}", away.heartbeats);
    assert_eq!(look(&mut remembered, &workers, now).read, [true, true]);
}

#[test]
fn a_heartbeat_that_can_not_be_read_is_not_remembered_and_hides_no_other() {
    let (mut remembered, now) = (RememberedHeartbeats::default(), Instant::now());
    let workers = [(instance("a"), Some(idle())), (instance("b"), Some(idle()))];
    let frozen = |heartbeats| {
        let mut answer = answer(heartbeats, &[]);
        let Reading::Known(all) = &mut answer.heartbeats else { unreachable!("they are known") };
        all[0] = Reading::Failed("its primary is frozen".to_owned());
        answer
    };
    let Reading::Known(all) = look_with(&mut remembered, &workers, now, frozen).heartbeats else { panic!("known") };
    assert!(matches!(all[..], [Reading::Failed(_), Reading::Known(Some(_))]), "{all:?}");
    assert_eq!(look(&mut remembered, &workers, now).read, [true, false]);
}

#[test]
fn workers_that_are_gone_and_news_of_the_backend_are_forgotten() {
    let (mut remembered, now) = (RememberedHeartbeats::default(), Instant::now());
    let (a, b) = ((instance("a"), Some(idle())), (instance("b"), Some(idle())));
    look(&mut remembered, &[a.clone(), b.clone()], now);
    assert_eq!(look(&mut remembered, std::slice::from_ref(&b), now).read, [false]);
    assert_eq!(look(&mut remembered, &[a.clone(), b.clone()], now).read, [true, false], "it was away in between");
    for changed in [
        Instance { phase: Phase::Failing, ..instance("b") },
        Instance { started_at: Timestamp(2), ..instance("b") },
        Instance { began_at: Some(Timestamp(2)), ..instance("b") },
    ] {
        remembered.forget();
        look(&mut remembered, &[a.clone(), b.clone()], now);
        assert_eq!(look(&mut remembered, &[a.clone(), (changed, Some(idle()))], now).read, [false, true]);
    }
    look(&mut remembered, &[a.clone(), b.clone()], now);
    remembered.note_news(&WorkerNews::Of([WorkerId::new("a"), WorkerId::new("c")].into()));
    assert_eq!(look(&mut remembered, &[a.clone(), b.clone()], now).read, [true, false]);
    remembered.note_news(&WorkerNews::OfAny);
    assert_eq!(look(&mut remembered, &[a, b], now).read, [true, true]);
}

/// What can happen to a pool between two looks.
#[derive(Clone, Debug)]
enum Happening {
    Pass(u64),
    Change { worker: usize, heartbeat: usize },
    Forget,
    Fail,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0_u64..8_000).prop_map(Happening::Pass),
        4 => (0_usize..4, 0_usize..4).prop_map(|(worker, heartbeat)| Happening::Change { worker, heartbeat }),
        1 => Just(Happening::Forget),
        1 => Just(Happening::Fail),
    ]
}

proptest! {
    /// A look tells of each worker what is true now, or that it was idle less than three lifetimes ago and had a
    /// heartbeat less than one lifetime ago; the latter only in a look that says so.
    #[test]
    fn whatever_happens_a_heartbeat_is_read_now_or_was_idle_and_there_within_its_lifetime(
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let states = [None, Some(idle()), Some(Heartbeat { state: WorkerState::Busy, ..idle() }),
            Some(Heartbeat { sessions: 1, ..idle() })];
        let (mut remembered, mut now) = (RememberedHeartbeats::default(), Instant::now());
        let mut workers: Vec<_> = ["a", "b", "c", "d"].map(|name| (instance(name), Some(idle()))).to_vec();
        let (mut idle_at, mut there_at) = ([now; 4], [now; 4]);
        for happening in happenings {
            match happening {
                Happening::Pass(ms) => now += Duration::from_millis(ms),
                Happening::Change { worker, heartbeat } => workers[worker].1 = states[heartbeat],
                Happening::Forget => remembered.forget(),
                Happening::Fail => {
                    look_with(&mut remembered, &workers, now, |_| Answer::failed("away"));
                    let seen = look(&mut remembered, &workers, now);
                    prop_assert!(seen.read.iter().all(|read| *read));
                }
            }
            let seen = look(&mut remembered, &workers, now);
            let Reading::Known(told) = seen.heartbeats else { panic!("it was read") };
            for (place, told) in told.into_iter().enumerate() {
                let is_true = told == Reading::Known(workers[place].1);
                let was_idle = told == Reading::Known(Some(idle()))
                    && now < idle_at[place] + LIFETIMES * LIFETIME
                    && now < there_at[place] + LIFETIME;
                prop_assert!(is_true || was_idle && seen.is_partial && !seen.read[place], "{place}: {told:?}");
            }
            for (place, (_, heartbeat)) in workers.iter().enumerate() {
                if *heartbeat == Some(idle()) {
                    idle_at[place] = now;
                }
                if heartbeat.is_some() {
                    there_at[place] = now;
                }
            }
        }
    }
}
