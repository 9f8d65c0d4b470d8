//! Exact arithmetic for the model: integers over one fixed denominator times a power of ten.
//!
//! Inputs are decimals, and the only divisions are by 12 and by the days of a month. So every
//! amount is kept as a decimal of `amount × Q`, with `Q` a multiple of 12 × 28, 12 × 29, 12 × 30 and
//! 12 × 31: sums and products never need a greatest common divisor, and only rounding divides.

use std::collections::BTreeMap;

use dashu_base::{Abs, BitTest, DivRem, Sign};
use dashu_int::IBig;

use crate::decimal::Decimal;

/// 12 × lcm(28, 29, 30, 31).
pub(crate) const Q: i64 = 4_530_960;

/// A computed amount may not leave ±1e15, compared before rounding.
pub(crate) const AMOUNT_MAX: i64 = 1_000_000_000_000_000;

/// An exact amount of money, stored as the decimal `amount × Q`.
#[derive(Debug, Clone)]
pub(crate) struct Amount(Decimal);

impl Amount {
    pub(crate) fn zero() -> Self {
        Self(Decimal::from_int(0))
    }

    pub(crate) fn of(value: &Decimal) -> Self {
        Self::share(value, 1, 1)
    }

    /// `value × numerator / denominator`; the denominator must divide `Q`.
    pub(crate) fn share(value: &Decimal, numerator: i64, denominator: i64) -> Self {
        assert!(Q % denominator == 0, "{denominator} does not divide the common denominator");
        Self(value.times(&Decimal::from_int(Q / denominator * numerator)))
    }

    pub(crate) fn times(&self, factor: &Decimal) -> Self {
        Self(self.0.times(factor))
    }

    pub(crate) fn is_negative(&self) -> bool {
        self.0.is_negative()
    }
}

/// Exponents below this get a table of all; it never exceeds 64 KiB.
const TABLE_EXPONENTS: usize = 512;

/// `factor × 10^exponent`, each computed once. Scales reach tens of thousands of digits but few of
/// those occur, so only the small ones stand in a full table.
struct Powers {
    table: Vec<IBig>,
    sparse: BTreeMap<usize, IBig>,
}

impl Powers {
    fn of(factor: i64) -> Self {
        Self { table: vec![factor.into()], sparse: BTreeMap::new() }
    }

    fn get(&mut self, exponent: usize) -> &IBig {
        if exponent >= TABLE_EXPONENTS {
            let factor = &self.table[0];
            return self.sparse.entry(exponent).or_insert_with(|| IBig::from(10).pow(exponent) * factor);
        }
        while self.table.len() <= exponent {
            self.table.push(&self.table[self.table.len() - 1] * IBig::from(10));
        }
        &self.table[exponent]
    }
}

/// Exact arithmetic that needs powers of ten: aligning two scales costs one multiplication,
/// rounding one division.
pub(crate) struct Tens {
    powers: Powers,
    q_powers: Powers,
}

impl Tens {
    pub(crate) fn new() -> Self {
        Self { powers: Powers::of(1), q_powers: Powers::of(Q) }
    }

    pub(crate) fn power(&mut self, exponent: usize) -> &IBig {
        self.powers.get(exponent)
    }

    /// `sum += term`.
    pub(crate) fn add_decimal(&mut self, sum: &mut Decimal, term: &Decimal) {
        if term.int.is_zero() {
            return;
        }
        if sum.scale >= term.scale {
            match sum.scale - term.scale {
                0 => sum.int += &term.int,
                lift => sum.int += &term.int * self.power(lift),
            }
        } else {
            sum.int *= self.power(term.scale - sum.scale);
            sum.int += &term.int;
            sum.scale = term.scale;
        }
    }

    /// `sum += term`.
    pub(crate) fn add(&mut self, sum: &mut Amount, term: &Amount) {
        self.add_decimal(&mut sum.0, &term.0);
    }

    /// `left - right`.
    pub(crate) fn minus(&mut self, left: &Amount, right: &Amount) -> Amount {
        let mut negated = right.clone();
        negated.0.int = -negated.0.int;
        self.add(&mut negated, left);
        negated
    }

    /// The amount in units of `10^-digits`, half to even; `None` beyond ±1e15.
    pub(crate) fn round(&mut self, amount: &Amount, digits: usize) -> Option<i128> {
        self.round_over(amount, digits, None)
    }

    /// `amount / divisor` in units of `10^-digits`, half to even; `None` beyond ±1e15.
    pub(crate) fn round_over(&mut self, amount: &Amount, digits: usize, divisor: Option<&IBig>) -> Option<i128> {
        let Decimal { int, scale } = &amount.0;
        let base = self.q_powers.get(*scale);
        let product = divisor.map(|d| base * d);
        let denominator = product.as_ref().unwrap_or(base);
        // |int| > 1e15 × denominator, first by size alone.
        let bits = int.bit_len() as i64 - denominator.bit_len() as i64;
        if bits > 51 || (bits > 48 && int.clone().abs() > denominator * IBig::from(AMOUNT_MAX)) {
            return None;
        }
        let rounded = half_even(&(int * IBig::from(10_i64.pow(digits as u32))), denominator);
        Some(i128::try_from(&rounded).expect("an amount within 1e15 fits"))
    }

    /// A decimal in units of `10^-digits`, half to even; any size.
    pub(crate) fn round_decimal(&mut self, value: &Decimal, digits: usize) -> IBig {
        if value.scale <= digits {
            return &value.int * self.power(digits - value.scale);
        }
        half_even(&value.int, self.power(value.scale - digits))
    }

    /// The nearest double to an amount, ties to even.
    pub(crate) fn amount_to_f64(&mut self, amount: &Amount) -> f64 {
        let denominator = self.q_powers.get(amount.0.scale);
        quotient_to_f64(&amount.0.int, denominator)
    }

    /// The nearest double to a decimal, ties to even.
    pub(crate) fn decimal_to_f64(&mut self, value: &Decimal) -> f64 {
        quotient_to_f64(&value.int, self.power(value.scale))
    }
}

/// `numerator / denominator` (positive) to the nearest whole number, ties to the even one.
pub(crate) fn half_even(numerator: &IBig, denominator: &IBig) -> IBig {
    let (quotient, remainder) = numerator.div_rem(denominator);
    let twice = remainder.abs() * IBig::from(2);
    let away = match twice.cmp(denominator) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient.bit(0),
        std::cmp::Ordering::Greater => true,
    };
    match (away, numerator.sign()) {
        (false, _) => quotient,
        (true, Sign::Positive) => quotient + IBig::ONE,
        (true, Sign::Negative) => quotient - IBig::ONE,
    }
}

/// Correctly rounded division to a double: 66 bits of quotient and a sticky bit, then one rounding.
fn quotient_to_f64(numerator: &IBig, denominator: &IBig) -> f64 {
    if numerator.is_zero() {
        return 0.0;
    }
    let magnitude = numerator.clone().abs();
    let shift = 66 + denominator.bit_len() as i64 - magnitude.bit_len() as i64;
    let (quotient, remainder) = if shift >= 0 {
        (magnitude << shift as usize).div_rem(denominator)
    } else {
        magnitude.div_rem(denominator << (-shift) as usize)
    };
    let bits = u128::try_from(&quotient).expect("67 bits fit") | u128::from(!remainder.is_zero());
    // The exponents met here lie far inside a double's range, so scaling is exact.
    let value = libm::ldexp(bits as f64, -(shift as i32));
    if numerator.sign() == Sign::Negative { -value } else { value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(text: &str) -> Amount {
        Amount::of(&Decimal::parse(text).unwrap())
    }

    #[test]
    fn the_common_denominator_covers_every_month() {
        for days in 28..=31 {
            assert_eq!(Q % (12 * days), 0);
        }
    }

    #[test]
    fn ties_go_to_the_even_neighbour_on_both_sides_of_zero() {
        let mut tens = Tens::new();
        for (text, cents) in [
            ("0.005", 0),
            ("0.015", 2),
            ("0.025", 2),
            ("-0.005", 0),
            ("-0.015", -2),
            ("-0.025", -2),
            ("0.0150000001", 2),
            ("0.0249999", 2),
            ("-0.0251", -3),
        ] {
            assert_eq!(tens.round(&amount(text), 2), Some(cents), "{text}");
        }
    }

    #[test]
    fn a_share_of_a_month_that_has_no_finite_decimal_still_ties_exactly() {
        // 0.70 / 12 × 18/30 = 0.035 exactly, so 4 cents at even rounding; 12 / 7 repeats.
        let salary = Decimal::parse("0.70").unwrap();
        let mut tens = Tens::new();
        assert_eq!(tens.round(&Amount::share(&salary, 18, 12 * 30), 2), Some(4));
        assert_eq!(tens.round(&Amount::share(&Decimal::from_int(12 * 12), 1, 12 * 28), 6), Some(428_571));
    }

    #[test]
    fn the_limit_is_exact() {
        let mut tens = Tens::new();
        assert_eq!(tens.round(&amount("1000000000000000"), 3), Some(1_000_000_000_000_000_000));
        assert_eq!(tens.round(&amount("-1000000000000000"), 0), Some(-1_000_000_000_000_000));
        assert_eq!(tens.round(&amount("1000000000000000.000000000001"), 2), None);
        assert_eq!(tens.round(&amount("-1000000000000000.000000000001"), 2), None);
        assert_eq!(tens.round(&amount("999999999999999.999999999999"), 2), Some(100_000_000_000_000_000));
    }

    #[test]
    fn doubles_are_the_nearest_ones() {
        let mut tens = Tens::new();
        for text in ["0.1", "-0.3", "123456789.123456789012", "999999999999", "0.000000000001", "0"] {
            assert_eq!(tens.decimal_to_f64(&Decimal::parse(text).unwrap()), text.parse::<f64>().unwrap(), "{text}");
            assert_eq!(tens.amount_to_f64(&amount(text)), text.parse::<f64>().unwrap(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn sums_do_not_depend_on_order_or_scale(parts in proptest::collection::vec((-1_000_000_i64..1_000_000, 0_usize..9), 1..20)) {
            let decimals: Vec<_> = parts.iter().map(|(int, scale)| Decimal { int: (*int).into(), scale: *scale }).collect();
            let mut tens = Tens::new();
            let mut sum = |order: &mut dyn Iterator<Item = &Decimal>| {
                let mut total = Amount::zero();
                order.for_each(|d| tens.add(&mut total, &Amount::of(d)));
                tens.round(&total, 9)
            };
            let forward = sum(&mut decimals.iter());
            prop_assert_eq!(forward, sum(&mut decimals.iter().rev()));
            let expected: i128 = parts.iter().map(|(int, scale)| i128::from(*int) * 10_i128.pow(9 - *scale as u32)).sum();
            prop_assert_eq!(forward, Some(expected));
        }
    }
}
