//! Order statistics and moments of one month's paths. Same values in, same bits out: sums run in
//! fixed chunks in index order, and selecting depends on values alone.

/// Values summed together before the partial sums are.
const SUM_CHUNK: usize = 256;

/// The percentiles reported, in hundredths.
const HUNDREDTHS: [usize; 5] = [5, 25, 50, 75, 95];

/// What is reported of one month's values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread {
    /// p5, p25, p50, p75, p95, by type 7.
    pub(crate) percentiles: [f64; 5],
    pub(crate) mean: f64,
    /// Of the mean: the sample's standard deviation (n - 1) over √n; 0 for a single value.
    pub(crate) standard_error: f64,
}

/// Reorders `values` (at least one); call it with them in path order.
pub(crate) fn spread(values: &mut [f64]) -> Spread {
    let n = values.len() as f64;
    let mean = chunked_sum(values, |x| x) / n;
    let squares = chunked_sum(values, |x| (x - mean) * (x - mean));
    let standard_error = if values.len() > 1 { libm::sqrt(squares / (n - 1.0) / n) } else { 0.0 };
    let mut done = 0;
    let percentiles = HUNDREDTHS.map(|hundredths| {
        // Type 7: position (n - 1) p, between the two nearest order statistics.
        let position = (values.len() - 1) * hundredths;
        let (below, part) = (position / 100, (position % 100) as f64 / 100.0);
        let (_, low, above) = values[done..].select_nth_unstable_by(below - done, f64::total_cmp);
        let low = *low;
        done = below;
        if part == 0.0 {
            return low;
        }
        let high = above.iter().copied().min_by(f64::total_cmp).expect("a part lies below the last value");
        low + part * (high - low)
    });
    Spread { percentiles, mean, standard_error }
}

fn chunked_sum(values: &[f64], of: impl Fn(f64) -> f64) -> f64 {
    let partial = |chunk: &[f64]| chunk.iter().fold(0.0, |sum, x| sum + of(*x));
    values.chunks(SUM_CHUNK).fold(0.0, |sum, chunk| sum + partial(chunk))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_single_value_is_every_percentile() {
        let only = spread(&mut [3.5]);
        assert_eq!(only, Spread { percentiles: [3.5; 5], mean: 3.5, standard_error: 0.0 });
    }

    #[test]
    fn percentiles_interpolate_by_type_7() {
        // Ranks of 5 values: 0.2, 1, 2, 3, 3.8.
        let five = spread(&mut [50.0, 15.0, 40.0, 20.0, 35.0]);
        assert_eq!(five.percentiles, [16.0, 20.0, 35.0, 40.0, 40.0 + 0.8 * 10.0]);
        assert_eq!(five.mean, 32.0);
        assert!((five.standard_error - 14.404_860_290_887_933_f64 / 5.0_f64.sqrt()).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn selecting_agrees_with_sorting(mut values in proptest::collection::vec(-1e9_f64..1e9, 1..700)) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let expected = HUNDREDTHS.map(|h| {
                let position = (sorted.len() - 1) * h;
                let low = sorted[position / 100];
                match position % 100 {
                    0 => low,
                    part => low + part as f64 / 100.0 * (sorted[position / 100 + 1] - low),
                }
            });
            prop_assert_eq!(spread(&mut values).percentiles, expected);
        }
    }
}
