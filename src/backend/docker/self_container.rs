//! Where the scaler itself lives: in a container of a Compose project, or outside. Decides what is taken for granted
//! about the workers' containers when nothing is said.

use std::{fs, path::Path};

use super::{engine::Engine, error::EngineError, labels};

/// Default project of workers.
const DEFAULT_PROJECT: &str = "swarm";

/// A file that Docker puts into every container.
const MARK: &str = "/.dockerenv";

/// Defaults taken from the scaler's own container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SelfContainer {
    /// Compose project.
    pub(super) project: String,
    /// Networks.
    pub(super) networks: Vec<String>,
}

impl SelfContainer {
    /// Asks the engine about the container that this process runs in, if it does. An engine that does not know it is
    /// another machine's.
    pub(super) async fn find(engine: &Engine, project: Option<&str>) -> Result<Self, EngineError> {
        let named = project.map(str::to_owned);
        let nowhere =
            Self { project: named.clone().unwrap_or_else(|| DEFAULT_PROJECT.to_owned()), networks: Vec::new() };
        let Some(container) = own_container() else { return Ok(nowhere) };
        let found = match engine.inspect(&container).await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(nowhere),
            Err(error) => return Err(error),
        };
        let label = found.config.and_then(|config| config.labels).and_then(|mut labels| labels.remove(labels::PROJECT));
        let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let mut networks: Vec<String> = networks.into_keys().collect();
        networks.sort();
        Ok(Self { project: named.or(label).unwrap_or(nowhere.project), networks })
    }
}

/// The id of the container around this process, as its mounts tell; else its host name, which is the id unless it was
/// given another one.
fn own_container() -> Option<String> {
    if !Path::new(MARK).exists() {
        return None;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    Some(container_in(&mounts).map_or_else(host, str::to_owned))
}

/// Docker mounts `hostname` and others from `…/containers/{id}/`.
fn container_in(mounts: &str) -> Option<&str> {
    mounts.split("/containers/").skip(1).find_map(|rest| {
        let (id, rest) = rest.split_once('/')?;
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_id && rest.starts_with("hostname")).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_tell_the_container() {
        let id = "4".repeat(64);
        let mounts = format!(
            "1 2 0:3 / / rw - overlay overlay rw\n\
             4 1 8:1 /var/lib/docker/containers/{id}/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda1 rw\n\
             5 1 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n"
        );
        assert_eq!(container_in(&mounts), Some(id.as_str()));
        assert_eq!(container_in("1 2 0:3 /containers/short/hostname / rw"), None);
    }
}
