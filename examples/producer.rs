//! A producer: publishes one job and waits for its result, then a second one that nobody waits for.
//!
//! ```sh
//! REDIS_URL=redis://localhost:6379/0 cargo run --no-default-features --example producer
//! ```
//!
//! `cargo run --example handler` is the worker that runs them.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use serde_json::Map;
use swarm::{Client, Job};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let redis_url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://localhost:6379/0".to_owned());
    let client = Client::open(&redis_url, &["resize"])?;

    let job = Job::new("resize.scale", vec![640.into(), 480.into(), 0.5.into()], Map::new());
    let size = client.call(job, Duration::from_secs(30)).await?;
    println!("scaled: {size}");

    // The key makes a repetition harmless: a second job with the same key is not written.
    let job = Job::new("resize.scale", vec![64.into(), 48.into(), 2.into()], Map::new());
    let published = client.publish(&job.with_idempotency_key("icon-2x")).await?;
    println!("published: {published:?}");
    Ok(())
}
