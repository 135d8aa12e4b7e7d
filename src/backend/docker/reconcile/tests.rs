use std::{sync::Arc, time::Duration};

use bollard::models::ContainerInspectResponse;

use super::*;
use crate::{
    backend::docker::{
        container_template::{ContainerTemplate, Owner},
        view::Health,
    },
    backend::{BackendError, ManualScale, Phase},
    model::WorkerType,
};

const RUNNING: State = State::Running(Health::Unchecked);

/// The registry, and the engine that it is about.
struct World {
    registry: WorkerRegistry,
    worker_type: WorkerType,
    template: Arc<ContainerTemplate>,
    containers: Vec<Seen>,
    now: u64,
}

impl World {
    fn new() -> Self {
        let worker_type = WorkerType::new("browser");
        let owner = Owner { worker_type: &worker_type, project: "shop", service: "w" };
        let template = Arc::new(ContainerTemplate::of_container(ContainerInspectResponse::default(), owner));
        let mut world =
            Self { registry: WorkerRegistry::default(), worker_type, template, containers: Vec::new(), now: 1_000 };
        world.list(&Facts::default());
        world
    }

    fn owner(&self) -> Owner<'_> {
        Owner { worker_type: &self.worker_type, project: "shop", service: "w" }
    }

    /// A list, and what it changed.
    fn list(&mut self, facts: &Facts) -> bool {
        let list = self.registry.begin_list();
        self.apply(list, &self.containers.clone(), facts)
    }

    fn apply(&mut self, list: u64, seen: &[Seen], facts: &Facts) -> bool {
        self.now += 1_000;
        self.registry.reconcile(list, seen, facts, Timestamp(self.now))
    }

    /// Starts workers as the backend does.
    fn start(&mut self, target: u32) -> Vec<String> {
        let tickets = self.registry.reserve(&self.template, self.owner(), target, Timestamp(self.now)).unwrap();
        let start = |ticket: super::super::worker_registry::Ticket| {
            let container = ticket.spare.clone().unwrap_or_else(|| format!("id-{}", ticket.identity.number));
            let mut seen = ours(&container, ticket.identity.number, RUNNING);
            seen.launch = Some(ticket.identity.launch.clone());
            seen.worker = Some(ticket.identity.worker.clone());
            self.containers.retain(|other| other.id != container);
            self.containers.push(seen);
            self.registry.started(&ticket, &container);
            container
        };
        tickets.into_iter().map(start).collect()
    }

    fn set(&mut self, container: &str, state: State) {
        self.containers.iter_mut().find(|seen| seen.id == container).unwrap().state = state;
    }

    fn manual(&self) -> Vec<(u32, u32)> {
        let pool = self.registry.pool(Timestamp(self.now)).unwrap();
        pool.manual.iter().map(|ManualScale { from, to, .. }| (*from, *to)).collect()
    }

    fn exits(&self) -> Vec<String> {
        self.registry.pool(Timestamp(self.now)).unwrap().exits.into_iter().map(|exit| exit.detail).collect()
    }

    fn live(&self) -> u32 {
        self.registry.live()
    }
}

fn ours(id: &str, number: u32, state: State) -> Seen {
    Seen {
        id: id.to_owned(),
        name: format!("shop-w-{number}"),
        project: "shop".to_owned(),
        service: "w".to_owned(),
        number: Some(number),
        launch: Some(format!("launch-{id}")),
        worker: Some(WorkerId::new(format!("worker-{id}"))),
        template: None,
        from_settings: false,
        state,
        created_at: Timestamp(u64::from(number)),
    }
}

/// A container that Compose made, and what an inspection says of it.
fn composed(facts: &mut Facts, id: &str, number: u32, state: State) -> Seen {
    let known = Known { worker: WorkerId::new(id), started_at: Timestamp(1) };
    facts.strangers.insert(id.to_owned(), known);
    Seen { launch: None, worker: None, ..ours(id, number, state) }
}

fn ended(container: &str, code: i64) -> Facts {
    Facts { endings: HashMap::from([(container.to_owned(), ContainerExit::of(code, false))]), ..Facts::default() }
}

#[test]
fn what_is_there_at_the_start_and_what_we_start_is_nobody_elses_doing() {
    let mut world = World::new();
    world.registry = WorkerRegistry::default();
    let mut facts = Facts::default();
    world.containers = vec![ours("a", 3, RUNNING), composed(&mut facts, "b", 5, RUNNING)];
    assert!(world.list(&facts));
    assert_eq!((world.live(), world.manual()), (2, vec![]));
    assert_eq!(world.start(4), ["id-6", "id-7"], "no number is used twice");
    assert!(!world.list(&Facts::default()), "nothing new");
    assert_eq!((world.live(), world.manual()), (4, vec![]));
}

#[test]
fn containers_that_come_and_go_without_us_are_manual_changes() {
    let mut world = World::new();
    let mine = world.start(2);
    let mut facts = Facts::default();
    world.containers.push(composed(&mut facts, "b", 9, RUNNING));
    world.list(&facts);
    world.containers.retain(|seen| seen.id != mine[0]);
    world.list(&Facts::default());
    let stop = Facts { signalled: HashSet::from([mine[1].clone()]), ..Facts::default() };
    world.list(&stop);
    assert_eq!(world.manual(), [(2, 3), (3, 2), (2, 1)]);
    world.set(&mine[1], State::Ended);
    world.list(&ended(&mine[1], 143));
    assert_eq!((world.exits(), world.manual().len()), (vec![], 3), "it ended because it was told to");
}

#[test]
fn what_ends_with_the_engine_is_nobodys_wish_and_no_crash() {
    let mut world = World::new();
    let ids = world.start(3);
    world.list(&Facts::default());
    // The engine is back and lists for a moment what it is just about to stop.
    world.list(&Facts { was_away: true, ..Facts::default() });
    let stop = |signalled: HashSet<String>| Facts { in_outage: signalled.clone(), signalled, ..Facts::default() };
    world.list(&stop(HashSet::from([ids[0].clone()])));
    assert_eq!((world.live(), world.manual()), (2, vec![]));
    world.set(&ids[0], State::Ended);
    world.list(&ended(&ids[0], 137));
    world.containers.retain(|seen| seen.id != ids[1]);
    world.list(&Facts { was_away: true, ..Facts::default() });
    assert_eq!((world.live(), world.exits(), world.manual()), (1, vec![], vec![]));
}

#[test]
fn an_end_is_an_exit_once_unless_the_engine_was_away() {
    let mut world = World::new();
    let ids = world.start(3);
    world.list(&ended(&ids[0], 3));
    assert_eq!((world.exits(), world.live()), (vec![], 3), "the list does not know of it yet");
    world.set(&ids[0], State::Ended);
    world.list(&ended(&ids[0], 3));
    world.list(&ended(&ids[0], 3));
    assert_eq!((world.exits(), world.live()), (vec!["exit code 3".to_owned()], 2));

    world.set(&ids[1], State::Ended);
    world.list(&Facts { was_away: true, ..ended(&ids[1], 137) });
    assert_eq!((world.exits().len(), world.live(), world.manual()), (1, 1, vec![]));

    let restarted = HashSet::from([ids[2].clone()]);
    world.list(&Facts { restarted, ..ended(&ids[2], 1) });
    let pool = world.registry.pool(Timestamp(world.now)).unwrap();
    assert_eq!((pool.exits.len(), pool.instances[0].phase), (2, Phase::Failing), "it ended, and runs again");
    let later = Timestamp(world.now + Duration::from_secs(61).as_secs() * 1_000);
    assert_eq!(world.registry.pool(later).unwrap().instances[0].phase, Phase::Running);
}

#[test]
fn facts_stay_until_a_list_knows_of_them() {
    let mut facts = ended("a", 1);
    facts.endings.insert("b".to_owned(), ContainerExit::of(2, false));
    facts.signalled.insert("c".to_owned());
    assert!(facts.settle(&[ours("a", 1, State::Ended), ours("b", 2, RUNNING)]));
    assert_eq!((facts.endings.keys().map(String::as_str).collect::<Vec<_>>(), facts.signalled.len()), (vec!["b"], 0));
    assert!(!facts.settle(&[ours("b", 2, State::Ended)]));
}

#[test]
fn an_older_list_neither_brings_back_nor_takes_away() {
    let mut world = World::new();
    let ids = world.start(1);
    world.list(&Facts::default());
    let (list, before) = (world.registry.begin_list(), world.containers.clone());
    let later = world.start(2);
    world.registry.forget(&ids[0]);
    world.apply(list, &before, &Facts::default());
    assert_eq!((world.live(), world.manual()), (1, vec![]), "one has left, one is too new for that list");
    world.containers.retain(|seen| seen.id == later[0]);
    world.list(&Facts::default());
    assert_eq!((world.live(), world.manual()), (1, vec![]));
}

#[test]
fn what_was_started_in_doubt_is_taken_over_in_silence() {
    let mut world = World::new();
    let ticket = world.registry.reserve(&world.template, world.owner(), 1, Timestamp(0)).unwrap().remove(0);
    world.registry.cancel(&ticket);
    let mut late = ours("late", ticket.identity.number, RUNNING);
    late.launch = Some(ticket.identity.launch.clone());
    world.containers.push(late);
    world.list(&Facts::default());
    assert_eq!((world.live(), world.manual()), (1, vec![]));
}

#[test]
fn spares_are_no_workers_and_are_started_first_if_they_fit() {
    let mut world = World::new();
    let fitting = Seen { template: Some(world.template.fingerprint.clone()), ..ours("fits", 4, State::Created) };
    let other = Seen { template: Some("other".to_owned()), ..ours("other", 5, State::Created) };
    world.containers = vec![fitting, other];
    assert!(!world.list(&Facts::default()), "nobody sees a difference");
    assert_eq!(world.registry.useless_spares(&world.template.fingerprint, 0, Timestamp(3)), ["other"]);
    world.containers.truncate(1);
    world.list(&Facts::default());
    assert_eq!(world.start(2), ["fits", "id-6"]);
    world.list(&Facts::default());
    assert_eq!((world.live(), world.manual()), (2, vec![]));

    let spare = Seen { template: Some(world.template.fingerprint.clone()), ..ours("spare", 8, State::Created) };
    world.containers.push(spare);
    world.list(&Facts::default());
    world.set("spare", RUNNING);
    world.list(&Facts::default());
    assert_eq!(world.manual(), [(2, 3)], "somebody else started it");
}

#[test]
fn of_ended_containers_the_newest_stays_while_nothing_else_can_be_the_example() {
    let mut world = World::new();
    world.containers = vec![ours("old", 1, State::Ended), ours("new", 2, State::Ended)];
    world.list(&Facts::default());
    let soon = Timestamp(world.now);
    assert_eq!(world.registry.to_clean(Timestamp(0), true), Vec::<String>::new(), "they rest first");
    assert_eq!(world.registry.to_clean(soon, true), ["old"]);
    assert_eq!(world.registry.to_clean(soon, false), ["old", "new"]);
    world.start(1);
    assert_eq!(world.registry.to_clean(soon, true), ["old", "new"]);
}

#[test]
fn an_engine_that_can_not_be_asked_makes_the_pool_unknown() {
    let mut world = World::new();
    world.start(2);
    let why = BackendError::permanent("away".to_owned());
    assert!(world.registry.lose_sight(why.clone()));
    assert!(!world.registry.lose_sight(why), "nothing new");
    assert_eq!(world.registry.pool(Timestamp(0)).unwrap_err().message, "away");
    assert!(world.list(&Facts { was_away: true, ..Facts::default() }), "known again");
    assert_eq!(world.live(), 2);
}

#[test]
fn a_worker_that_does_not_work_says_why() {
    let mut world = World::new();
    let [container] = world.start(1).try_into().unwrap();
    let reason = |world: &World| world.registry.pool(Timestamp(world.now)).unwrap().instances[0].reason.clone();
    world.list(&Facts::default());
    assert_eq!(reason(&world), None);

    world.set(&container, State::Running(Health::Unhealthy));
    assert_eq!(world.registry.newly_unhealthy(&world.containers), std::slice::from_ref(&container));
    let said = HashMap::from([(container.clone(), "no heartbeat".to_owned())]);
    world.list(&Facts { health_outputs: said, ..Facts::default() });
    assert_eq!(reason(&world).as_deref(), Some("unhealthy: no heartbeat"));
    assert!(world.registry.newly_unhealthy(&world.containers).is_empty(), "it is asked once");
    world.set(&container, State::Running(Health::Healthy));
    world.list(&Facts::default());
    assert_eq!(reason(&world), None);

    world.set(&container, State::Restarting);
    let killed = HashMap::from([(container.clone(), ContainerExit::of(137, true))]);
    world.list(&Facts { endings: killed, restarted: HashSet::from([container.clone()]), ..Facts::default() });
    assert_eq!(reason(&world).as_deref(), Some("restarting: out of memory, exit code 137"));
    world.set(&container, RUNNING);
    world.list(&Facts::default());
    assert_eq!(reason(&world).as_deref(), Some("restarted: out of memory, exit code 137"));
}

#[test]
fn a_list_that_is_ahead_of_the_events_waits_for_them_once() {
    let ended = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let exit = || ContainerExit::of(0, false);
    let mut facts = Facts { endings: HashMap::from([("told".to_owned(), exit())]), ..Facts::default() };
    assert!(!facts.is_ahead(ended(&[])));
    assert!(!facts.is_ahead(ended(&["told"])));
    assert!(facts.is_ahead(ended(&["told", "one", "two"])));
    assert!(!facts.is_ahead(ended(&["one", "two"])), "events that never come are not waited for");
    assert!(facts.is_ahead(ended(&["one", "three"])));
    facts.was_away = true;
    assert!(!facts.is_ahead(ended(&["four"])), "what ended in an outage has no events");
}
