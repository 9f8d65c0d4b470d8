//! Exact decimal numbers, and the two places where a value may be rounded.
//!
//! A number is an integer and a power of ten: `num / 10^scale`. Sums and products of decimals
//! stay decimals, so nothing is ever reduced by a greatest common divisor. Money carries the
//! factor [`COMMON_DENOMINATOR`] besides, which absorbs the twelfths of a salary and the days
//! of any month; division happens once, at the rounding.
//!
//! Re-derived from the specification on purpose: do not deduplicate against the system.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::{One, Signed, ToPrimitive, Zero};
use thiserror::Error;

/// `12 * lcm(28, 29, 30, 31)`: every amount of the model times this is a decimal.
pub const COMMON_DENOMINATOR: u64 = 12 * 377_580;

/// Longest decimal text that is read; the widest legal value has 13 + 1 + 12 characters and a sign.
const DECIMAL_CHARS_MAX: usize = 64;

/// Why a text is no decimal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NumberError {
    /// Neither `12` nor `-12.5`: a sign only in front, digits on both sides of the point.
    #[error("not a plain decimal: {0:?}")]
    Syntax(String),
    /// More fractional digits than allowed.
    #[error("more than {max} fractional digits")]
    TooPrecise {
        /// The number of fractional digits that are allowed.
        max: usize,
    },
    /// Longer than any legal value.
    #[error("more than {DECIMAL_CHARS_MAX} characters")]
    TooLong,
}

/// The value `num / 10^scale`, exactly.
#[derive(Debug, Clone)]
pub struct Exact {
    num: BigInt,
    scale: u32,
}

impl Exact {
    /// The number 0.
    pub fn zero() -> Self {
        Self { num: BigInt::zero(), scale: 0 }
    }

    /// A whole number.
    pub fn whole(value: i64) -> Self {
        Self { num: BigInt::from(value), scale: 0 }
    }

    /// Reads `-?digits(.digits)?` with at most `fraction_max` fractional digits.
    ///
    /// Trailing zeros of the fraction are dropped, so `1.500` and `1.5` are equally cheap.
    pub fn parse(text: &str, fraction_max: usize) -> Result<Self, NumberError> {
        if text.len() > DECIMAL_CHARS_MAX {
            return Err(NumberError::TooLong);
        }
        let syntax = || NumberError::Syntax(text.to_owned());
        let (negative, body) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = match body.split_once('.') {
            Some((_, "")) => return Err(syntax()),
            Some(parts) => parts,
            None => (body, ""),
        };
        let digits_only = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits_only(whole) || !digits_only(fraction) {
            return Err(syntax());
        }
        if fraction.len() > fraction_max {
            return Err(NumberError::TooPrecise { max: fraction_max });
        }
        let fraction = fraction.trim_end_matches('0');
        let joined = format!("{whole}{fraction}");
        let magnitude = match joined.parse::<i64>() {
            Ok(small) => BigInt::from(small),
            Err(_) => joined.parse::<BigInt>().map_err(|_| syntax())?,
        };
        Ok(Self {
            num: if negative { -magnitude } else { magnitude },
            scale: u32::try_from(fraction.len()).unwrap_or(0),
        })
    }

    /// Whether the value is 0.
    pub fn is_zero(&self) -> bool {
        self.num.is_zero()
    }

    /// Whether the value is below 0.
    pub fn is_negative(&self) -> bool {
        self.num.is_negative()
    }

    /// The distance from 0.
    pub fn abs(&self) -> Self {
        Self { num: self.num.abs(), scale: self.scale }
    }

    /// `self + other`.
    pub fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        sum.add(other);
        sum
    }

    /// `self - other`.
    pub fn minus(&self, other: &Self) -> Self {
        let mut difference = Self { num: -&other.num, scale: other.scale };
        difference.add(self);
        difference
    }

    /// Adds in place.
    pub fn add(&mut self, other: &Self) {
        match self.scale.cmp(&other.scale) {
            Ordering::Equal => self.num += &other.num,
            Ordering::Less => {
                self.num *= ten_to(other.scale - self.scale).as_ref();
                self.scale = other.scale;
                self.num += &other.num;
            }
            Ordering::Greater => {
                self.num += &other.num * ten_to(self.scale - other.scale).as_ref();
            }
        }
    }

    /// `self * other`.
    pub fn times(&self, other: &Self) -> Self {
        Self { num: &self.num * &other.num, scale: self.scale + other.scale }
    }

    /// `self * factor` for a whole factor.
    pub fn times_whole(&self, factor: u64) -> Self {
        Self { num: &self.num * factor, scale: self.scale }
    }

    /// `self^exponent`; anything to the power 0 is 1.
    pub fn to_power(&self, exponent: u32) -> Self {
        Self { num: num_traits::pow(self.num.clone(), exponent as usize), scale: self.scale * exponent }
    }

    /// The digits and the scale, for arithmetic over one big denominator.
    pub fn parts(&self) -> (&BigInt, u32) {
        (&self.num, self.scale)
    }

    /// `value * 10^scale` as a whole number; `None` where `scale` is too small to hold it.
    pub fn scaled_to(&self, scale: u32) -> Option<BigInt> {
        (scale >= self.scale).then(|| &self.num * ten_to(scale - self.scale).as_ref())
    }

    /// `value / denominator * 10^digits`, rounded once, half to even. `denominator` above 0.
    pub fn rounded_over(&self, denominator: u64, digits: u32) -> BigInt {
        let denominator = BigInt::from(denominator.max(1));
        if self.scale > digits {
            let divisor = denominator * ten_to(self.scale - digits).as_ref();
            round_half_even(&self.num, &divisor)
        } else {
            let shifted = &self.num * ten_to(digits - self.scale).as_ref();
            round_half_even(&shifted, &denominator)
        }
    }
}

impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Exact {}

impl PartialOrd for Exact {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Exact {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.scale.cmp(&other.scale) {
            Ordering::Equal => self.num.cmp(&other.num),
            Ordering::Less => (&self.num * ten_to(other.scale - self.scale).as_ref()).cmp(&other.num),
            Ordering::Greater => self.num.cmp(&(&other.num * ten_to(self.scale - other.scale).as_ref())),
        }
    }
}

/// `num / den` to the nearest whole number, ties to the even one. `den` above 0.
pub fn round_half_even(num: &BigInt, den: &BigInt) -> BigInt {
    if den.is_one() {
        return num.clone();
    }
    // Floor division: 0 <= rest < den, so only "up by one" has to be decided.
    let (floor, rest) = num.div_mod_floor(den);
    match (rest * 2u32).cmp(den) {
        Ordering::Less => floor,
        Ordering::Greater => floor + 1u32,
        Ordering::Equal if floor.is_even() => floor,
        Ordering::Equal => floor + 1u32,
    }
}

/// `num / den` to the nearest whole number, ties away from zero. `None` on overflow or `den <= 0`.
pub fn round_half_away(num: i128, den: i128) -> Option<i128> {
    if den <= 0 {
        return None;
    }
    let doubled = num.checked_abs()?.checked_mul(2)?.checked_add(den)?;
    let magnitude = doubled / den.checked_mul(2)?;
    Some(if num < 0 { -magnitude } else { magnitude })
}

/// Writes `units / 10^digits` with exactly `digits` fractional digits, never `-0`.
pub fn format_scaled(units: &BigInt, digits: u32) -> String {
    let width = digits as usize;
    let magnitude = match units.to_i64() {
        Some(small) => small.unsigned_abs().to_string(),
        None => units.abs().to_string(),
    };
    let padded = format!("{magnitude:0>minimum$}", minimum = width + 1);
    let (whole, fraction) = padded.split_at(padded.len() - width);
    let sign = if units.is_negative() { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

thread_local! {
    // A memo only: what it holds depends on nothing but the key.
    static POWERS_OF_TEN: RefCell<BTreeMap<u32, Rc<BigInt>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Entries of the memo at most; beyond it a power is computed anew.
const POWERS_KEPT_MAX: usize = 8_192;

/// `10^exponent`.
pub(super) fn ten_to(exponent: u32) -> Rc<BigInt> {
    POWERS_OF_TEN.with(|powers| {
        let mut powers = powers.borrow_mut();
        if let Some(known) = powers.get(&exponent) {
            return Rc::clone(known);
        }
        let power = Rc::new(num_traits::pow(BigInt::from(10), exponent as usize));
        if powers.len() < POWERS_KEPT_MAX {
            powers.insert(exponent, Rc::clone(&power));
        }
        power
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        Exact::parse(text, 12).expect("a decimal")
    }

    fn even(text: &str, denominator: u64, digits: u32) -> String {
        format_scaled(&exact(text).rounded_over(denominator, digits), digits)
    }

    #[test]
    fn ties_go_to_the_even_neighbour_on_both_sides_of_zero() {
        assert_eq!(even("0.005", 1, 2), "0.00");
        assert_eq!(even("0.015", 1, 2), "0.02");
        assert_eq!(even("0.025", 1, 2), "0.02");
        assert_eq!(even("-0.015", 1, 2), "-0.02");
        assert_eq!(even("-0.025", 1, 2), "-0.02");
        assert_eq!(even("-0.025000000001", 1, 2), "-0.03");
        assert_eq!(even("2.5", 1, 0), "2");
        assert_eq!(even("3.5", 1, 0), "4");
    }

    #[test]
    fn a_negative_value_that_rounds_to_zero_has_no_sign() {
        assert_eq!(even("-0.004", 1, 2), "0.00");
        assert_eq!(even("-0.5", 1, 0), "0");
        assert_eq!(even("-0.005", 1, 2), "0.00");
    }

    #[test]
    fn a_salary_tie_over_the_common_denominator_is_seen_exactly() {
        // 0.70 / 12 * 18/30 = 0.70 * 18 / 360 = 12.6 / 360 = 0.035: a tie, to 0.04 (4 is even).
        let share = COMMON_DENOMINATOR / 12 / 30;
        let over = exact("0.70").times_whole(18 * share);
        assert_eq!(format_scaled(&over.rounded_over(COMMON_DENOMINATOR, 2), 2), "0.04");
        // 0.50 / 12 * 18/30 = 9 / 360 = 0.025: a tie, to 0.02.
        let over = exact("0.50").times_whole(18 * share);
        assert_eq!(format_scaled(&over.rounded_over(COMMON_DENOMINATOR, 2), 2), "0.02");
    }

    #[test]
    fn invoices_round_ties_away_from_zero() {
        assert_eq!(round_half_away(5, 10), Some(1));
        assert_eq!(round_half_away(-5, 10), Some(-1));
        assert_eq!(round_half_away(4, 10), Some(0));
        assert_eq!(round_half_away(25, 10), Some(3));
        assert_eq!(round_half_away(1, 3), Some(0));
        assert_eq!(round_half_away(2, 3), Some(1));
        assert_eq!(round_half_away(1, 0), None);
        assert_eq!(round_half_away(i128::MAX, 2), None);
    }

    #[test]
    fn the_common_denominator_holds_every_month() {
        for days in [28, 29, 30, 31] {
            assert_eq!(COMMON_DENOMINATOR % (12 * days), 0);
        }
    }

    #[test]
    fn texts_that_are_no_plain_decimals_are_refused() {
        for bad in ["", "-", ".5", "5.", "+1", "1e3", " 1", "1_0", "--1", "1.2.3", "NaN", "٣"] {
            assert!(Exact::parse(bad, 12).is_err(), "{bad:?}");
        }
        assert_eq!(Exact::parse("0.0000000000001", 12), Err(NumberError::TooPrecise { max: 12 }));
        assert_eq!(Exact::parse(&"1".repeat(65), 12), Err(NumberError::TooLong));
    }

    #[test]
    fn comparison_ignores_how_a_value_is_scaled() {
        assert_eq!(exact("1.50"), exact("1.5"));
        assert!(exact("1.49") < exact("1.5"));
        assert!(exact("-1.49") > exact("-1.5"));
        assert_eq!(exact("3").minus(&exact("0.25")), exact("2.75"));
        assert_eq!(exact("1.1").to_power(3), exact("1.331"));
        assert_eq!(exact("1.1").to_power(0), Exact::whole(1));
    }
}
