//! Random numbers that a seed determines on every platform and in every version. The generator is a named one, because
//! a library's default generator can change.

use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

/// Generator of the random numbers.
pub(super) type Random = Xoshiro256PlusPlus;

/// Purpose of a row of random numbers. Each purpose has its own row, so that drawing more numbers for one does not
/// change the others: two settings are compared on the same jobs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Arrival times of jobs.
    Arrivals = 1,
    /// Service times of jobs.
    Services = 2,
    /// Start-up times of workers.
    Starts = 3,
}

/// Returns the generator for a purpose.
pub(super) fn row(seed: u64, purpose: Purpose) -> Random {
    // The golden ratio's bits, an odd number: adjacent seeds end up far apart.
    Random::seed_from_u64(seed.wrapping_add((purpose as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}
