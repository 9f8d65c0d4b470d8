//! Natural logarithms of fractions in fixed point, with a bound on the error.

use dashu_base::BitTest;
use dashu_int::IBig;

use super::ratio::Ratio;

/// `ln(value) × 2^bits` for a positive value, and a bound on the error in units of 2^-bits.
pub(super) fn ln(value: &Ratio, bits: usize) -> (IBig, IBig) {
    // value = 2^shift × m, with m between 1/2 and 2.
    let shift = value.num.bit_len() as i64 - value.den.bit_len() as i64;
    let m = if shift >= 0 {
        Ratio { num: value.num.clone(), den: &value.den << shift as usize }
    } else {
        Ratio { num: &value.num << (-shift) as usize, den: value.den.clone() }
    };
    let (of_m, error_of_m) = ln_near_one(&m, bits);
    if shift == 0 {
        return (of_m, error_of_m);
    }
    let (of_two, error_of_two) = ln_near_one(&Ratio::int(2), bits);
    let shift = IBig::from(shift);
    let error = error_of_m + error_of_two * IBig::from(shift.bit_len()).pow(2) + &shift * &shift;
    (of_m + of_two * shift, error)
}

/// `ln(x) = 2 (t + t³/3 + t⁵/5 + …)` with `t = (x - 1) / (x + 1)`, |t| at most 1/3.
fn ln_near_one(x: &Ratio, bits: usize) -> (IBig, IBig) {
    let num = &x.num - &x.den;
    let den = &x.num + &x.den;
    let mut power = (num << bits) / den;
    let square = (&power * &power) >> bits;
    let mut sum = IBig::ZERO;
    let mut terms: u32 = 0;
    while !power.is_zero() && power != IBig::NEG_ONE {
        sum += &power / IBig::from(2 * terms + 1);
        power = (&power * &square) >> bits;
        terms += 1;
    }
    // Each term is off by less than two units (its power's rounding shrinks with t² ≤ 1/9, its own
    // division adds one); what follows the last term is less than one.
    (sum * IBig::from(2), IBig::from(4 * terms + 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_agree_with_doubles_within_their_bound() {
        for (num, den) in
            [(1_i64, 1_i64), (2, 1), (1, 3), (1_000_000_000_001, 1_000_000_000_000), (11, 1), (1, 100_000), (7, 5)]
        {
            let (value, error) = ln(&Ratio::new(IBig::from(num), IBig::from(den)), 200);
            let expected = ((num as f64) / (den as f64)).ln();
            let units = i128::try_from(&(value >> 140)).unwrap() as f64;
            let actual = units / (1_u64 << 60) as f64;
            assert!((actual - expected).abs() <= 1e-15 * (1.0 + expected.abs()), "{num}/{den}: {actual} {expected}");
            assert!(error < IBig::from(1_u64 << 20), "the bound is tight: {error}");
        }
    }
}
