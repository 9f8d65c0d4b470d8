//! Exact decimal numbers as they travel: strings, never floats.
//!
//! Accepted: an optional `-`, then `0` or digits without a leading zero, then optionally a point
//! and 1 to 12 digits. Refused: `+`, exponents, white space, `.5`, `5.`, `007`, `NaN`, thousands
//! separators, digits that are not ASCII, and anything longer than 64 bytes. `-0` is 0.

use dashu_base::Sign;
use dashu_int::IBig;

/// Most digits after the point.
pub const FRACTION_DIGITS_MAX: usize = 12;
/// Longest text read at all, bytes; far beyond every bound of the model.
pub const TEXT_LENGTH_MAX: usize = 64;

/// The text is no decimal of the accepted form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a plain decimal with at most 12 fractional digits")]
pub struct NotADecimal;

/// An exact number `int / 10^scale`. Equality and order of numbers come from [`crate::decimal::Decimal::cmp_int`]
/// and arithmetic; two scales may stand for one number.
#[derive(Debug, Clone)]
pub struct Decimal {
    pub(crate) int: IBig,
    pub(crate) scale: usize,
}

impl Decimal {
    /// Reads the accepted form; trailing zeros after the point are dropped, so `0.50` and `0.5`
    /// cost the same to compute with.
    ///
    /// # Errors
    /// `NotADecimal`.
    pub fn parse(text: &str) -> Result<Self, NotADecimal> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((_, fraction)) if !(1..=FRACTION_DIGITS_MAX).contains(&fraction.len()) => {
                return Err(NotADecimal);
            }
            Some(parts) => parts,
            None => (unsigned, ""),
        };
        let is_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let whole_is_plain = !whole.is_empty() && (whole == "0" || !whole.starts_with('0'));
        if text.len() > TEXT_LENGTH_MAX || !whole_is_plain || !is_digits(whole) || !is_digits(fraction) {
            return Err(NotADecimal);
        }
        let fraction = fraction.trim_end_matches('0');
        let mut int: IBig = format!("{whole}{fraction}").parse().map_err(|_| NotADecimal)?;
        if unsigned.len() < text.len() {
            int = -int;
        }
        Ok(Self { int, scale: fraction.len() })
    }

    /// A whole number.
    #[must_use]
    pub fn from_int(n: i64) -> Self {
        Self { int: n.into(), scale: 0 }
    }

    /// Compares with a whole number.
    #[must_use]
    pub fn cmp_int(&self, n: i64) -> std::cmp::Ordering {
        self.int.cmp(&(IBig::from(n) * IBig::from(10).pow(self.scale)))
    }

    /// Below zero; zero is not.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.int.sign() == Sign::Negative && !self.int.is_zero()
    }

    /// Exactly zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.int.is_zero()
    }

    /// The product; scales add up.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        Self { int: &self.int * &other.int, scale: self.scale + other.scale }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    fn parts(text: &str) -> (i64, usize) {
        let d = Decimal::parse(text).unwrap();
        (i64::try_from(&d.int).unwrap(), d.scale)
    }

    #[test]
    fn plain_decimals_are_read_exactly() {
        assert_eq!(parts("0"), (0, 0));
        assert_eq!(parts("-0.00"), (0, 0));
        assert_eq!(parts("12.50"), (125, 1));
        assert_eq!(parts("-0.000000000001"), (-1, 12));
        assert_eq!(parts("1000"), (1000, 0));
        assert!(!Decimal::parse("-0.0").unwrap().is_negative());
    }

    #[test]
    fn every_other_notation_is_refused() {
        for text in [
            "",
            "-",
            "+1",
            "1e3",
            "1E3",
            "NaN",
            "inf",
            "Infinity",
            " 1",
            "1 ",
            "1\n",
            ".5",
            "5.",
            "-.5",
            "007",
            "00",
            "1,000",
            "1_000",
            "0x10",
            "--1",
            "1.2.3",
            "1.0000000000000",
            "١",
            "1.-2",
            "−1",
        ] {
            assert_eq!(Decimal::parse(text).err(), Some(NotADecimal), "{text:?}");
        }
        assert!(Decimal::parse(&"9".repeat(64)).is_ok());
        assert!(Decimal::parse(&"9".repeat(65)).is_err());
    }

    #[test]
    fn bounds_compare_exactly() {
        assert_eq!(Decimal::parse("1.000000000001").unwrap().cmp_int(1), Ordering::Greater);
        assert_eq!(Decimal::parse("1.000").unwrap().cmp_int(1), Ordering::Equal);
        assert_eq!(Decimal::parse("-1.5").unwrap().cmp_int(-1), Ordering::Less);
    }
}
