//! Independent oracles: what the right answer would have been.
//!
//! Everything below re-derives the expectation from the written specification on purpose.
//! It shares no code with the system it judges and must not be deduplicated against it: a
//! shared function would hide a shared mistake. Here are only pure functions of their
//! arguments (no clock, no randomness, no I/O); input that an oracle cannot read gives an
//! [`OracleError`], never a panic, and a checker turns that into `unknown`.

pub mod billing;
pub mod calculators;
pub mod calendar;
pub mod canonical;
pub mod compare;
mod error;
pub mod exact;
pub mod forecast;
pub mod quota;
pub mod scenario;
mod uncertainty;

pub use billing::{
    BillingError, ExpectedInvoice, ExpectedLine, LineKind, Plan, TenantFacts, UsageEvent, expected_invoices,
};
pub use calculators::{CalculatorFinding, check_calculator};
pub use calendar::{CalendarError, Period, periods};
pub use canonical::{CanonicalError, canonical_json, result_hash};
pub use compare::{Comparison, Mismatch, compare, compare_failure};
pub use error::OracleError;
pub use exact::Exact;
pub use forecast::{AMOUNT_OUT_OF_RANGE, Expected, forecast, forecast_as};
pub use quota::{QuotaAnswer, QuotaFinding, QuotaRequest, judge_quota};
