//! Financial calculators: nothing is stored, nothing is charged, every role may use them.
//!
//! The mathematics, its conventions and bounds are the forecast crate's. What this adds is a bound on
//! how many are computed at once, off the async threads: the worst input keeps a core busy for a while.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use forecastle_forecast::{Calculator, CalculatorError};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::error::{ApiError, FieldProblem, Problem};
use crate::extract::{JsonBody, parse};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;
use crate::texts::{MoneyText, RateText, Share};

/// Longest wait for a turn; then the request is refused.
const TURN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Bounds how many calculations run side by side. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Turns(Arc<Semaphore>);

impl Turns {
    /// At most `at_once` (at least 1) calculations at a time.
    pub(crate) fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once.max(1))))
    }

    async fn evaluate(&self, calculator: Calculator, input: Value) -> Result<Value, ApiError> {
        let turn = tokio::time::timeout(TURN_WAIT_MAX, self.0.clone().acquire_owned());
        let Ok(Ok(turn)) = turn.await else { return Err(ApiError::unavailable()) };
        // The turn goes with the work: a caller that hangs up does not make room for another.
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            calculator.evaluate(&input)
        });
        match task.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(CalculatorError::Invalid(faults))) => Err(ApiError::invalid(
                faults.into_iter().map(|fault| FieldProblem::new(fault.pointer, fault.code, fault.message)).collect(),
            )),
            Ok(Err(CalculatorError::AmountOutOfRange)) => {
                Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "amount_out_of_range")
                    .detail("The result lies beyond plus or minus 1e15."))
            }
            Err(_) => Err(ApiError::internal("a calculation ended early")),
        }
    }
}

/// When payments are made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents the body, which is read field by field")]
enum When {
    /// At the end of each period.
    End,
    /// At its beginning.
    Begin,
}

macro_rules! bodies {
    ($($(#[$meta:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Deserialize, ToSchema)]
            #[serde(deny_unknown_fields)]
            #[allow(dead_code, reason = "documents the body, which is read field by field")]
            pub(crate) struct $name { $($(#[$of_field])* $field: $kind,)* }
        )*
    };
}

bodies! {
    /// Flows and the rate they are discounted by.
    NpvInput {
        /// Rate of a period.
        rate: RateText,
        /// The first flow is at t = 0.
        #[schema(min_items = 1, max_items = 600, example = json!(["-15000", "1500", "2500"]))]
        flows: Vec<MoneyText>,
    }
    /// Terms of a loan or a savings plan, the payment being asked for.
    PmtInput {
        /// Rate of a period, or of a year with `periods_per_year`.
        rate: RateText,
        /// Divides the rate, exactly.
        #[schema(minimum = 1, maximum = 366)]
        periods_per_year: Option<u32>,
        #[schema(minimum = 1, maximum = 1200)]
        periods: u32,
        /// Present value.
        pv: MoneyText,
        /// Future value; 0 where absent.
        fv: Option<MoneyText>,
        /// `end` where absent.
        when: Option<When>,
    }
    /// Terms of an annuity, the present value being asked for.
    PvInput {
        /// Rate of a period, or of a year with `periods_per_year`.
        rate: RateText,
        /// Divides the rate, exactly.
        #[schema(minimum = 1, maximum = 366)]
        periods_per_year: Option<u32>,
        #[schema(minimum = 1, maximum = 1200)]
        periods: u32,
        /// Payment of each period.
        pmt: MoneyText,
        /// Future value; 0 where absent.
        fv: Option<MoneyText>,
        /// `end` where absent.
        when: Option<When>,
    }
    /// Terms of an annuity, the future value being asked for.
    FvInput {
        /// Rate of a period, or of a year with `periods_per_year`.
        rate: RateText,
        /// Divides the rate, exactly.
        #[schema(minimum = 1, maximum = 366)]
        periods_per_year: Option<u32>,
        #[schema(minimum = 1, maximum = 1200)]
        periods: u32,
        /// Payment of each period.
        pmt: MoneyText,
        /// Present value; 0 where absent.
        pv: Option<MoneyText>,
        /// `end` where absent.
        when: Option<When>,
    }
    /// Terms of an annuity, the number of periods being asked for.
    NperInput {
        /// Rate of a period, or of a year with `periods_per_year`.
        rate: RateText,
        /// Divides the rate, exactly.
        #[schema(minimum = 1, maximum = 366)]
        periods_per_year: Option<u32>,
        /// Payment of each period.
        pmt: MoneyText,
        /// Present value.
        pv: MoneyText,
        /// Future value; 0 where absent.
        fv: Option<MoneyText>,
        /// `end` where absent.
        when: Option<When>,
    }
    /// Flows with what is paid for losses and earned with gains.
    MirrInput {
        #[schema(min_items = 2, max_items = 600, example = json!(["-120000", "39000", "30000"]))]
        flows: Vec<MoneyText>,
        /// Paid on losses.
        finance_rate: RateText,
        /// Earned with gains.
        reinvestment_rate: RateText,
    }
    /// Flows, the first one at t = 0.
    IrrInput {
        #[schema(min_items = 1, max_items = 60, example = json!(["-100", "39", "59", "55", "20"]))]
        flows: Vec<MoneyText>,
    }
    /// Values in any order.
    PercentileInput {
        #[schema(min_items = 1, max_items = 10000, example = json!(["15", "20", "35", "40", "50"]))]
        values: Vec<MoneyText>,
        p: Share,
    }
    /// Terms of a loan that is paid off at the end of each period.
    AmortisationInput {
        /// Rate of a period, or of a year with `periods_per_year`.
        rate: RateText,
        /// Divides the rate, exactly.
        #[schema(minimum = 1, maximum = 366)]
        periods_per_year: Option<u32>,
        #[schema(minimum = 1, maximum = 1200)]
        periods: u32,
        /// What was lent.
        pv: MoneyText,
    }
    /// One number.
    CalculatedValue {
        /// 12 decimals, rounded once, half to even; null where there is no such value.
        #[schema(example = "122.894854950943")]
        value: Option<String>,
    }
    /// All internal rates of return.
    CalculatedRoots {
        /// Each in (-1, 10], ascending, 12 decimals; empty where there is none.
        #[schema(example = json!(["0.280948421364"]))]
        roots: Vec<String>,
    }
    /// One period of a loan.
    AmortisationRow {
        /// From 1.
        period: u32,
        interest: String,
        principal: String,
        /// Left after the payment.
        balance: String,
    }
    /// A loan's schedule.
    AmortisationSchedule {
        /// Of each period; negative for a loan received.
        payment: String,
        total_paid: String,
        total_interest: String,
        rows: Vec<AmortisationRow>,
    }
}

macro_rules! calculators {
    ($($(#[$meta:meta])* $name:ident = $calculator:ident, $path:literal, $input:ident -> $output:ident;)*) => {
        $(
            $(#[$meta])*
            #[utoipa::path(post, path = $path, tag = "calculators", request_body = $input, responses(
                (status = 200, body = $output),
                (status = 400, body = Problem, content_type = "application/problem+json", description = "The body is not JSON."),
                (status = 422, body = Problem, content_type = "application/problem+json", description = "Fields are wrong, or the result lies beyond plus or minus 1e15."),
            ))]
            pub(crate) async fn $name(
                State(state): State<AppState>,
                _caller: Caller,
                JsonBody(body): JsonBody,
            ) -> Result<Reply, ApiError> {
                let input = parse(&body)?;
                Ok(Reply::json(StatusCode::OK, &state.calculations.evaluate(Calculator::$calculator, input).await?))
            }
        )*
    };
}

calculators! {
    /// Net present value.
    npv = Npv, "/v1/calculators/npv", NpvInput -> CalculatedValue;
    /// Payment of each period.
    pmt = Pmt, "/v1/calculators/pmt", PmtInput -> CalculatedValue;
    /// Present value.
    pv = Pv, "/v1/calculators/pv", PvInput -> CalculatedValue;
    /// Future value.
    fv = Fv, "/v1/calculators/fv", FvInput -> CalculatedValue;
    /// Number of periods.
    nper = Nper, "/v1/calculators/nper", NperInput -> CalculatedValue;
    /// Modified internal rate of return.
    mirr = Mirr, "/v1/calculators/mirr", MirrInput -> CalculatedValue;
    /// Internal rates of return.
    irr = Irr, "/v1/calculators/irr", IrrInput -> CalculatedRoots;
    /// Percentile.
    percentile = Percentile, "/v1/calculators/percentile", PercentileInput -> CalculatedValue;
    /// Schedule of a loan.
    amortisation = Amortisation, "/v1/calculators/amortisation", AmortisationInput -> AmortisationSchedule;
}
