//! Real `swarm worker` processes that stand for pods: started with the id that the pod gives them, ended by SIGTERM.

use std::{
    collections::HashMap,
    process::{Child, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{autoscaler::swarm, processes::kill};

/// Workers by the pod's name.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    redis_url: String,
    directory: TempDir,
    children: Mutex<HashMap<String, Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    asked: bool,
}

impl Processes {
    /// None yet. `config` is the TOML that workers read.
    pub(super) fn new(redis_url: &str, config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(directory.path().join("swarm.toml"), config).expect("the directory is ours");
        let redis_url = redis_url.to_owned();
        Self { inner: Arc::new(Inner { redis_url, directory, children: Mutex::default() }) }
    }

    /// Starts the worker of a pod, once.
    pub(super) fn start(&self, pod: &str, worker_id: &str, worker_type: &str) {
        let mut children = self.inner.children.lock().unwrap_or_else(PoisonError::into_inner);
        children.entry(pod.to_owned()).or_insert_with(|| {
            let config = self.inner.directory.path().join("swarm.toml");
            let child = swarm(self.inner.directory.path())
                .args(["worker", "--type", worker_type, "--config"])
                .arg(config)
                .env("REDIS_URL", &self.inner.redis_url)
                .env("SWARM_WORKER_ID", worker_id)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the binary was built for this test");
            Running { child, asked: false }
        });
    }

    /// How the worker of a pod ended by itself, if it did. A signal is -1.
    pub(super) fn exit_code(&self, pod: &str) -> Option<i32> {
        let mut children = self.inner.children.lock().unwrap_or_else(PoisonError::into_inner);
        let running = children.get_mut(pod).filter(|running| !running.asked)?;
        let status = running.child.try_wait().ok()??;
        Some(status.code().unwrap_or(-1))
    }

    /// Whether the worker of a pod has ended; asks it to, the first time.
    pub(super) fn has_left(&self, pod: &str) -> bool {
        let mut children = self.inner.children.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = children.get_mut(pod) else { return true };
        if !running.asked {
            running.asked = true;
            kill(running.child.id(), Signal::TERM);
        }
        running.child.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let children = self.children.get_mut().unwrap_or_else(PoisonError::into_inner);
        for running in children.values_mut() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}
