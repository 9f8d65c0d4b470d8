//! Financial calculators: one JSON object in, one JSON object out, exact until the last step.
//!
//! Conventions are those of numpy-financial (signs, `begin` and `end`, flows from t = 0); `MODEL.md`,
//! section 8, states each. Every value has 12 decimals, rounded once, half to even, from the exact
//! number, also where that is irrational. Nothing here is ever NaN: where no value exists it is null.

mod annuity;
mod logarithm;
mod mirr;
mod periods;
mod polynomial;
mod ratio;
mod roots;
mod schedule;
mod series;

use serde_json::Value;

use crate::field_error::FieldError;
use crate::reader::{Faults, Reader};

/// The calculators there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calculator {
    /// Net present value of flows, the first one at t = 0.
    Npv,
    /// Payment of each period.
    Pmt,
    /// Present value of an annuity.
    Pv,
    /// Future value of an annuity.
    Fv,
    /// Number of periods until a future value is reached.
    Nper,
    /// Modified internal rate of return.
    Mirr,
    /// Every internal rate of return in (-1, 10].
    Irr,
    /// A percentile by type 7.
    Percentile,
    /// Interest, principal and balance of each period of a loan.
    Amortisation,
}

/// Why a calculator gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalculatorError {
    /// The input breaks the bounds; at least one fault.
    #[error("input has {} wrong fields", .0.len())]
    Invalid(Vec<FieldError>),
    /// A value lies beyond ±1e15.
    #[error("amount_out_of_range")]
    AmountOutOfRange,
}

impl Calculator {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Npv,
        Self::Pmt,
        Self::Pv,
        Self::Fv,
        Self::Nper,
        Self::Mirr,
        Self::Irr,
        Self::Percentile,
        Self::Amortisation,
    ];

    /// Its name in paths and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Npv => "npv",
            Self::Pmt => "pmt",
            Self::Pv => "pv",
            Self::Fv => "fv",
            Self::Nper => "nper",
            Self::Mirr => "mirr",
            Self::Irr => "irr",
            Self::Percentile => "percentile",
            Self::Amortisation => "amortisation",
        }
    }

    /// Computes. Single-threaded; bounded by the input's bounds, at worst about a second for `irr`.
    ///
    /// # Errors
    /// `Invalid` with every wrong field, or `AmountOutOfRange`.
    pub fn evaluate(self, input: &Value) -> Result<Value, CalculatorError> {
        let faults = Faults::new();
        let read = Reader::new(input, String::new(), &faults).and_then(|reader| match self {
            Self::Npv => series::npv(&reader),
            Self::Pmt => annuity::pmt(&reader),
            Self::Pv => annuity::pv(&reader),
            Self::Fv => annuity::fv(&reader),
            Self::Nper => periods::nper(&reader),
            Self::Mirr => mirr::mirr(&reader),
            Self::Irr => roots::irr(&reader),
            Self::Percentile => series::percentile(&reader),
            Self::Amortisation => schedule::amortisation(&reader),
        });
        let faults = faults.into_vec();
        match read {
            Some(answer) if faults.is_empty() => answer.map_err(|OutOfRange| CalculatorError::AmountOutOfRange),
            _ => Err(CalculatorError::Invalid(faults)),
        }
    }
}

impl std::str::FromStr for Calculator {
    type Err = UnknownCalculator;

    fn from_str(name: &str) -> Result<Self, UnknownCalculator> {
        Self::ALL.into_iter().find(|calculator| calculator.name() == name).ok_or(UnknownCalculator)
    }
}

/// No calculator has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such calculator; there are npv, pmt, pv, fv, nper, mirr, irr, percentile and amortisation")]
pub struct UnknownCalculator;

/// A value beyond ±1e15.
struct OutOfRange;

/// What a calculator makes of a well-formed input; the outer `None` means that faults were noted.
type Answer = Option<Result<Value, OutOfRange>>;
