//! Random numbers that are the same everywhere and always, for one seed: the generator is named, not "the standard
//! one".

use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

/// The generator.
pub(super) type Random = Xoshiro256PlusPlus;

/// What numbers are drawn for. Each has a row of its own, so that more of one kind change nothing about the others: two
/// settings are compared on the same jobs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// When jobs come.
    Arrivals = 1,
    /// How long they take.
    Services = 2,
    /// How long workers take to start.
    Starts = 3,
}

/// The row of numbers for a purpose.
pub(super) fn row(seed: u64, purpose: Purpose) -> Random {
    // The golden ratio's bits, an odd number: seeds that are neighbours are far apart afterwards.
    Random::seed_from_u64(seed.wrapping_add((purpose as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}
