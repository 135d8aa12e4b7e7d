//! A TCP proxy in front of a server on this machine: delays both directions, and counts what the server sends.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes read in one go.
const CHUNK: usize = 64 * 1024;

/// Running proxy. Its threads end with the process.
pub(crate) struct Proxy {
    port: u16,
    sent: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts a proxy for the server on this port. Every byte arrives `delay` later, in each direction.
    pub(crate) fn start(server: u16, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let proxy = Self { port: listener.local_addr()?.port(), sent: Arc::default() };
        let sent = proxy.sent.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is gone shows as a closed connection.
                let _ = connect(client, server, delay, &sent);
            }
        });
        Ok(proxy)
    }

    /// The port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns how many bytes the server has sent through the proxy.
    #[allow(dead_code, reason = "some benchmarks only delay")]
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn connect(client: TcpStream, server: u16, delay: Duration, sent: &Arc<AtomicU64>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server))?;
    for end in [&client, &server] {
        end.set_nodelay(true)?;
    }
    forward(client.try_clone()?, server.try_clone()?, delay, Arc::default());
    forward(server, client, delay, sent.clone());
    Ok(())
}

/// Forwards one direction: a thread reads, and another one writes each chunk when its time has come.
fn forward(mut from: TcpStream, mut to: TcpStream, delay: Duration, count: Arc<AtomicU64>) {
    let (sender, chunks) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            count.fetch_add(length as u64, Ordering::Relaxed);
            if sender.send((Instant::now() + delay, buffer[..length].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, chunk) in chunks {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&chunk).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
