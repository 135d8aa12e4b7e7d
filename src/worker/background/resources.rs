//! What the worker uses of its machine, read from `/proc` on Linux; nothing on other systems.

use std::fs;

use tokio::time::Instant;

/// Measures this process from one heartbeat to the next.
pub(in crate::worker) struct Resources {
    /// When the CPU time was last read, and how much had been used.
    last: Option<(Instant, f64)>,
}

impl Resources {
    pub(in crate::worker) fn new() -> Self {
        Self { last: cpu_seconds().map(|used| (Instant::now(), used)) }
    }

    /// Returns fields for the heartbeat: resident memory, CPU since the last call (100 is one core), load of the
    /// machine.
    pub(in crate::worker) fn fields(&mut self) -> Vec<(&'static str, String)> {
        let rss = resident_bytes().map(|bytes| ("rss_bytes", bytes.to_string()));
        let cpu = self.cpu_percent().map(|percent| ("cpu_percent", format!("{percent:.1}")));
        let load = load_1m().map(|load| ("load_1m", load));
        [rss, cpu, load].into_iter().flatten().collect()
    }

    fn cpu_percent(&mut self) -> Option<f64> {
        let used = cpu_seconds()?;
        let now = Instant::now();
        let (then, before) = self.last.replace((now, used))?;
        let elapsed = now.duration_since(then).as_secs_f64();
        (elapsed > 0.0).then(|| 100.0 * (used - before) / elapsed)
    }
}

fn resident_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

/// Returns user and system time of this process in seconds, without its reaped children.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // After the program's name, which may contain blanks: state is the first field, utime and stime the 12th and 13th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
    let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
    Some((f64::from(user) + f64::from(system)) / f64::from(ticks))
}

fn load_1m() -> Option<String> {
    Some(fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.to_owned())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn everything_is_told() {
        let fields = Resources::new().fields();
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["rss_bytes", "cpu_percent", "load_1m"]);
        for (name, value) in fields {
            assert!(value.parse::<f64>().unwrap() >= 0.0, "{name} = {value}");
        }
    }
}
