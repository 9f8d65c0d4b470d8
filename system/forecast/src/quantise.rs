//! From numbers to the strings of the result: rounded once, half to even, never a minus before zero.

use dashu_int::IBig;

/// `units / 10^digits` with exactly `digits` digits after the point.
pub(crate) fn fixed_point(units: &IBig, digits: usize) -> String {
    place_point(&units.to_string(), digits)
}

/// As [`fixed_point`], from a machine integer.
pub(crate) fn fixed_point_i128(units: i128, digits: usize) -> String {
    place_point(&units.to_string(), digits)
}

fn place_point(integer: &str, digits: usize) -> String {
    if digits == 0 {
        return integer.to_owned();
    }
    let (sign, magnitude) = match integer.strip_prefix('-') {
        Some(magnitude) => ("-", magnitude),
        None => ("", integer),
    };
    let padded = format!("{magnitude:0>width$}", width = digits + 1);
    let (whole, fraction) = padded.split_at(padded.len() - digits);
    format!("{sign}{whole}.{fraction}")
}

/// A double in units of `10^-digits`, half to even on its exact value; `None` if it is not finite
/// or lies beyond ±1e15. `digits` at most 9.
pub(crate) fn round_f64(value: f64, digits: usize) -> Option<i128> {
    assert!(digits <= 9, "the product must fit 128 bits");
    if !value.is_finite() || value.abs() > 1e15 {
        return None;
    }
    // value = significand × 2^exponent exactly; below 2^53 the exponent is never positive.
    let bits = value.to_bits();
    let biased = ((bits >> 52) & 0x7ff) as i32;
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let (significand, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | (1 << 52), biased - 1075) };
    assert!(exponent <= 0, "an amount within 1e15 has bits to spare");
    let product = significand * 10_i128.pow(digits as u32);
    let shift = (-exponent) as u32;
    // The product has fewer than 84 bits.
    let rounded = if shift > 100 { 0 } else { shift_right_half_even(product, shift) };
    Some(if value.is_sign_negative() { -rounded } else { rounded })
}

fn shift_right_half_even(magnitude: i128, shift: u32) -> i128 {
    if shift == 0 {
        return magnitude;
    }
    let quotient = magnitude >> shift;
    let remainder = magnitude & ((1 << shift) - 1);
    let half = 1_i128 << (shift - 1);
    quotient + i128::from(remainder > half || (remainder == half && quotient & 1 == 1))
}

/// `count / of` with exactly six digits after the point, half to even.
pub(crate) fn ratio(count: usize, of: usize) -> String {
    let (product, of) = (count as i128 * 1_000_000, of as i128);
    let (quotient, remainder) = (product / of, product % of);
    let up = 2 * remainder > of || (2 * remainder == of && quotient % 2 == 1);
    fixed_point_i128(quotient + i128::from(up), 6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_currency_prints_its_own_digits() {
        assert_eq!(fixed_point_i128(123_450, 2), "1234.50");
        assert_eq!(fixed_point_i128(-5, 2), "-0.05");
        assert_eq!(fixed_point_i128(0, 3), "0.000");
        assert_eq!(fixed_point_i128(-1234, 0), "-1234");
        assert_eq!(fixed_point(&IBig::from(1), 6), "0.000001");
    }

    #[test]
    fn doubles_round_on_their_exact_value() {
        // 0.125 is exact in binary, 2.675 lies below its name.
        assert_eq!(round_f64(0.125, 2), Some(12));
        assert_eq!(round_f64(0.375, 2), Some(38));
        assert_eq!(round_f64(2.675, 2), Some(267));
        assert_eq!(round_f64(-0.125, 2), Some(-12));
        assert_eq!(round_f64(-0.0, 2), Some(0));
        assert_eq!(round_f64(f64::MIN_POSITIVE, 9), Some(0));
        assert_eq!(round_f64(1e15, 3), Some(1_000_000_000_000_000_000));
        assert_eq!(round_f64(-1e15 - 0.125, 0), None);
        assert_eq!([f64::NAN, f64::INFINITY].map(|x| round_f64(x, 2)), [None, None]);
    }

    #[test]
    fn ratios_have_six_digits() {
        assert_eq!(ratio(0, 7), "0.000000");
        assert_eq!(ratio(7, 7), "1.000000");
        assert_eq!(ratio(2, 3), "0.666667");
        // 1 / 64 = 0.015625 exactly; 1 / 2^7 = 0.0078125, a tie.
        assert_eq!(ratio(1, 64), "0.015625");
        assert_eq!(ratio(1, 128), "0.007812");
        assert_eq!(ratio(3, 128), "0.023438");
    }

    proptest! {
        #[test]
        fn whole_doubles_are_kept(n in -1_000_000_000_000_000_i64..=1_000_000_000_000_000) {
            prop_assert_eq!(round_f64(n as f64, 0), Some(i128::from(n)));
        }
    }
}
