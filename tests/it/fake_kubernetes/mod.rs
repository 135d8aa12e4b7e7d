//! A Kubernetes API server in this process, as far as autoscaling needs one: list and watch with resourceVersions and
//! bookmarks, merge patches with preconditions, the subresource `scale`, rights; and faults to inject. It stores, it
//! does nothing by itself: controllers are played by those who use it, over the API.

pub(crate) mod api;
mod jobs;
mod watching;
pub(crate) mod world;

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    task::JoinHandle,
};

use self::world::{Key, World};

/// The only namespace.
pub(crate) const NAMESPACE: &str = "jobs";

/// One request, as rights see it. `name` is empty for lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Request {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// With its subresource: `deployments/scale`.
    pub(crate) resource: String,
    pub(crate) name: String,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This answer instead of the real one.
    Status { code: u16, message: &'static str, retry_after: Option<u32> },
    /// The answer comes late.
    Slow(Duration),
    /// The connection breaks before anything is done.
    Cut,
    /// What is asked is done, and the connection breaks before the answer.
    LoseAnswer,
}

#[derive(Debug, Default)]
struct Faults {
    /// Verb, resource and what happens to the next such request.
    waiting: VecDeque<(String, String, Fault)>,
    /// Verb and resource.
    denied: BTreeSet<(String, String)>,
    /// Verb, resource and the only name for which it is granted.
    by_name: BTreeSet<(String, String, String)>,
}

impl Faults {
    fn deny(&self, verb: &str, resource: &str, name: &str) -> bool {
        let is_meant = |(of, what, only): &&(String, String, String)| of == verb && what == resource && only != name;
        self.denied.contains(&(verb.to_owned(), resource.to_owned())) || self.by_name.iter().any(|only| is_meant(&only))
    }
}

/// What all requests share.
pub(crate) struct Server {
    world: Mutex<World>,
    faults: Mutex<Faults>,
    requests: Mutex<Vec<Request>>,
    /// Who is told of requests as they come in.
    arrivals: Mutex<Option<UnboundedSender<(SystemTime, Request)>>>,
    news: watch::Sender<u64>,
    cuts: AtomicU64,
    keda: AtomicBool,
    /// Whether watches hold back their news.
    held: AtomicBool,
    /// Whether nothing is answered.
    down: AtomicBool,
}

/// A running server; stopped when dropped.
pub(crate) struct FakeKubernetes {
    server: Arc<Server>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl FakeKubernetes {
    /// Starts an empty one on a free port.
    pub(crate) async fn start() -> Self {
        let server = Arc::new(Server {
            world: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            arrivals: Mutex::default(),
            news: watch::Sender::new(0),
            cuts: AtomicU64::new(0),
            keda: AtomicBool::new(false),
            held: AtomicBool::new(false),
            down: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port can be had");
        let address = listener.local_addr().expect("a bound listener has an address");
        let router = axum::Router::new().fallback(api::answer).with_state(server.clone());
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { server, address, task }
    }

    /// A kubeconfig that leads here.
    pub(crate) fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{ "name": "fake", "cluster": { "server": format!("http://{}", self.address) } }],
            "contexts": [{ "name": "fake", "context": { "cluster": "fake", "user": "fake", "namespace": NAMESPACE } }],
            "users": [{ "name": "fake", "user": {} }],
        })
        .to_string()
    }

    /// The next request with this verb on this resource meets this fault.
    pub(crate) fn disturb(&self, verb: &str, resource: &str, fault: Fault) {
        self.server.faults().waiting.push_back((verb.to_owned(), resource.to_owned(), fault));
    }

    /// Takes a right away.
    pub(crate) fn deny(&self, verb: &str, resource: &str) {
        self.server.faults().denied.insert((verb.to_owned(), resource.to_owned()));
    }

    /// Grants a right for one name only, as a Role with `resourceNames` does.
    pub(crate) fn allow_only(&self, verb: &str, resource: &str, name: &str) {
        self.server.faults().by_name.insert((verb.to_owned(), resource.to_owned(), name.to_owned()));
    }

    /// Gives all rights back.
    pub(crate) fn allow_all(&self) {
        let mut faults = self.server.faults();
        faults.denied.clear();
        faults.by_name.clear();
    }

    /// KEDA's resources are known from now on.
    pub(crate) fn install_keda(&self) {
        self.server.keda.store(true, Ordering::Release);
    }

    /// Stores an object that no client library has a type for.
    pub(crate) fn put(&self, group: &str, resource: &str, object: &Value) {
        let name = object["metadata"]["name"].as_str().expect("objects have names").to_owned();
        let key = Key { group: group.to_owned(), resource: resource.to_owned(), name };
        self.server.world().create(key, object.clone(), NAMESPACE).expect("it is new");
    }

    /// Every connection breaks before an answer until the server is up again; watches under way break too.
    pub(crate) fn set_down(&self, down: bool) {
        self.server.down.store(down, Ordering::Release);
        if down {
            self.cut_watches();
        }
    }

    /// Watches tell nothing until they are released.
    pub(crate) fn hold_watches(&self) {
        self.server.held.store(true, Ordering::Release);
    }

    /// Watches tell what they have held back.
    pub(crate) fn release_watches(&self) {
        self.server.held.store(false, Ordering::Release);
        self.server.tell_watches();
    }

    /// Breaks the connections of all watches.
    pub(crate) fn cut_watches(&self) {
        self.server.cuts.fetch_add(1, Ordering::AcqRel);
        self.server.tell_watches();
    }

    /// Forgets what has happened, so that watches from before it are `410 Gone`, and ends those under way.
    pub(crate) fn forget_history(&self) {
        let mut world = self.server.world();
        world.forget();
        drop(world);
        self.server.tell_watches();
    }

    /// The requests so far, those of players left out.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.server.requests().clone()
    }

    /// Tells of requests from now on, and of when they came in: after their last byte, before anything is done.
    pub(crate) fn arrivals(&self) -> UnboundedReceiver<(SystemTime, Request)> {
        let (sender, arrivals) = unbounded_channel();
        *self.server.arrivals.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        arrivals
    }

    /// How many of them had this verb and resource.
    pub(crate) fn count(&self, verb: &str, resource: &str) -> usize {
        self.requests().iter().filter(|one| one.verb == verb && one.resource == resource).count()
    }
}

impl Drop for FakeKubernetes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, request: Request) {
        let arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(arrivals) = &*arrivals {
            // Nobody listens any more: then nobody needs it.
            let _ = arrivals.send((SystemTime::now(), request.clone()));
        }
        self.requests().push(request);
    }

    fn fault_for(&self, request: &Request) -> Option<Fault> {
        if self.down.load(Ordering::Acquire) {
            return Some(Fault::Cut);
        }
        let mut faults = self.faults();
        let fits =
            |(verb, resource, _): &(String, String, Fault)| *verb == request.verb && *resource == request.resource;
        let at = faults.waiting.iter().position(fits)?;
        faults.waiting.remove(at).map(|(_, _, fault)| fault)
    }

    fn denies(&self, request: &Request) -> bool {
        self.faults().deny(&request.verb, &request.resource, &request.name)
    }

    /// A SelfSubjectAccessReview with its answer.
    fn review(&self, review: &Value) -> Value {
        let asked = &review["spec"]["resourceAttributes"];
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let resource = match text("subresource") {
            "" => text("resource").to_owned(),
            subresource => format!("{}/{subresource}", text("resource")),
        };
        let denied = self.faults().deny(text("verb"), &resource, text("name"));
        let mut review = review.clone();
        review["status"] = json!({ "allowed": !denied });
        review
    }

    fn has_keda(&self) -> bool {
        self.keda.load(Ordering::Acquire)
    }

    fn holds(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn tell_watches(&self) {
        self.news.send_modify(|number| *number += 1);
    }
}
