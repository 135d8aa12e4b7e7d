//! Runs a Redis Cluster of three primaries, optionally with replicas: real servers on free ports, joined by
//! `redis-cli --cluster create`, stopped when dropped.

use std::process::Command;

use fred::{
    prelude::{Builder, Client, ClientLike, Config},
    types::Value,
};

use super::{
    command::redis,
    redis::{Port, RedisServer, client_at},
    wait::{DEADLINE, eventually},
};

/// Milliseconds of silence after which a node counts as gone: short, for quick failovers.
const NODE_TIMEOUT: &str = "2000";

/// Nodes of a cluster.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<RedisServer>,
    /// Where they talk to each other.
    _buses: Vec<Port>,
    /// Options for `redis-cli`.
    more: Vec<String>,
}

impl Cluster {
    /// Starts three primaries.
    pub(crate) fn start() -> Self {
        Self::start_with(0, &[], &[])
    }

    /// Starts three primaries with `replicas` replicas each, and with more options for the servers and for `redis-cli`.
    pub(crate) fn start_with(replicas: usize, options: &[&str], more: &[&str]) -> Self {
        let (nodes, buses) = (0..3 * (1 + replicas)).map(|_| start_node(options)).unzip();
        let cluster = Self { nodes, _buses: buses, more: more.iter().map(|&word| word.to_owned()).collect() };
        cluster.create(replicas);
        cluster
    }

    fn create(&self, replicas: usize) {
        let mut create = Command::new("redis-cli");
        create.args(&self.more).args(["--cluster", "create"]);
        create.args(self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())));
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        let output = create.output().expect("redis-cli is installed");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("All 16384 slots covered"), "{said}");
    }

    /// Returns the URL of the cluster, which names two of its nodes.
    pub(crate) fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[1].port(), self.nodes[0].port())
    }

    /// Waits until every living node reports that the cluster is healthy, and every replica has its copy.
    pub(crate) async fn until_well(&self) {
        for node in self.nodes.iter().filter(|node| !node.is_dead()) {
            let client = client_at(node.port()).await;
            let well = async || {
                let info: String = redis(&client, "CLUSTER INFO").await;
                let replication: String = redis(&client, "INFO replication").await;
                info.contains("cluster_state:ok") && !replication.contains("master_link_status:down")
            };
            assert!(eventually(DEADLINE, well).await, "the cluster does not get well");
        }
    }

    /// Returns a client of the whole cluster, independent of the product.
    pub(crate) async fn client(&self) -> Client {
        self.until_well().await;
        let url = self.url().replace("redis+cluster", "redis-cluster").split(',').next().map(str::to_owned);
        let config = Config::from_url(&url.expect("there is a first part")).expect("our own URL is well formed");
        let client = Builder::from_config(config).build().expect("the default settings are valid");
        client.init().await.expect("the cluster answers");
        client
    }

    /// Returns the output of `redis-cli` for a command. It follows redirections, key by key.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        let port = self.living().port().to_string();
        let output = Command::new("redis-cli").args(["-c", "-p", &port]).args(command).output();
        String::from_utf8_lossy(&output.expect("redis-cli is installed").stdout).trim().to_owned()
    }

    /// Adds jobs to a stream, one by one, through any trouble of the cluster.
    pub(crate) fn add_jobs(&self, stream: &str, count: usize) {
        for _ in 0..count {
            let entry = self.cli(&["XADD", stream, "*", "json", r#"{"id":"1","type":"t.echo","args":[],"kwargs":{}}"#]);
            assert!(entry.contains('-'), "{entry}");
        }
    }

    /// Returns the slot of a key.
    pub(crate) async fn slot(&self, key: &str) -> u16 {
        redis(&client_at(self.living().port()).await, &format!("CLUSTER KEYSLOT {key}")).await
    }

    /// Returns the node that has a slot, according to a living node.
    pub(crate) async fn owner(&self, slot: u16) -> usize {
        let ranges: Vec<Vec<Value>> = redis(&client_at(self.living().port()).await, "CLUSTER SLOTS").await;
        let number = |value: &Value| u16::try_from(value.as_u64().expect("slots are numbers")).expect("of 16 bits");
        let range = ranges.iter().find(|range| (number(&range[0])..=number(&range[1])).contains(&slot));
        let primary = range.expect("every slot is served")[2].clone().into_array();
        let port = u16::try_from(primary[1].as_u64().expect("a port is a number")).expect("of 16 bits");
        self.nodes.iter().position(|node| node.port() == port).expect("the node is one of ours")
    }

    /// Returns names of worker types whose queues lie on different primaries, in the order of the nodes.
    pub(crate) async fn types(&self) -> [String; 3] {
        let mut found: [Option<String>; 3] = [const { None }; 3];
        for number in 0.. {
            let name = format!("t{number}");
            let owner = self.owner(self.slot(&format!("{name}:jobs")).await).await;
            found[owner].get_or_insert(name);
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        found.map(|name| name.expect("the loop ends when there are all"))
    }

    /// Kills the primary of a slot and waits until its replica has taken over.
    pub(crate) async fn fail_over(&mut self, slot: u16) {
        let before = self.owner(slot).await;
        self.nodes[before].kill();
        self.until_owner_is_not(slot, before).await;
    }

    /// Waits until every other node knows that a slot has left that node.
    pub(crate) async fn until_owner_is_not(&self, slot: u16, before: usize) {
        let over = async || self.owner(slot).await != before;
        assert!(eventually(DEADLINE, over).await, "no replica takes over");
    }

    /// Begins to move a slot: its keys go to another node, and only redirected clients find them.
    pub(crate) async fn begin_move(&self, slot: u16, to: usize, keys: &[&str]) {
        let from = self.owner(slot).await;
        let (source, target) = (self.nodes[from].client().await, self.nodes[to].client().await);
        let source_id: String = redis(&source, "CLUSTER MYID").await;
        let target_id: String = redis(&target, "CLUSTER MYID").await;
        let _: String = redis(&target, &format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}")).await;
        let _: String = redis(&source, &format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}")).await;
        for key in keys {
            let port = self.nodes[to].port();
            let _: String = redis(&source, &format!("MIGRATE 127.0.0.1 {port} {key} 0 10000")).await;
        }
    }

    /// Completes [`begin_move`](Self::begin_move) on every node.
    pub(crate) async fn end_move(&self, slot: u16, to: usize) {
        let id: String = redis(&self.nodes[to].client().await, "CLUSTER MYID").await;
        // The target first: the slot must always have an owner.
        let others = self.nodes.iter().enumerate().filter(|(at, _)| *at != to).map(|(_, node)| node);
        for node in std::iter::once(&self.nodes[to]).chain(others) {
            let _: String = redis(&node.client().await, &format!("CLUSTER SETSLOT {slot} NODE {id}")).await;
        }
    }

    fn living(&self) -> &RedisServer {
        self.nodes.iter().find(|node| !node.is_dead()).expect("one node lives")
    }
}

fn start_node(options: &[&str]) -> (RedisServer, Port) {
    let bus = Port::free();
    let number = bus.number().to_string();
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &number, "--cluster-node-timeout", NODE_TIMEOUT];
    let more = ["--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0"];
    (RedisServer::start_with(&[&cluster[..], &more, options].concat()), bus)
}
