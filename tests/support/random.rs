//! Repeatable randomness: a generator with a seed.

use std::time::Duration;

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Similar seeds must not give similar sequences.
        let mut random = Self(seed ^ 0x9e37_79b9_7f4a_7c15);
        random.below(2);
        random.below(2);
        random
    }

    /// The seed in the environment variable `name`, or a new one; printed, so that the run can be repeated.
    pub fn seeded_by(name: &str) -> Self {
        let given = std::env::var(name).ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) * 7_919);
        println!("{name}={seed}");
        Self::new(seed)
    }

    /// From 0 up to `bound`, exclusive.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn millis_below(&mut self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }

    /// Another generator, for another task.
    pub fn split(&mut self) -> Self {
        Self::new(self.below(u64::from(u32::MAX)) << 32 | self.below(u64::from(u32::MAX)))
    }
}
