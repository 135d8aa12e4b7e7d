//! Where pages may go: which text names a page, and which addresses are public. Pure: resolves nothing, connects to
//! nothing, so whoever takes an address from a person can say no before anybody is asked, and the worker's proxy, which
//! checks every connection (`docs/adr/0007-browser-egress.md`), keeps the same rule.

mod address;
mod page;

pub use address::AddressRule;
pub use page::{NotAPage, check_written, page_url};
