//! Notifies a service manager (`sd_notify` of systemd) that the autoscaler is ready, and that it stops. Each
//! notification is one datagram to the socket that `NOTIFY_SOCKET` names; without that variable there is no service
//! manager.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

const SOCKET: &str = "NOTIFY_SOCKET";

/// The autoscaler does everything that it is configured to do.
pub(super) const READY: &str = "READY=1";
/// The autoscaler has begun to stop.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Returns whether a service manager waits for the notification that this process is ready.
pub(super) fn is_one() -> bool {
    std::env::var_os(SOCKET).is_some_and(|socket| !socket.is_empty())
}

/// Notifies the service manager, if there is one. A failure is logged, because the manager would wait until its
/// timeout.
pub(super) fn notify(state: &str) {
    let Some(socket) = std::env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, state, "service manager could not be notified");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    // A name that begins with @ is in the abstract namespace.
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_of_it_on_either_kind_of_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("swarm-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (listener, socket) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
        ] {
            send(&socket, READY).unwrap();
            let mut heard = [0; 64];
            let length = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], READY.as_bytes());
        }
    }
}
