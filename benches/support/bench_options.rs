//! Options that every benchmark has, and `main` of a benchmark.

use std::{io, ops::Deref};

use clap::{Args, Parser};
use tokio::runtime::{Builder, Runtime};

/// Options of a benchmark: its own, and those that all have.
#[derive(Debug, Parser)]
pub(crate) struct BenchOptions<Own: Args> {
    #[command(flatten)]
    own: Own,
    /// Measure less: shows that the benchmark works, and roughly where it stands
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Passed by cargo to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl<Own: Args> BenchOptions<Own> {
    /// Returns `short` with `--quick`, else `full`.
    pub(crate) fn sized<T>(&self, full: T, short: T) -> T {
        if self.quick { short } else { full }
    }
}

impl<Own: Args> Deref for BenchOptions<Own> {
    type Target = Own;

    fn deref(&self) -> &Own {
        &self.own
    }
}

/// Runs a benchmark with the options of the command line. In a test run, which only shows that the benchmark compiles,
/// runs nothing.
pub(crate) fn run<Own: Args>(
    runtime: io::Result<Runtime>,
    bench: impl AsyncFnOnce(&BenchOptions<Own>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let options = BenchOptions::parse();
    if !options.bench {
        return Ok(());
    }
    runtime?.block_on(bench(&options))
}

/// Returns a runtime on the main thread, for benchmarks that only send, wait and measure.
#[allow(dead_code, reason = "some benchmarks run the product in their own process, on its runtime")]
pub(crate) fn one_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
