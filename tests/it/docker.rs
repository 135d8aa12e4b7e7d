//! The Docker backend on a real engine: containers of a tiny image, whose worker is a shell.

pub(crate) mod bench;
mod compose;

mod failures;
mod outages;
mod private_registry;
mod reload;
mod tls;
mod whole;
mod workers;
