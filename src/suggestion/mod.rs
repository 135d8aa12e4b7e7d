//! Searches for better scaling settings on recorded jobs: simulates a small grid of settings, and chooses those that
//! are cheaper without a longer wait, or quicker without more worker-hours (`docs/simulation.md`,
//! `docs/adr/0072-suggestions-are-simulated.md`).
//!
//! Owns the grid, the windows of a schedule that follow the hours of the recording, and the choice. Must not run a
//! simulation itself, so that its caller can spread them over processors, and must not change the pool's maximum, which
//! is a person's decision. The same jobs, settings and seed lead to the same suggestion.

mod choice;
mod grid;
mod hours;
mod outcome;
mod search;

pub use choice::Aim;
pub use grid::Candidate;
pub use outcome::Outcome;
pub use search::{Choice, Part, Stage, Suggestion, SuggestionInput, suggest};
