//! Decides where pages may go: which text names a page, and which addresses are public. Pure: resolves and connects to
//! nothing. So the bot can refuse an address before it asks a worker, and the worker's proxy, which checks every
//! connection (`docs/adr/0007-browser-egress.md`), applies the same rule.

mod address;
mod page;

pub use address::AddressRule;
pub use page::{NotAPage, check_written, page_url, shown, without_credentials};
