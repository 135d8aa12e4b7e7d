//! Resource use of a process, from `/proc` (Linux).

use std::{fs, process::Child, time::Duration};

use anyhow::Context;

/// Returns the CPU time of all threads of a process, to the nanosecond, without threads that have ended.
pub(crate) fn cpu(process: &Child) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{}/task", process.id())).context("/proc is needed: run this on Linux")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).context("schedstat")?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Returns the CPU time since `before` in percent of one core, if `wall` has passed since.
#[allow(dead_code, reason = "some benchmarks relate it to something else")]
pub(crate) fn percent_since(before: Duration, process: &Child, wall: Duration) -> anyhow::Result<f64> {
    Ok(cpu(process)?.saturating_sub(before).as_secs_f64() / wall.as_secs_f64() * 100.0)
}

/// Returns resident memory in MB (10^6 bytes).
pub(crate) fn resident_mb(process: &Child) -> anyhow::Result<f64> {
    let status =
        fs::read_to_string(format!("/proc/{}/status", process.id())).context("/proc is needed: run this on Linux")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map(|kib: f64| kib * 1_024.0 / 1e6).context("VmRSS")
}
