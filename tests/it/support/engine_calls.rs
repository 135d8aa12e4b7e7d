//! Socket in front of the Docker engine's own that passes everything on and records the calls, so that tests can
//! compare them with the list in `docs/security.md`.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use super::needs::engine_socket;

/// Longest request line that is recognized across two reads.
const LONGEST_LINE: usize = 8 * 1024;

/// Calls so far: method and path, without version and query.
#[derive(Clone)]
pub(crate) struct EngineCalls {
    socket: PathBuf,
    seen: Arc<Mutex<BTreeSet<String>>>,
}

impl EngineCalls {
    /// Listens on `socket` until the test program ends, accessible for this user and group, like the engine.
    pub(crate) fn listen(socket: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("the directory is ours");
        fs::set_permissions(socket, fs::Permissions::from_mode(0o660)).expect("the socket is ours");
        let calls = Self { socket: socket.to_owned(), seen: Arc::default() };
        let recorder = calls.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(engine) = UnixStream::connect(engine_socket()) else { continue };
                recorder.relay(&client, &engine);
            }
        });
        calls
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the calls so far.
    pub(crate) fn seen(&self) -> BTreeSet<String> {
        self.seen.lock().expect("nobody panics while holding it").clone()
    }

    /// Passes on the data of both sides, on a thread each.
    fn relay(&self, client: &UnixStream, engine: &UnixStream) {
        let streams = || Some((client.try_clone().ok()?, engine.try_clone().ok()?));
        let (Some((from_client, to_engine)), Some((to_client, from_engine))) = (streams(), streams()) else { return };
        let recorder = self.clone();
        thread::spawn(move || {
            let mut recent = Vec::new();
            pass_on(from_client, to_engine, |bytes| {
                recent.extend_from_slice(bytes);
                recorder.note(&recent);
                recent.drain(..recent.len().saturating_sub(LONGEST_LINE));
            });
        });
        thread::spawn(move || pass_on(from_engine, to_client, |_| ()));
    }

    fn note(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let calls = text.split("\r\n").filter_map(call);
        self.seen.lock().expect("nobody panics while holding it").extend(calls);
    }
}

fn pass_on(mut from: UnixStream, mut to: UnixStream, mut look: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        look(&buffer[..count]);
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Parses the call of a request line: `GET /v1.41/containers/json?all=true HTTP/1.1` is `GET /containers/json`.
fn call(line: &str) -> Option<String> {
    let line = line.strip_suffix(" HTTP/1.1")?;
    // It may follow the body of the previous request on the same connection.
    let line = &line[line.rfind(['}', '\n']).map_or(0, |end| end + 1)..];
    let (method, target) = line.split_once(' ')?;
    let path = target.split('?').next()?;
    let versioned = path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/'));
    Some(format!("{method} {}", versioned.map_or(path.to_owned(), |(_, rest)| format!("/{rest}"))))
}

#[test]
fn request_lines_are_told_from_the_rest() {
    let expected = Some("GET /containers/json".to_owned());
    assert_eq!(call("GET /v1.41/containers/json?all=true HTTP/1.1"), expected);
    assert_eq!(call("GET /containers/json HTTP/1.1"), expected);
    assert_eq!(call("{\"a\":{}}GET /v1.41/containers/json HTTP/1.1"), expected);
    assert_eq!(call("Host: localhost"), None);
}
