//! Floor of a reaction: a bare subscriber receives the event of the job, and one bare probe reads the queue. It uses
//! the client library and the commands of the product and nothing else, on a thread and a runtime of its own.

use anyhow::Context;
use redis::{AsyncConnectionConfig, Client, Pipeline, ProtocolVersion, PushInfo, PushKind, aio::MultiplexedConnection};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    protocol::nanos,
    rounds::{FLOOR_CHANNEL, Signal},
};

/// Duration of one floor round, in two parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// Time at which the event reached the subscriber.
    pub(crate) at: u64,
    /// Duration of the probe that followed.
    pub(crate) probe: u64,
}

/// Bare subscriber and probe of one queue.
pub(crate) struct Floor {
    heard: UnboundedReceiver<anyhow::Result<Heard>>,
}

impl Floor {
    /// Starts the floor, and returns when it listens. `queue` is also the name of the consumer group.
    pub(crate) async fn start(url: &str, queue: &str, signal: &Signal) -> anyhow::Result<Self> {
        let (sender, heard) = unbounded_channel();
        let (ready, listening) = tokio::sync::oneshot::channel();
        let (url, queue, signal) = (url.to_owned(), queue.to_owned(), signal.clone());
        std::thread::Builder::new().name("floor".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
                runtime.block_on(async {
                    let mut subscriber = Subscriber::connect(&url, queue, &signal).await?;
                    let _ = ready.send(());
                    subscriber.listen(&sender).await
                })
            });
            if let Err(error) = outcome {
                let _ = sender.send(Err(error));
            }
        })?;
        let mut floor = Self { heard };
        if listening.await.is_err() {
            floor.next().await?;
        }
        Ok(floor)
    }

    /// Waits for the next event.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Heard> {
        self.heard.recv().await.context("the floor's thread has ended")?
    }
}

struct Subscriber {
    connection: MultiplexedConnection,
    pushes: UnboundedReceiver<PushInfo>,
    probe: Pipeline,
}

impl Subscriber {
    async fn connect(url: &str, queue: String, signal: &Signal) -> anyhow::Result<Self> {
        let (sender, pushes) = unbounded_channel();
        let client = Client::open(url)?;
        let info = client.get_connection_info().clone();
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings))?;
        let config = AsyncConnectionConfig::new().set_push_sender(sender);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        match signal {
            Signal::Keyspace => connection.subscribe(format!("__keyspace@0__:{queue}")).await?,
            Signal::Channel => connection.subscribe(FLOOR_CHANNEL).await?,
            Signal::Tracking => {
                redis::cmd("CLIENT").arg("TRACKING").arg("ON").arg("OPTIN").exec_async(&mut connection).await?;
            }
        }
        let mut probe = redis::pipe();
        if *signal == Signal::Tracking {
            probe.cmd("CLIENT").arg("CACHING").arg("YES");
        }
        probe.cmd("XINFO").arg("STREAM").arg(&queue);
        probe.cmd("XINFO").arg("GROUPS").arg(&queue);
        probe.cmd("XPENDING").arg(&queue).arg(&queue);
        let mut subscriber = Self { connection, pushes, probe };
        subscriber.probe().await?;
        Ok(subscriber)
    }

    async fn listen(&mut self, heard: &UnboundedSender<anyhow::Result<Heard>>) -> anyhow::Result<()> {
        while let Some(push) = self.pushes.recv().await {
            if !matches!(push.kind, PushKind::Message | PushKind::Invalidate) {
                continue;
            }
            let at = nanos();
            let probe = self.probe().await?;
            if heard.send(Ok(Heard { at, probe })).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends the product's probe and ignores the replies.
    async fn probe(&mut self) -> anyhow::Result<u64> {
        let started = nanos();
        self.connection.send_packed_commands(&self.probe, 0, self.probe.len()).await?;
        Ok(nanos().saturating_sub(started))
    }
}
