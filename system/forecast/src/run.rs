//! The one way in: an input's JSON to a result's JSON and the hash over both.

use serde_json::Value;

use crate::exact::Tens;
use crate::field_error::FieldError;
use crate::hash::result_hash;
use crate::input::{Uncertainty, ValidScenario, validate};
use crate::model::{Exact, Stopped, compute};
use crate::result::{OutOfRange, Printer, UncertaintyResult};
use crate::uncertainty::{Watch, simulate};

/// Part of every result and hash; changes whenever any input's result would.
pub const ENGINE_VERSION: &str = "1";

/// A finished forecast.
#[derive(Debug, Clone, PartialEq)]
pub struct ForecastOutcome {
    /// The result document, fields in the documented order, amounts as decimal strings.
    pub result: Value,
    /// 64 lower-case hex digits over `{engine_version, input, result}`.
    pub result_hash: String,
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForecastError {
    /// The input breaks the model's bounds; at least one fault. Permanent.
    #[error("input has {} wrong fields", .0.len())]
    Invalid(Vec<FieldError>),
    /// A computed amount left ±1e15. Permanent.
    #[error("amount_out_of_range")]
    AmountOutOfRange,
    /// The caller's `should_stop` said so; nothing was computed to its end.
    #[error("stopped before the end")]
    Stopped,
}

impl From<Stopped> for ForecastError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<OutOfRange> for ForecastError {
    fn from(_: OutOfRange) -> Self {
        Self::AmountOutOfRange
    }
}

/// Computes a forecast on up to `threads` threads (0 counts as 1, more than 64 as 64).
///
/// The same `input` gives the same outcome whatever `threads` is. `should_stop` is asked from the
/// calling thread, at least once a month and once per 256 paths of its own share.
///
/// # Errors
/// `Invalid` and `AmountOutOfRange` for good; `Stopped` on request.
pub fn run(input: &Value, threads: usize, should_stop: &dyn Fn() -> bool) -> Result<ForecastOutcome, ForecastError> {
    run_reporting(input, threads, should_stop, &|_| {})
}

/// As [`run`], and tells `progress` now and then, from the calling thread, how much of a simulation is
/// done: 0 to 99 percent, never less than before. What it is told leaves no trace in the outcome.
///
/// # Errors
/// As [`run`].
pub fn run_reporting(
    input: &Value,
    threads: usize,
    should_stop: &dyn Fn() -> bool,
    progress: &dyn Fn(u8),
) -> Result<ForecastOutcome, ForecastError> {
    let scenario = validate(input).map_err(ForecastError::Invalid)?;
    let mut tens = Tens::new();
    let exact = compute(&scenario, &mut tens, should_stop)?;
    let watch = Watch { should_stop, progress };
    let uncertainty = match &scenario.uncertainty {
        Some(uncertainty) => Some(spread_out(&scenario, uncertainty, &exact, &mut tens, threads, &watch)?),
        None => None,
    };
    let mut printer = Printer { digits: scenario.minor_digits, tens: &mut tens };
    let result = printer.result(ENGINE_VERSION, &scenario, &exact, uncertainty)?;
    let result = serde_json::to_value(result).expect("a result has string keys and finite numbers");
    let result_hash = result_hash(ENGINE_VERSION, input, &result);
    Ok(ForecastOutcome { result, result_hash })
}

fn spread_out(
    scenario: &ValidScenario,
    uncertainty: &Uncertainty,
    exact: &Exact,
    tens: &mut Tens,
    threads: usize,
    watch: &Watch<'_>,
) -> Result<UncertaintyResult, ForecastError> {
    let digits = scenario.minor_digits;
    if uncertainty.price_sigma_monthly.is_zero() && uncertainty.adds_sigma_monthly.is_zero() {
        return Ok(Printer { digits, tens }.certain(uncertainty, exact)?);
    }
    let simulated = simulate(scenario, uncertainty, exact, tens, threads, watch)?;
    Ok(Printer { digits, tens }.simulated(uncertainty.paths, &simulated)?)
}
