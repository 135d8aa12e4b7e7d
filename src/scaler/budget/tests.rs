use super::{fixtures::decision, *};
use crate::{
    config::WorkerTypeSettings,
    signal::{Directories, Directory, WatchedType},
};

fn settings(total: Option<u32>) -> Settings {
    let names = ["a", "b"].map(|name| (name.to_owned(), WorkerTypeSettings::default()));
    let mut settings = Settings { worker_types: names.into_iter().collect(), ..Settings::default() };
    settings.scaler.max_total_workers = total;
    settings
}

fn directory() -> Arc<CurrentDirectory> {
    let watched = |name: &str| WatchedType {
        worker_type: WorkerType::new(name),
        queue: format!("{name}:jobs").into(),
        kind: crate::queue_kind::QueueKind::Stream,
        several: None,
        signals: None,
    };
    CurrentDirectory::new(Directories::new(vec![Arc::new(Directory::new(vec![watched("a"), watched("b")]))]))
}

fn is_woken(directory: &CurrentDirectory, index: u32) -> bool {
    let directories = directory.get();
    let mailbox = directories.all()[0].mailbox(index);
    let signals = mailbox.take();
    mailbox.observing();
    signals.is_some_and(|signals| signals.contains(Source::Budget))
}

fn evaluate(budget: &Budget, name: &str, current: u32, wanted: u32) -> Decision {
    let pool = Reading::Known(PoolCounts { ready: current, ..PoolCounts::default() });
    budget.decide(&WorkerType::new(name), &pool, Participation { acts: true, grows: true }, |allowance| {
        let target = allowance.map_or(wanted, |allowance| allowance.workers.min(wanted));
        decision(current, target, allowance)
    })
}

#[test]
fn without_a_budget_nothing_is_limited_and_nobody_is_woken() {
    let directory = directory();
    let budget = Budget::new(directory.clone());
    budget.configure(&settings(None));
    assert_eq!(evaluate(&budget, "a", 0, 9).target, 9);
    assert_eq!(evaluate(&budget, "b", 0, 9).target, 9);
    assert!(!is_woken(&directory, 0) && !is_woken(&directory, 1));
}

#[test]
fn a_free_place_wakes_the_pool_through_its_mailbox() {
    let directory = directory();
    let budget = Budget::new(directory.clone());
    budget.configure(&settings(Some(3)));
    evaluate(&budget, "a", 3, 3);
    evaluate(&budget, "b", 0, 0);
    for index in 0..2 {
        is_woken(&directory, index);
    }
    assert_eq!(evaluate(&budget, "b", 0, 1).target, 0);
    budget.configure(&settings(Some(3)));
    assert!(!is_woken(&directory, 1), "nobody wakes itself");
    evaluate(&budget, "a", 2, 2);
    assert!(is_woken(&directory, 1));
    assert_eq!(evaluate(&budget, "b", 0, 1).target, 1);
}

#[test]
fn a_reload_wakes_everybody_if_it_changes_the_budget() {
    let directory = directory();
    let budget = Budget::new(directory.clone());
    for (total, expected) in [(Some(3), true), (Some(3), false), (Some(4), true), (None, true), (None, false)] {
        budget.configure(&settings(total));
        assert_eq!([is_woken(&directory, 0), is_woken(&directory, 1)], [expected; 2], "{total:?}");
    }
}
