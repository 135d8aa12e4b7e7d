//! Observations of queues that come, go, change and rest are those of going through all queues each time.

mod every_queue;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use self::every_queue::EveryQueue;
use super::*;
use crate::{
    model::{QueuePattern, Queues, Timestamp, WorkerType},
    queue_kind::QueueKind,
    signal::{KeyEvent, WatchedType},
};

const NAMED: [&str; 2] = ["own:jobs", "more:jobs"];

/// More than are shown.
const FOUND: usize = 24;

/// A reading of one queue.
#[derive(Clone, Debug)]
struct Content {
    demand: Demand,
    counters: Counters,
    is_foreign: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// A key is there that nobody knew.
    Appears(usize, Content),
    Vanishes(usize),
    /// A signal names the key.
    Changes(usize, Content),
    /// No signal names the key.
    ChangesUnheard(usize, Content),
    AllMayHaveChanged,
    Observe,
    /// An observation has read its queues and waits for [`Step::Finish`].
    Begin,
    Finish,
}

/// Returns the key of a queue, the named ones first.
fn key(number: usize) -> Arc<str> {
    NAMED.get(number).map_or_else(|| format!("t-{number}").into(), |named| (*named).into())
}

/// The product and its model, side by side.
struct Rig {
    several: Several,
    directory: Directory,
    every: EveryQueue,
    contents: BTreeMap<Arc<str>, Content>,
    all: Reading<()>,
    begun: Option<Begun>,
}

struct Begun {
    current: CurrentQueues,
    answers: Vec<Answer>,
    contents: BTreeMap<Arc<str>, Content>,
}

impl Rig {
    fn new(rule: Combine, kind: QueueKind, all: Reading<()>, empty: &Content) -> Self {
        let mut queues = Queues::one(NAMED[0].to_owned());
        queues.others.push(NAMED[1].to_owned());
        queues.patterns.push(QueuePattern::parse("t-*").expect("it is one"));
        let several = Some(Box::new(crate::signal::Several { queues, group: "g".into() }));
        let worker_type = WorkerType::new("own");
        let watched = WatchedType { worker_type, queue: NAMED[0].into(), kind, several, signals: None };
        let named = NAMED.map(|key| QueueSpec::new(key, "g", kind)).to_vec();
        Self {
            several: Several::new(SeveralSpec { index: 0, combine: rule, named }),
            directory: Directory::new(vec![watched]),
            every: EveryQueue::new(rule, NAMED.map(Into::into).to_vec(), empty.demand.clone()),
            contents: (0..FOUND).map(|number| (key(number), empty.clone())).collect(),
            all,
            begun: None,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Appears(number, content) => {
                // Otherwise the open observation and the next one would have read two different keys of this name.
                if self.begun.as_ref().is_some_and(|begun| begun.contents.contains_key(&key(number))) {
                    self.step(Step::Finish);
                }
                self.contents.insert(key(number), content);
                self.directory.fed_by(key(number).as_bytes(), KeyEvent::Queue, |_| ());
                self.every.appears(&key(number));
            }
            Step::Vanishes(number) => {
                self.directory.forget(0, &key(number));
                self.every.present.remove(&key(number));
            }
            Step::Changes(number, content) => {
                self.contents.insert(key(number), content);
                self.directory.fed_by(key(number).as_bytes(), KeyEvent::Change, |_| ());
                self.every.changes(&key(number));
            }
            Step::ChangesUnheard(number, content) => drop(self.contents.insert(key(number), content)),
            Step::AllMayHaveChanged => {
                self.directory.mark_all(0);
                self.every.all_may_have_changed();
            }
            Step::Observe => {
                let begun = self.begin();
                self.finish(begun);
            }
            Step::Begin if self.begun.is_none() => self.begun = Some(self.begin()),
            Step::Begin => {}
            Step::Finish => {
                if let Some(begun) = self.begun.take() {
                    self.finish(begun);
                }
            }
        }
    }

    fn begin(&mut self) -> Begun {
        let current = CurrentQueues { all: self.all.clone(), ..self.several.current(&self.directory) };
        let unread: Vec<Arc<str>> = current.unread().map(|part| part.spec.key.clone()).collect();
        assert_eq!(unread, self.every.current(), "queues to read");
        let answer = |part: &Arc<Part>| {
            let Content { demand, counters, is_foreign } = self.contents[&part.spec.key].clone();
            part.remembered().is_foreign = is_foreign;
            Answer { demand, counters, ..Answer::failed("not of interest") }
        };
        let answers = current.unread().map(answer).collect();
        let contents: BTreeMap<_, _> = unread.iter().map(|key| (key.clone(), self.contents[key].clone())).collect();
        self.every.reads(&contents);
        Begun { current, answers, contents }
    }

    fn finish(&mut self, begun: Begun) {
        let Begun { current, answers, contents } = begun;
        let Answer { demand, queues, counters, .. } = self.several.answer(&current, answers, &self.directory);
        let expected = self.every.answer(&contents, &self.all);
        assert_eq!((demand, (*queues.expect("it has several")).clone(), counters), expected);
    }
}

fn reading<T: std::fmt::Debug + Clone + 'static>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Reading<T>> {
    prop_oneof![
        6 => value.prop_map(Reading::Known),
        1 => Just(Reading::Unknown("cannot tell".to_owned())),
        1 => Just(Reading::Failed("timed out".to_owned())),
    ]
}

fn counters() -> impl Strategy<Value = Counters> {
    let count = || prop_oneof![8 => (0_u64..100).prop_map(Some), 1 => Just(Some(u64::MAX)), 1 => Just(None)];
    (count(), count()).prop_map(|(added, read)| Counters { added, read, ..Counters::default() })
}

fn known_counters() -> impl Strategy<Value = Counters> {
    (0_u64..100, 0_u64..100).prop_map(|(added, read)| Counters {
        added: Some(added),
        read: Some(read),
        ..Counters::default()
    })
}

/// A queue that does not rest.
fn busy() -> impl Strategy<Value = Demand> {
    let oldest = || prop::option::of((0_u64..1_000).prop_map(Timestamp));
    let jobs = || prop_oneof![9 => 0_u64..4, 1 => Just(u64::MAX)];
    prop_oneof![
        4 => (1_u64..4, jobs(), oldest())
            .prop_map(|(lag, pending, oldest)| Demand {
                lag: Reading::Known(lag),
                pending: Reading::Known(pending),
                oldest: Reading::Known(oldest),
            }),
        1 => (reading(1_u64..4), reading(jobs()), reading(oldest()))
            .prop_map(|(lag, pending, oldest)| Demand { lag, pending, oldest }),
        1 => Just(Demand::failed("timed out")),
    ]
}

fn content(empty: &Demand) -> impl Strategy<Value = Content> + use<> {
    let readable = |(demand, counters)| Content { demand, counters, is_foreign: false };
    let is_foreign = true;
    let foreign = Content { demand: Demand::failed("WRONGTYPE"), counters: Counters::default(), is_foreign };
    prop_oneof![
        8 => (Just(empty.clone()), known_counters()).prop_map(readable),
        4 => (busy(), known_counters()).prop_map(readable),
        1 => (busy(), counters()).prop_map(readable),
        1 => Just(foreign),
    ]
}

fn step(empty: &Demand) -> impl Strategy<Value = Step> + use<> {
    let named = NAMED.len();
    let found = || named..FOUND;
    prop_oneof![
        6 => (found(), content(empty)).prop_map(|(number, content)| Step::Appears(number, content)),
        1 => found().prop_map(Step::Vanishes),
        4 => (0..FOUND, content(empty)).prop_map(|(number, content)| Step::Changes(number, content)),
        1 => (0..FOUND, content(empty)).prop_map(|(number, content)| Step::ChangesUnheard(number, content)),
        1 => Just(Step::AllMayHaveChanged),
        4 => Just(Step::Observe),
        1 => Just(Step::Begin),
        1 => Just(Step::Finish),
    ]
}

/// What an empty queue of this kind looks like.
fn empty() -> impl Strategy<Value = (QueueKind, Demand)> {
    let of = |pending| Demand { lag: Reading::Known(0), pending, oldest: Reading::Known(None) };
    prop_oneof![
        2 => Just((QueueKind::Stream, of(Reading::Known(0)))),
        1 => Just((QueueKind::List, of(Reading::Unknown("cannot tell".to_owned())))),
    ]
}

fn all() -> impl Strategy<Value = Reading<()>> {
    prop_oneof![
        8 => Just(Reading::Known(())),
        1 => Just(Reading::Unknown("still looking".to_owned())),
        1 => Just(Reading::Failed("SCAN is refused".to_owned())),
    ]
}

proptest! {
    #[test]
    fn an_observation_is_as_if_it_had_gone_through_all_queues(
        ((kind, empty), steps) in empty().prop_flat_map(|(kind, empty)| {
            let steps = prop::collection::vec(step(&empty), 1..120);
            (Just((kind, empty)), steps)
        }),
        rule in prop_oneof![Just(Combine::Sum), Just(Combine::Max)],
        all in all(),
    ) {
        let empty = Content { demand: empty, counters: Counters::default(), is_foreign: false };
        let mut rig = Rig::new(rule, kind, all, &empty);
        for step in steps.into_iter().chain([Step::Finish, Step::Observe]) {
            rig.step(step);
        }
    }
}

#[test]
fn a_queue_that_rests_is_not_read_until_a_signal_names_it() {
    let demand = Demand { lag: Reading::Known(0), pending: Reading::Known(0), oldest: Reading::Known(None) };
    let empty = Content { demand, counters: Counters::default(), is_foreign: false };
    let mut rig = Rig::new(Combine::Sum, QueueKind::Stream, Reading::Known(()), &empty);
    for number in NAMED.len()..FOUND {
        rig.step(Step::Appears(number, empty.clone()));
    }
    rig.step(Step::Observe);
    assert_eq!(rig.several.current(&rig.directory).unread().count(), NAMED.len());
    rig.directory.fed_by(key(7).as_bytes(), KeyEvent::Change, |_| ());
    let current = rig.several.current(&rig.directory);
    let unread: BTreeSet<_> = current.unread().skip(NAMED.len()).map(|part| part.spec.key.clone()).collect();
    assert_eq!(unread, [key(7)].into());
    let of_named = vec![Answer { demand: empty.demand.clone(), ..Answer::failed("not of interest") }; NAMED.len()];
    let missing = CurrentQueues { unread: current.unread[..NAMED.len()].to_vec(), ..current };
    let total = rig.several.answer(&missing, of_named, &rig.directory).demand;
    assert_eq!(total, Demand::failed("key `t-7`: the queue was not read"));
}
