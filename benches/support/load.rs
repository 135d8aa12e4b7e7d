//! A load at a constant rate, on a thread of its own.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};

/// Interval between two PINGs.
const PING_INTERVAL: Duration = Duration::from_millis(1);

/// Calls a function at a constant rate until it is stopped.
pub(crate) struct Load<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<T>>>,
}

impl<T: Send + 'static> Load<T> {
    /// Calls `act` every `interval`. After a call that took longer, the next ones follow without a pause until the rate
    /// is right again.
    pub(crate) fn start(interval: Duration, mut act: impl FnMut() -> anyhow::Result<T> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut results, mut next) = (Vec::new(), Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                results.push(act()?);
                next += interval;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(results)
        });
        Self { stop, thread }
    }

    /// Stops the load. Returns the result of each call.
    pub(crate) fn stop(self) -> anyhow::Result<Vec<T>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the load's thread has panicked"))?
    }
}

/// Sends PINGs as another client of the server would. The results are their times in microseconds.
#[allow(dead_code, reason = "some benchmarks send no PINGs")]
pub(crate) fn pings(port: u16) -> anyhow::Result<Load<f64>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    Ok(Load::start(PING_INTERVAL, move || {
        let (sent, mut reply) = (Instant::now(), [0; 7]);
        stream.write_all(b"PING\r\n")?;
        stream.read_exact(&mut reply)?;
        ensure!(&reply == b"+PONG\r\n", "PING has another reply: {}", String::from_utf8_lossy(&reply));
        Ok(sent.elapsed().as_secs_f64() * 1e6)
    }))
}
