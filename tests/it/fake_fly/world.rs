//! Apps, machines, volumes, hosts, and what requests and people do to them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use axum::http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{APP, Answer, Ask, Shared, TOKEN, faults::Faults};

/// What a request is limited by: action and thing.
type Bucket = (String, String);

/// Everything that it knows.
pub(crate) struct World {
    machines: BTreeMap<String, Machine>,
    volumes: BTreeMap<String, Value>,
    made: u32,
    pub(crate) faults: Faults,
    /// `METHOD /path` of every request, and when it came.
    pub(crate) log: Vec<(String, Instant)>,
    /// Lists answer with this instead of the truth.
    pub(crate) stale: Option<Vec<Value>>,
    /// The token may only read.
    pub(crate) read_only: bool,
    /// Regions without room.
    pub(crate) full: BTreeSet<String>,
    /// Time from a start until the machine runs, and from a stop until it stands still.
    pub(crate) boot: Duration,
    pub(crate) halt: Duration,
    /// Whether more than one request a second (three at once) for an action and a thing is refused.
    pub(crate) limited: bool,
    /// Requests that were refused for that.
    pub(crate) throttled: usize,
    buckets: HashMap<Bucket, (f64, Instant)>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            machines: BTreeMap::new(),
            volumes: BTreeMap::new(),
            made: 0,
            faults: Faults::default(),
            log: Vec::new(),
            stale: None,
            read_only: false,
            full: BTreeSet::new(),
            boot: Duration::from_millis(20),
            halt: Duration::from_millis(20),
            limited: false,
            throttled: 0,
            buckets: HashMap::new(),
        }
    }
}

#[derive(Clone)]
struct Machine {
    id: String,
    name: String,
    state: &'static str,
    region: String,
    version: u32,
    config: Value,
    created: u64,
    updated: u64,
    events: Vec<Value>,
    lease: Option<String>,
    host_down: bool,
}

fn millis() -> u64 {
    u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// As the API writes times: to the second.
fn written(millis: u64) -> String {
    jiff::Timestamp::from_second(i64::try_from(millis / 1_000).unwrap()).unwrap().to_string()
}

fn error(status: u16, message: &str) -> Answer {
    (status, json!({ "error": message }))
}

impl Machine {
    fn enter(&mut self, state: &'static str, event: Value) {
        self.state = state;
        self.updated = millis();
        let mut event = event;
        event["timestamp"] = json!(self.updated);
        event["status"] = json!(state);
        self.events.insert(0, event);
    }

    fn instance(&self) -> String {
        format!("v{}-{}", self.version, self.id)
    }

    fn group(&self) -> Option<&str> {
        self.config["metadata"]["fly_process_group"].as_str()
    }

    fn shown(&self) -> Value {
        let image = self.config["image"].as_str().unwrap_or_default();
        let name = image.split(['@', ':']).next().unwrap_or_default();
        let (registry, repository) = name.split_once('/').unwrap_or(("", name));
        let mut shown = json!({
            "id": self.id, "name": self.name, "state": self.state, "region": self.region,
            "instance_id": self.instance(), "private_ip": "fdaa::1",
            "image_ref": { "registry": registry, "repository": repository, "tag": "v1", "digest": "sha256:0ff1ce" },
            "created_at": written(self.created), "updated_at": written(self.updated), "events": self.events,
        });
        if self.lease.is_some() {
            // Without its nonce, which only its holder gets.
            let expires_at = millis() / 1_000 + 60;
            shown["lease"] = json!({ "owner": "ada@example.org", "description": "deploy", "expires_at": expires_at });
        }
        if self.host_down {
            shown["host_status"] = json!("unreachable");
            shown["incomplete_config"] = json!({ "metadata": self.config["metadata"] });
        } else {
            shown["host_status"] = json!("ok");
            shown["config"] = self.config.clone();
        }
        shown
    }
}

impl World {
    /// Why a request is refused before anyone looks at what it wants.
    pub(super) fn refusal(&mut self, method: &Method, token: Option<&str>, segments: &[String]) -> Option<Answer> {
        if token != Some(&format!("Bearer {TOKEN}")) {
            return Some(error(401, "unauthenticated"));
        }
        if segments.len() < 4 || segments[..2] != ["v1", "apps"] || segments[2] != APP {
            return Some(error(404, "app not found"));
        }
        if self.read_only && *method != Method::GET {
            return Some(error(403, "unauthorized: token may not do that"));
        }
        let thing = segments.get(4).unwrap_or(&segments[2]);
        let action = format!("{method} {} {}", segments[3], segments.get(5).map_or("", String::as_str));
        let reads_one = *method == Method::GET && segments.len() == 5;
        if self.limited && !self.passes((action, thing.clone()), if reads_one { (5.0, 10.0) } else { (1.0, 3.0) }) {
            self.throttled += 1;
            return Some(error(429, "rate limit exceeded"));
        }
        None
    }

    /// Requests that were sent at their time may arrive closer to each other: the first one late and the next one not.
    /// Part of a request is left for that, which lets no further one pass at once.
    fn passes(&mut self, bucket: Bucket, (rate, burst): (f64, f64)) -> bool {
        let burst = burst + 0.9;
        let now = Instant::now();
        let (left, since) = self.buckets.entry(bucket).or_insert((burst, now));
        *left = (*left + now.duration_since(*since).as_secs_f64() * rate).min(burst);
        *since = now;
        let passes = *left >= 1.0;
        if passes {
            *left -= 1.0;
        }
        passes
    }

    /// Requests whose `METHOD /path` begins and ends so.
    pub(crate) fn requests(&self, method: &str, path_end: &str) -> usize {
        let fits = |line: &str| line.starts_with(method) && line.ends_with(path_end);
        self.log.iter().filter(|(line, _)| fits(line)).count()
    }

    pub(super) fn state_of(&self, id: &str) -> Option<&'static str> {
        self.machines.get(id).map(|machine| machine.state)
    }

    /// Machines in a state, by id.
    pub(crate) fn ids(&self, state: &str) -> Vec<String> {
        self.machines.values().filter(|machine| machine.state == state).map(|machine| machine.id.clone()).collect()
    }

    /// All machines as lists show them.
    pub(crate) fn list(&self) -> Vec<Value> {
        self.machines.values().map(Machine::shown).collect()
    }

    pub(crate) fn volumes(&self) -> Vec<Value> {
        self.volumes.values().cloned().collect()
    }

    /// For messages of failed tests.
    pub(crate) fn summary(&self) -> Vec<String> {
        let machines = self.machines.values().map(|one| format!("{} {} {:?}", one.id, one.state, one.group()));
        let latest = self.log.iter().rev().take(30).rev();
        machines.chain(latest.map(|(line, _)| line.clone())).collect()
    }

    /// Adds a machine in a state, as if it had always been there.
    pub(crate) fn add(&mut self, state: &'static str, region: &str, config: Value) -> String {
        self.made += 1;
        let id = format!("m{:04}", self.made);
        let then = millis() - 3_600_000;
        let machine = Machine {
            id: id.clone(),
            name: format!("name-of-{id}"),
            state,
            region: region.to_owned(),
            version: 1,
            config,
            created: then,
            updated: then,
            events: vec![json!({ "type": "launch", "status": "created", "source": "user", "timestamp": then })],
            lease: None,
            host_down: false,
        };
        self.machines.insert(id.clone(), machine);
        id
    }

    /// Adds a worker of a group, as `fly deploy` makes them.
    pub(crate) fn add_worker(&mut self, state: &'static str, group: &str) -> String {
        self.add(state, "fra", worker(group))
    }

    pub(crate) fn add_volume(&mut self, id: &str, name: &str, region: &str, attached_to: Option<&str>) {
        let volume = json!({
            "id": id, "name": name, "region": region, "state": "created", "attached_machine_id": attached_to,
        });
        self.volumes.insert(id.to_owned(), volume);
    }

    fn machine(&mut self, id: &str) -> &mut Machine {
        self.machines.get_mut(id).expect("the test knows its machines")
    }

    /// Its main process ends, and nobody starts it again.
    pub(crate) fn crash(&mut self, id: &str, exit_code: i32) {
        let ended = json!({ "exit_code": exit_code, "requested_stop": false });
        self.machine(id)
            .enter("stopped", json!({ "type": "exit", "source": "flyd", "request": { "exit_event": ended } }));
    }

    /// `fly machine stop`, all at once.
    pub(crate) fn stop_by_hand(&mut self, id: &str) {
        let ended = json!({ "exit_code": 0, "requested_stop": true });
        self.machine(id)
            .enter("stopped", json!({ "type": "exit", "source": "user", "request": { "exit_event": ended } }));
    }

    /// `fly machine destroy`, all at once.
    pub(crate) fn destroy_by_hand(&mut self, id: &str) {
        self.machines.remove(id);
    }

    /// Somebody takes a lease, as a deployment does; `None` gives it back.
    pub(crate) fn lease(&mut self, id: &str, nonce: Option<&str>) {
        self.machine(id).lease = nonce.map(str::to_owned);
    }

    /// A host stops to answer, or answers again.
    pub(crate) fn host(&mut self, id: &str, down: bool) {
        self.machine(id).host_down = down;
    }
}

/// The configuration of a worker, as `fly deploy` makes it.
pub(crate) fn worker(group: &str) -> Value {
    json!({
        "image": "registry.fly.io/shop:v1",
        "env": { "LEVEL": "info", "SWARM_WORKER_ID": "copied by mistake" },
        "guest": { "cpu_kind": "shared", "cpus": 1, "memory_mb": 256 },
        "metadata": { "fly_process_group": group, "fly_platform_version": "v2" },
        "init": { "cmd": ["swarm", "worker"] },
    })
}

/// Does what a request asks for.
pub(super) fn carry_out(shared: &Arc<Shared>, ask: &Ask) -> Answer {
    let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
    match (ask.method.as_str(), path.as_slice()) {
        ("GET", ["machines"]) => list(&shared.world(), ask),
        ("POST", ["machines"]) => create(shared, ask),
        ("GET", ["machines", id]) => match shared.world().machines.get(*id) {
            Some(machine) => (200, machine.shown()),
            None => error(404, "not_found: machine not found"),
        },
        ("POST", ["machines", id, "start"]) => start(shared, ask, id),
        ("POST", ["machines", id, "stop"]) => stop(shared, ask, id),
        ("DELETE", ["machines", id]) => destroy(shared, ask, id),
        ("GET", ["volumes"]) => (200, json!(shared.world().volumes())),
        ("POST", ["volumes"]) => create_volume(shared, ask),
        _ => error(404, "404 page not found"),
    }
}

fn list(world: &World, ask: &Ask) -> Answer {
    let mut machines = world.stale.clone().unwrap_or_else(|| world.list());
    for (key, value) in &ask.query {
        if let Some(key) = key.strip_prefix("metadata.") {
            machines.retain(|machine| machine["config"]["metadata"][key] == json!(value));
        }
    }
    (200, json!(machines))
}

/// Why a machine can't be changed now.
fn barred(world: &World, ask: &Ask, id: &str) -> Option<Answer> {
    let Some(machine) = world.machines.get(id) else { return Some(error(404, "not_found: machine not found")) };
    if machine.host_down {
        return Some(error(503, "unavailable: the host of the machine does not answer"));
    }
    if machine.lease.is_some() && machine.lease != ask.nonce {
        let message = format!("aborted: machine ID {id} lease currently held by ada@example.org");
        return Some(error(409, &message));
    }
    None
}

fn create(shared: &Arc<Shared>, ask: &Ask) -> Answer {
    let config = ask.body["config"].clone();
    let region = ask.body["region"].as_str().unwrap_or("iad").to_owned();
    let made = shared.change(|world| {
        if config["image"].as_str().is_none_or(str::is_empty) {
            return Err(error(422, "invalid_argument: config.image is required"));
        }
        let name = ask.body["name"].as_str();
        if let Some(other) = world.machines.values().find(|machine| Some(machine.name.as_str()) == name) {
            let message = format!(
                "already_exists: unique machine name violation, machine ID {} already exists with name {:?}",
                other.id, other.name
            );
            return Err(error(409, &message));
        }
        if world.full.contains(&region) {
            let message = "insufficient resources available to fulfill request";
            return Err((422, json!({ "error": message, "status": "insufficient_capacity" })));
        }
        let volume = config.pointer("/mounts/0/volume").and_then(Value::as_str);
        if let Some(volume) = volume {
            let fits =
                |volume: &&mut Value| volume["region"] == json!(region) && volume["attached_machine_id"].is_null();
            let Some(volume) = world.volumes.get_mut(volume).filter(fits) else {
                return Err(error(422, "invalid_argument: the volume is in use or elsewhere"));
            };
            volume["attached_machine_id"] = json!("soon");
        }
        let id = world.add("created", &region, config.clone());
        if let Some(volume) = volume.and_then(|volume| world.volumes.get_mut(volume)) {
            volume["attached_machine_id"] = json!(id);
        }
        let machine = world.machine(&id);
        (machine.created, machine.updated) = (millis(), millis());
        machine.events = Vec::new();
        machine.enter("created", json!({ "type": "launch", "source": "user" }));
        machine.name = name.map_or_else(|| format!("name-of-{id}"), str::to_owned);
        Ok(machine.shown())
    });
    match made {
        Ok(machine) => {
            boot(shared, machine["id"].as_str().unwrap());
            (200, machine)
        }
        Err(refused) => refused,
    }
}

/// Takes a machine from where it is to `started`.
fn boot(shared: &Arc<Shared>, id: &str) {
    let (shared, id) = (shared.clone(), id.to_owned());
    let takes = shared.world().boot;
    tokio::spawn(async move {
        tokio::time::sleep(takes / 2).await;
        let enter = |from: &[&str], to, event: Value| {
            shared.change(|world| {
                if let Some(machine) = world.machines.get_mut(&id).filter(|machine| from.contains(&machine.state)) {
                    machine.enter(to, event);
                }
            });
        };
        enter(&["created"], "starting", json!({ "type": "start", "source": "flyd" }));
        tokio::time::sleep(takes / 2).await;
        enter(&["starting"], "started", json!({ "type": "start", "source": "flyd" }));
    });
}

fn start(shared: &Arc<Shared>, ask: &Ask, id: &str) -> Answer {
    let started = shared.change(|world| {
        if let Some(barred) = barred(world, ask, id) {
            return Err(barred);
        }
        if world.full.contains(&world.machines[id].region) {
            return Err((422, json!({ "error": "no room on the host", "status": "insufficient_capacity" })));
        }
        let machine = world.machine(id);
        let before = machine.state;
        if !matches!(before, "stopped" | "suspended" | "created") {
            return Err(error(412, "failed_precondition: machine can't be started from its current state"));
        }
        machine.enter("starting", json!({ "type": "start", "source": "user" }));
        Ok((200, json!({ "previous_state": before, "migrated": false, "new_host": "" })))
    });
    started.map_or_else(
        |refused| refused,
        |answer| {
            boot(shared, id);
            answer
        },
    )
}

fn stop(shared: &Arc<Shared>, ask: &Ask, id: &str) -> Answer {
    let stopped = shared.change(|world| {
        if let Some(barred) = barred(world, ask, id) {
            return Err(barred);
        }
        let machine = world.machine(id);
        if machine.state != "stopped" {
            let request = ask.body.clone();
            machine.enter("stopping", json!({ "type": "stop", "source": "user", "asked": request }));
        }
        Ok(world.halt)
    });
    let takes = match stopped {
        Ok(takes) => takes,
        Err(refused) => return refused,
    };
    let (shared, id) = (shared.clone(), id.to_owned());
    tokio::spawn(async move {
        tokio::time::sleep(takes).await;
        shared.change(|world| {
            if world.state_of(&id) == Some("stopping") {
                world.stop_by_hand(&id);
            }
        });
    });
    (200, json!({ "ok": true }))
}

fn destroy(shared: &Arc<Shared>, ask: &Ask, id: &str) -> Answer {
    shared.change(|world| {
        if let Some(barred) = barred(world, ask, id) {
            return barred;
        }
        if !matches!(world.machine(id).state, "stopped" | "suspended" | "failed" | "created")
            && ask.query("force") != Some("true")
        {
            return error(412, "failed_precondition: unable to destroy machine, not currently stopped/suspended");
        }
        world.machines.remove(id);
        for volume in world.volumes.values_mut().filter(|volume| volume["attached_machine_id"] == json!(id)) {
            volume["attached_machine_id"] = Value::Null;
        }
        (200, json!({ "ok": true }))
    })
}

fn create_volume(shared: &Arc<Shared>, ask: &Ask) -> Answer {
    shared.change(|world| {
        let id = format!("vol_{}", world.volumes.len() + 1);
        let (name, region) = (ask.body["name"].as_str().unwrap_or_default(), ask.body["region"].as_str());
        world.add_volume(&id, name, region.unwrap_or("iad"), None);
        (200, world.volumes[&id].clone())
    })
}
