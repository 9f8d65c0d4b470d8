//! Where the slicer cuts.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Sizes of the slices of a chunk, in order; their sum is `total`, none is 0 and none above
/// `average + variation`.
///
/// Halves, give or take the variation, until a piece is no more than average and variation
/// together. Without an average nothing is cut.
pub(super) fn slice_sizes(total: usize, average: i64, variation: i64, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let bound = |value: i64| usize::try_from(value).unwrap_or(0);
    let (average, variation) = (bound(average), bound(variation));
    if total == 0 {
        return Vec::new();
    }
    if average == 0 {
        return vec![total];
    }
    let largest = average.saturating_add(variation);
    let mut sizes = Vec::new();
    // The leftmost piece is on top.
    let mut pieces = vec![total];
    while let Some(piece) = pieces.pop() {
        if piece <= largest {
            sizes.push(piece);
            continue;
        }
        let half = piece / 2;
        let shift = if variation == 0 { 0 } else { rng.random_range(0..2 * variation.min(piece)) };
        let left = (half + shift).saturating_sub(variation.min(piece)).clamp(1, piece - 1);
        pieces.push(piece - left);
        pieces.push(left);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn sizes(total: usize, average: i64, variation: i64, seed: u8) -> Vec<usize> {
        slice_sizes(total, average, variation, &mut ChaCha8Rng::from_seed([seed; 32]))
    }

    #[test]
    fn slices_add_up_and_keep_their_bounds_for_every_seed() {
        for seed in 0..50 {
            for (total, average, variation) in [(1, 1, 0), (1_000, 1, 0), (10_000, 100, 20), (5_000, 10, 900)] {
                let sizes = sizes(total, average, variation, seed);
                assert_eq!(sizes.iter().sum::<usize>(), total);
                let largest = usize::try_from(average + variation).expect("small");
                assert!(sizes.iter().all(|size| (1..=largest).contains(size)), "{sizes:?}");
            }
        }
    }

    #[test]
    fn without_variation_slices_are_halves_and_with_it_they_follow_the_seed() {
        assert_eq!(sizes(40, 10, 0, 1), [10; 4]);
        assert_eq!(sizes(10_000, 100, 40, 1), sizes(10_000, 100, 40, 1));
        assert_ne!(sizes(10_000, 100, 40, 1), sizes(10_000, 100, 40, 2));
    }

    #[test]
    fn without_an_average_nothing_is_cut() {
        assert_eq!(sizes(1_000, 0, 5, 1), [1_000]);
        assert_eq!(sizes(1_000, -3, 0, 1), [1_000]);
        assert!(sizes(0, 10, 0, 1).is_empty());
    }
}
