//! Money as a whole number of minor units with its currency, and the one rounding rule of invoices.
//!
//! Not for forecasts: those are exact rationals and round half to even in their own crate.

use serde::{Deserialize, Serialize};

use crate::text_enum::text_enum;

text_enum! {
    /// The currencies a tenant may use; travels as its ISO 4217 code.
    Currency {
        /// US dollar.
        Usd = "USD",
        /// Euro.
        Eur = "EUR",
        /// Pound sterling.
        Gbp = "GBP",
        /// Yen: no minor unit.
        Jpy = "JPY",
        /// Kuwaiti dinar: a thousand fils.
        Kwd = "KWD",
    }
}

impl Currency {
    /// Fractional digits of the minor unit, from ISO 4217: 2, but 0 for JPY and 3 for KWD.
    #[must_use]
    pub const fn exponent(self) -> u32 {
        match self {
            Self::Usd | Self::Eur | Self::Gbp => 2,
            Self::Jpy => 0,
            Self::Kwd => 3,
        }
    }

    /// The ISO 4217 alphabetic code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.as_str()
    }
}

/// Why an amount could not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// The result does not fit 64 bits of minor units.
    #[error("amount out of range")]
    OutOfRange,
    /// Two currencies met; nothing here converts.
    #[error("currencies differ")]
    CurrencyMismatch,
}

/// An amount in minor units; may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// The currency the amount counts in.
    pub currency: Currency,
    /// Minor units: cents, pence, yen, fils.
    pub amount_minor: i64,
}

impl Money {
    /// An amount of minor units.
    #[must_use]
    pub const fn new(currency: Currency, amount_minor: i64) -> Self {
        Self { currency, amount_minor }
    }

    /// Nothing, in a currency.
    #[must_use]
    pub const fn zero(currency: Currency) -> Self {
        Self::new(currency, 0)
    }

    /// Sum of two amounts of one currency.
    ///
    /// # Errors
    /// `CurrencyMismatch`, or `OutOfRange` beyond 64 bits.
    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_add)
    }

    /// Difference of two amounts of one currency.
    ///
    /// # Errors
    /// `CurrencyMismatch`, or `OutOfRange` beyond 64 bits.
    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        self.combine(other, i64::checked_sub)
    }

    /// The amount, `quantity` times.
    ///
    /// # Errors
    /// `OutOfRange` beyond 64 bits.
    pub fn checked_mul(self, quantity: i64) -> Result<Self, MoneyError> {
        let amount_minor = self.amount_minor.checked_mul(quantity).ok_or(MoneyError::OutOfRange)?;
        Ok(Self { amount_minor, ..self })
    }

    fn combine(self, other: Self, operation: fn(i64, i64) -> Option<i64>) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch);
        }
        let amount_minor = operation(self.amount_minor, other.amount_minor).ok_or(MoneyError::OutOfRange)?;
        Ok(Self { amount_minor, ..self })
    }
}

impl std::fmt::Display for Money {
    /// Code and decimal amount: `USD 29.00`, `JPY -4300`, `KWD 0.061`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scale = 10_u64.pow(self.currency.exponent());
        let magnitude = self.amount_minor.unsigned_abs();
        let sign = if self.amount_minor < 0 { "-" } else { "" };
        write!(f, "{} {sign}{}", self.currency.code(), magnitude / scale)?;
        match self.currency.exponent() as usize {
            0 => Ok(()),
            digits => write!(f, ".{:0digits$}", magnitude % scale),
        }
    }
}

/// `numerator / denominator` to the nearest whole number, ties away from zero.
///
/// # Errors
/// `OutOfRange` if the quotient does not fit 64 bits.
///
/// # Panics
/// If `denominator` is not positive: every caller divides by a constant or by a period's length.
pub fn round_half_away(numerator: i128, denominator: i128) -> Result<i64, MoneyError> {
    assert!(denominator > 0, "denominator must be positive");
    let (quotient, remainder) = (numerator / denominator, numerator % denominator);
    // Compares without doubling the remainder, which could overflow.
    let away = remainder.abs() >= denominator - remainder.abs();
    let step = if away { numerator.signum() } else { 0 };
    i64::try_from(quotient + step).map_err(|_| MoneyError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exponents_follow_iso_4217() {
        let exponents: Vec<_> = Currency::ALL.iter().map(|c| (c.code(), c.exponent())).collect();
        assert_eq!(exponents, [("USD", 2), ("EUR", 2), ("GBP", 2), ("JPY", 0), ("KWD", 3)]);
    }

    #[test]
    fn amounts_print_with_their_currencys_digits() {
        assert_eq!(Money::new(Currency::Usd, 2900).to_string(), "USD 29.00");
        assert_eq!(Money::new(Currency::Usd, -5).to_string(), "USD -0.05");
        assert_eq!(Money::new(Currency::Jpy, -4300).to_string(), "JPY -4300");
        assert_eq!(Money::new(Currency::Kwd, 61).to_string(), "KWD 0.061");
        assert_eq!(Money::new(Currency::Kwd, i64::MIN).to_string(), "KWD -9223372036854775.808");
    }

    #[test]
    fn currencies_never_mix() {
        let (dollar, yen) = (Money::new(Currency::Usd, 1), Money::new(Currency::Jpy, 1));
        assert_eq!(dollar.checked_add(yen), Err(MoneyError::CurrencyMismatch));
        assert_eq!(dollar.checked_sub(yen), Err(MoneyError::CurrencyMismatch));
    }

    #[test]
    fn overflow_is_an_error() {
        let most = Money::new(Currency::Eur, i64::MAX);
        let one = Money::new(Currency::Eur, 1);
        assert_eq!(most.checked_add(one), Err(MoneyError::OutOfRange));
        assert_eq!(most.checked_mul(2), Err(MoneyError::OutOfRange));
        assert_eq!(most.checked_sub(most), Ok(Money::zero(Currency::Eur)));
        assert_eq!(round_half_away(i128::from(i64::MAX) * 2, 1), Err(MoneyError::OutOfRange));
    }

    #[test]
    fn ties_leave_zero_on_both_sides() {
        for (numerator, denominator, rounded) in
            [(1, 2, 1), (-1, 2, -1), (3, 2, 2), (-3, 2, -2), (5, 2, 3), (49, 100, 0), (-51, 100, -1)]
        {
            assert_eq!(round_half_away(numerator, denominator), Ok(rounded), "{numerator}/{denominator}");
        }
        assert_eq!(round_half_away(i128::MAX, i128::MAX), Ok(1));
    }

    proptest! {
        #[test]
        fn rounding_is_odd_and_within_half(n in -1_000_000_000_i64..1_000_000_000, d in 1_i64..5_000) {
            let (n, d) = (i128::from(n), i128::from(d));
            let rounded = i128::from(round_half_away(n, d).unwrap());
            prop_assert!((2 * (rounded * d - n)).abs() <= d);
            prop_assert_eq!(i128::from(round_half_away(-n, d).unwrap()), -rounded);
        }
    }
}
