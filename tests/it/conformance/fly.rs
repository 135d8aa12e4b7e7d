//! Machines of a fake of Fly.io.

use swarm::{
    backend::ScalingBackend,
    model::{WorkerId, WorkerType},
};

use super::Rig;
use crate::fly::bench::{Bench, browser};

pub(super) struct Machines(Bench);

impl Rig for Machines {
    async fn start() -> Self {
        Self(Bench::with_image().await)
    }

    fn backend(&self) -> &dyn ScalingBackend {
        &self.0.backend
    }

    fn worker_type(&self) -> WorkerType {
        browser()
    }

    async fn changed(&mut self) {
        self.0.changed().await;
    }

    async fn crash(&self, id: &WorkerId) {
        self.0.fake.act(|world| world.crash(id.as_str(), 1));
    }

    async fn allow_starts(&self, allowed: bool) {
        let regions = ["iad", "fra"].map(str::to_owned);
        self.0.fake.act(|world| {
            world.full.clear();
            world.full.extend(regions.into_iter().filter(|_| !allowed));
        });
    }

    async fn count(&self) -> usize {
        self.0.fake.see(|world| world.ids("started").len())
    }
}
