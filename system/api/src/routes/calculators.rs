//! Financial calculators: nothing is stored, nothing is charged, every role may use them.
//!
//! The mathematics, its conventions and bounds are the forecast crate's. What this adds is a bound on
//! how many are computed at once, off the async threads: the worst input keeps a core busy for a while.
//! A user has one turn at a time, so that nobody holds all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use forecastle_domain::{TenantId, UserId};
use forecastle_forecast::{Calculator, CalculatorError};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use crate::error::{ApiError, FieldProblem, Problem};
use crate::extract::{JsonBody, parse};
use crate::reply::Reply;
use crate::session_check::Caller;
use crate::state::AppState;
use crate::texts::{MoneyText, RateText, Share};

/// Longest wait for a turn; then the request is refused.
const TURN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Calculations of one user that run or wait; further ones get 429.
const OF_USER_MAX: usize = 8;

type Owner = (TenantId, UserId);

/// Bounds how many calculations run side by side: so many in all, one for each user. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    of_users: Arc<Mutex<HashMap<Owner, OfUser>>>,
}

/// A user with calculations that run or wait.
struct OfUser {
    turn: Arc<Semaphore>,
    count: usize,
}

/// A user's place in the line, given back when dropped.
struct Place {
    turns: Turns,
    owner: Owner,
}

/// The right to calculate, until dropped.
struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_user: OwnedSemaphorePermit,
    _place: Place,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_users = self.turns.lock();
        if let Some(user) = of_users.get_mut(&self.owner) {
            user.count -= 1;
            if user.count == 0 {
                of_users.remove(&self.owner);
            }
        }
    }
}

impl Turns {
    /// At most `at_once` (at least 1) calculations at a time.
    pub(crate) fn new(at_once: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(at_once.max(1))), of_users: Arc::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Owner, OfUser>> {
        self.of_users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self, owner: Owner) -> Result<(Place, Arc<Semaphore>), ApiError> {
        let mut of_users = self.lock();
        let user = of_users.entry(owner).or_insert_with(|| OfUser { turn: Arc::new(Semaphore::new(1)), count: 0 });
        if user.count >= OF_USER_MAX {
            return Err(too_many());
        }
        user.count += 1;
        Ok((Place { turns: self.clone(), owner }, Arc::clone(&user.turn)))
    }

    /// The user's own turn first: whoever waits for it takes nobody else's.
    async fn take(&self, owner: Owner) -> Result<Turn, ApiError> {
        let given_up = Instant::now() + TURN_WAIT_MAX;
        let (place, own) = self.place(owner)?;
        let Ok(Ok(of_user)) = timeout_at(given_up, own.acquire_owned()).await else { return Err(too_many()) };
        let all = Arc::clone(&self.all).acquire_owned();
        let Ok(Ok(of_all)) = timeout_at(given_up, all).await else { return Err(ApiError::unavailable()) };
        Ok(Turn { _of_all: of_all, _of_user: of_user, _place: place })
    }

    async fn evaluate(&self, caller: &Caller, calculator: Calculator, input: Value) -> Result<Value, ApiError> {
        let turn = self.take((caller.tenant, caller.user)).await?;
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
                (status = 429, body = Problem, content_type = "application/problem+json", description = "Too many requests, or too many calculations of this user at once (too_many_calculations)."),
            ))]
            pub(crate) async fn $name(
                State(state): State<AppState>,
                caller: Caller,
                JsonBody(body): JsonBody,
            ) -> Result<Reply, ApiError> {
                let input = parse(&body)?;
                let value = state.calculations.evaluate(&caller, Calculator::$calculator, input).await?;
                Ok(Reply::json(StatusCode::OK, &value))
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

fn too_many() -> ApiError {
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_calculations")
        .detail("Your calculations are done one after the other. Wait for their answers.")
        .retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn owner(user: u128) -> Owner {
        (TenantId::from_uuid(Uuid::nil()), UserId::from_uuid(Uuid::from_u128(user)))
    }

    #[tokio::test]
    async fn one_user_has_one_turn_and_leaves_the_others_theirs() {
        let turns = Turns::new(2);
        let first = turns.take(owner(1)).await.unwrap();
        let mut waiting = Box::pin(turns.take(owner(1)));
        assert!(timeout_at(Instant::now(), &mut waiting).await.is_err(), "its own turn is taken");
        let other = turns.take(owner(2)).await.expect("the other turn is anybody else's");
        drop(first);
        let second = waiting.await.expect("one after the other");
        let refused = turns.take(owner(3)).await.err().map(|error| error.code());
        assert_eq!(refused, Some("unavailable"), "both are taken");
        drop((second, other));
        assert!(turns.lock().is_empty());
    }

    #[tokio::test]
    async fn few_calculations_of_a_user_wait_and_the_next_is_refused_at_once() {
        let turns = Turns::new(2);
        let _running = turns.take(owner(1)).await.unwrap();
        let mut waiting: Vec<_> = (1..OF_USER_MAX).map(|_| Box::pin(turns.take(owner(1)))).collect();
        for waiter in &mut waiting {
            assert!(timeout_at(Instant::now(), waiter).await.is_err());
        }
        let started = Instant::now();
        let refused = turns.take(owner(1)).await.err().map(|error| error.code());
        assert_eq!(refused, Some("too_many_calculations"));
        assert!(started.elapsed() < TURN_WAIT_MAX / 2);
        waiting.clear();
        assert_eq!(turns.lock()[&owner(1)].count, 1);
    }
}
