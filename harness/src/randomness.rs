//! One root seed, named child streams.
//!
//! A stream's key is SHA-256 over the seed and its name, so a new client or a new fault takes a stream of its own and
//! leaves every other stream as it was. Nothing here reads a clock or the operating system's entropy.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The root of all draws of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Randomness {
    seed: u64,
}

impl Randomness {
    /// The streams of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The root seed, as it stands in the manifest.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The stream called `name`, from its beginning; the same name gives the same draws each time it is opened.
    pub fn stream(&self, name: &str) -> ChaCha8Rng {
        let mut hash = Sha256::new();
        hash.update(b"nogo/stream/1\0");
        hash.update(self.seed.to_le_bytes());
        hash.update(name.as_bytes());
        ChaCha8Rng::from_seed(hash.finalize().into())
    }
}

/// True with probability `share` (0 to 1). Uses 32 bits of the stream whatever the answer.
pub fn chance(rng: &mut ChaCha8Rng, share: f64) -> bool {
    f64::from(rng.next_u32()) < share * 4_294_967_296.0
}

/// One element of `items`, which must not be empty; equal weights.
pub fn pick<'a, T>(rng: &mut ChaCha8Rng, items: &'a [T]) -> &'a T {
    assert!(!items.is_empty(), "pick from an empty list");
    &items[rng.random_range(0..items.len())]
}

/// A version-4 UUID made from the stream, for idempotency keys and for ids that belong to nobody.
pub fn uuid(rng: &mut ChaCha8Rng) -> uuid::Uuid {
    let mut bytes = [0_u8; 16];
    rng.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gives_the_same_draws() {
        let root = Randomness::new(7);
        assert_eq!(root.stream("workload/plan").next_u64(), root.stream("workload/plan").next_u64());
    }

    #[test]
    fn another_name_or_another_seed_gives_other_draws() {
        let draws: std::collections::BTreeSet<u64> = [(7, "a"), (7, "b"), (8, "a")]
            .into_iter()
            .map(|(seed, name)| Randomness::new(seed).stream(name).next_u64())
            .collect();
        assert_eq!(draws.len(), 3);
    }

    #[test]
    fn ids_are_random_ones_and_differ_within_a_stream() {
        let mut rng = Randomness::new(1).stream("x");
        let (first, second) = (uuid(&mut rng), uuid(&mut rng));
        assert_ne!(first, second);
        assert_eq!(first.get_version_num(), 4);
        assert_eq!(first, uuid(&mut Randomness::new(1).stream("x")));
    }

    #[test]
    fn chance_keeps_its_share() {
        let mut rng = Randomness::new(3).stream("chance");
        let hits = (0..10_000).filter(|_| chance(&mut rng, 0.15)).count();
        assert!((1_400..1_600).contains(&hits), "{hits}");
        assert!(!chance(&mut rng, 0.0));
        assert!(chance(&mut rng, 1.0));
    }
}
