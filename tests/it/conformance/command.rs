//! Workers of a stand-in platform, through its own commands and through a service.

use swarm::{
    backend::ScalingBackend,
    model::{WorkerId, WorkerType},
};

use super::Rig;
use crate::{
    command::bench::{Bench, mail, one_by_one},
    fake_platform::FakePlatform,
};

pub(super) struct Commanded(Bench);

impl Rig for Commanded {
    async fn start() -> Self {
        Self(Bench::start(one_by_one))
    }

    fn backend(&self) -> &dyn ScalingBackend {
        &self.0.backend
    }

    fn worker_type(&self) -> WorkerType {
        mail()
    }

    async fn changed(&mut self) {
        self.0.changed().await;
    }

    async fn crash(&self, id: &WorkerId) {
        self.0.platform(&["crash", id.as_str()]);
    }

    async fn allow_starts(&self, allowed: bool) {
        self.0.allow_starts(allowed);
    }

    /// Those that are listed as ended are no workers any more.
    async fn count(&self) -> usize {
        self.0.running().len()
    }
}

pub(super) struct Served(Bench<FakePlatform>);

impl Rig for Served {
    async fn start() -> Self {
        Self(Bench::over_http(|settings| settings).await)
    }

    fn backend(&self) -> &dyn ScalingBackend {
        &self.0.backend
    }

    fn worker_type(&self) -> WorkerType {
        mail()
    }

    async fn changed(&mut self) {
        self.0.changed().await;
    }

    async fn crash(&self, id: &WorkerId) {
        self.0.stand_in.act(|world| world.crash(id.as_str()));
    }

    async fn allow_starts(&self, allowed: bool) {
        self.0.stand_in.act(|world| world.full = !allowed);
    }

    async fn count(&self) -> usize {
        self.0.stand_in.see(|world| world.running().len())
    }
}
