//! Exact fractions of big integers, for as long as a calculator computes. Rounded only when printed.

use dashu_base::{Abs, BitTest, Sign};
use dashu_int::IBig;
use serde_json::Value;

use super::OutOfRange;
use crate::decimal::Decimal;
use crate::exact::{AMOUNT_MAX, half_even};
use crate::quantise::fixed_point;

/// Decimals of every printed value.
pub(super) const DIGITS: usize = 12;

/// `num / den`, `den` positive; not reduced.
#[derive(Debug, Clone)]
pub(super) struct Ratio {
    pub(super) num: IBig,
    pub(super) den: IBig,
}

impl Ratio {
    pub(super) fn int(n: i64) -> Self {
        Self { num: n.into(), den: IBig::ONE }
    }

    /// # Panics
    /// If `den` is zero.
    pub(super) fn new(num: IBig, den: IBig) -> Self {
        assert!(!den.is_zero(), "a fraction needs a denominator");
        if den.sign() == Sign::Negative { Self { num: -num, den: -den } } else { Self { num, den } }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.num.is_zero()
    }

    pub(super) fn is_positive(&self) -> bool {
        !self.num.is_zero() && self.num.sign() == Sign::Positive
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        if self.den == other.den {
            return Self { num: &self.num + &other.num, den: self.den.clone() };
        }
        Self { num: &self.num * &other.den + &other.num * &self.den, den: &self.den * &other.den }
    }

    pub(super) fn minus(&self, other: &Self) -> Self {
        self.plus(&other.negated())
    }

    pub(super) fn negated(&self) -> Self {
        Self { num: -&self.num, den: self.den.clone() }
    }

    pub(super) fn times(&self, other: &Self) -> Self {
        Self { num: &self.num * &other.num, den: &self.den * &other.den }
    }

    /// # Panics
    /// If `other` is zero.
    pub(super) fn over(&self, other: &Self) -> Self {
        Self::new(&self.num * &other.den, &self.den * &other.num)
    }

    pub(super) fn power(&self, exponent: usize) -> Self {
        Self { num: self.num.pow(exponent), den: self.den.pow(exponent) }
    }

    /// With 12 decimals, half to even; an error beyond ±1e15.
    pub(super) fn print(&self) -> Result<Value, OutOfRange> {
        // |num| > 1e15 × den, first by size alone.
        let bits = self.num.bit_len() as i64 - self.den.bit_len() as i64;
        if bits > 51 || (bits > 48 && self.num.clone().abs() > &self.den * IBig::from(AMOUNT_MAX)) {
            return Err(OutOfRange);
        }
        Ok(print_units(&half_even(&(&self.num * IBig::from(10_i64.pow(DIGITS as u32))), &self.den)))
    }
}

impl From<&Decimal> for Ratio {
    fn from(decimal: &Decimal) -> Self {
        Self { num: decimal.int.clone(), den: IBig::from(10).pow(decimal.scale) }
    }
}

/// A number of units of 1e-12 as text.
pub(super) fn print_units(units: &IBig) -> Value {
    Value::String(fixed_point(units, DIGITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(num: i64, den: i64) -> String {
        match Ratio::new(num.into(), den.into()).print() {
            Ok(Value::String(text)) => text,
            _ => "out of range".to_owned(),
        }
    }

    #[test]
    fn twelve_decimals_half_to_even() {
        assert_eq!(text(1, 3), "0.333333333333");
        assert_eq!(text(-2, 3), "-0.666666666667");
        assert_eq!(text(1, 2_000_000_000_000), "0.000000000000");
        assert_eq!(text(3, 2_000_000_000_000), "0.000000000002");
        assert_eq!(text(1, -4), "-0.250000000000");
        assert_eq!(text(1_000_000_000_000_000, 1), "1000000000000000.000000000000");
        assert_eq!(text(1_000_000_000_000_001, 1), "out of range");
    }
}
