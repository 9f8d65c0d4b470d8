//! Pure forecast mathematics: scenario in, exact result and canonical hash out.
//!
//! `MODEL.md` beside this crate states every formula, format and choice. Nothing here reads a
//! clock, the environment or a file; the same input gives the same bytes on any machine, with any
//! number of threads.

pub mod calculators;
pub mod calendar;
pub mod decimal;
mod exact;
pub mod field_error;
mod hash;
pub mod input;
mod model;
mod normal;
mod percentile;
mod quantise;
mod reader;
mod result;
mod run;
mod uncertainty;

pub use calculators::{Calculator, CalculatorError};
pub use field_error::FieldError;
pub use input::{Cost, Revenue, Uncertainty, ValidScenario, validate};
pub use run::{ENGINE_VERSION, ForecastError, ForecastOutcome, run, run_reporting};
