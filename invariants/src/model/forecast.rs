//! The whole expected result of a forecast, from its input alone, in exact arithmetic.
//!
//! Money is held as a decimal times [`COMMON_DENOMINATOR`] and rounded once, where it is
//! written. Choices where the specification is silent: units are no amounts, so only money
//! is held against the limit, unrounded, and 1e15 itself is still inside; a runway counts
//! the months before the first t with negative cash, whatever the opening cash was; a
//! headcount line is named by its role; a line of the input that ends before it starts
//! (fixed costs) costs nothing.
//!
//! Re-derived from the specification on purpose: do not deduplicate against the system.

use num_bigint::BigInt;
use num_traits::{One, Signed, Zero};
use serde_json::{Map, Value, json};

use super::error::OracleError;
use super::exact::{COMMON_DENOMINATOR, Exact, format_scaled, round_half_even, ten_to};
use super::scenario::{Cost, CostLine, Day, Month, RevenueLine, Scenario};

/// The stable code of a forecast with an amount beyond the limit.
pub const AMOUNT_OUT_OF_RANGE: &str = "amount_out_of_range";

/// No reported amount may be further from 0, in major units.
const AMOUNT_MAX: i64 = 1_000_000_000_000_000;

/// Fractional digits of reported units.
const UNITS_DIGITS: u32 = 6;

/// How a forecast of a given input must end.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    /// Succeeded with this result; `uncertainty` is null whatever the input asks for.
    Result(Value),
    /// Failed for good with this stable code.
    Failed {
        /// The code that the job must show.
        code: &'static str,
    },
}

/// The expected end of the forecast of `input`; the result has no `engine_version`.
///
/// Errors name the first field of the input that is malformed or out of bounds.
pub fn forecast(input: &Value) -> Result<Expected, OracleError> {
    let scenario = Scenario::read(input)?;
    let books = Books::of(&scenario);
    Ok(books.report(&scenario))
}

/// [`forecast`] with `engine_version` put into the result, ready for hashing.
pub fn forecast_as(input: &Value, engine_version: &str) -> Result<Expected, OracleError> {
    let expected = forecast(input)?;
    Ok(match expected {
        Expected::Result(Value::Object(mut result)) => {
            result.insert("engine_version".to_owned(), json!(engine_version));
            Expected::Result(Value::Object(result))
        }
        other => other,
    })
}

/// The unrounded months; every [`Exact`] of money carries the common denominator.
pub(super) struct Books {
    pub(super) months: Vec<MonthBook>,
}

/// One unrounded month.
pub(super) struct MonthBook {
    month: Month,
    revenue_lines: Vec<RevenueEntry>,
    cost_lines: Vec<Exact>,
    pub(super) flows: Flows,
    pub(super) cash: Exact,
}

struct RevenueEntry {
    units: Exact,
    amount: Exact,
}

/// What adds up over months.
#[derive(Clone)]
pub(super) struct Flows {
    pub(super) revenue: Exact,
    costs: Exact,
    ebitda: Exact,
    tax: Exact,
    net_income: Exact,
    collected: Exact,
    net_cash: Exact,
}

impl Flows {
    fn zero() -> Self {
        Self {
            revenue: Exact::zero(),
            costs: Exact::zero(),
            ebitda: Exact::zero(),
            tax: Exact::zero(),
            net_income: Exact::zero(),
            collected: Exact::zero(),
            net_cash: Exact::zero(),
        }
    }

    fn add(&mut self, other: &Self) {
        self.revenue.add(&other.revenue);
        self.costs.add(&other.costs);
        self.ebitda.add(&other.ebitda);
        self.tax.add(&other.tax);
        self.net_income.add(&other.net_income);
        self.collected.add(&other.collected);
        self.net_cash.add(&other.net_cash);
    }

    fn named(&self) -> [(&'static str, &Exact); 7] {
        [
            ("revenue", &self.revenue),
            ("costs", &self.costs),
            ("ebitda", &self.ebitda),
            ("tax", &self.tax),
            ("net_income", &self.net_income),
            ("collected", &self.collected),
            ("net_cash", &self.net_cash),
        ]
    }
}

impl Books {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let horizon = scenario.horizon_months;
        let mut revenue: Vec<RevenueState> = scenario.revenue.iter().map(RevenueState::opening).collect();
        let mut costs: Vec<CostState<'_>> = scenario.costs.iter().map(CostState::new).collect();
        let mut cash = scenario.opening_cash.times_whole(COMMON_DENOMINATOR);
        let mut months: Vec<MonthBook> = Vec::with_capacity(horizon as usize);
        for t in 0..horizon {
            let month = scenario.start_month.plus(t);
            let revenue_lines: Vec<RevenueEntry> =
                scenario.revenue.iter().zip(&mut revenue).map(|(line, state)| state.advance(line, t, month)).collect();
            let mut flows = Flows::zero();
            for entry in &revenue_lines {
                flows.revenue.add(&entry.amount);
            }
            let cost_lines: Vec<Exact> = costs.iter_mut().map(|state| state.cost_in(month, &flows.revenue)).collect();
            for cost in &cost_lines {
                flows.costs.add(cost);
            }
            flows.ebitda = flows.revenue.minus(&flows.costs);
            if !flows.ebitda.is_negative() {
                flows.tax = scenario.tax_rate.times(&flows.ebitda);
            }
            flows.net_income = flows.ebitda.minus(&flows.tax);
            for (index, line) in scenario.revenue.iter().enumerate() {
                let lag = line.collection_lag_months;
                if lag == 0 {
                    flows.collected.add(&revenue_lines[index].amount);
                } else if let Some(past) = (t as usize).checked_sub(lag) {
                    flows.collected.add(&months[past].revenue_lines[index].amount);
                }
            }
            flows.net_cash = flows.collected.minus(&flows.costs).minus(&flows.tax);
            cash.add(&flows.net_cash);
            months.push(MonthBook { month, revenue_lines, cost_lines, flows, cash: cash.clone() });
        }
        Self { months }
    }

    /// The first month with negative cash.
    pub(super) fn runway(&self) -> Option<usize> {
        self.months.iter().position(|month| month.cash.is_negative())
    }

    fn break_even(&self) -> Option<usize> {
        self.months.iter().position(|month| !month.flows.ebitda.is_negative())
    }

    fn report(&self, scenario: &Scenario) -> Expected {
        let mut printer = Printer::new(scenario.exponent);
        let months: Vec<Value> = self.months.iter().map(|month| printer.month(month, scenario)).collect();
        let mut totals = Flows::zero();
        let mut years: Vec<(i32, Flows)> = Vec::new();
        for month in &self.months {
            totals.add(&month.flows);
            let year = month.month.year();
            match years.last_mut() {
                Some((last, flows)) if *last == year => flows.add(&month.flows),
                _ => years.push((year, month.flows.clone())),
            }
        }
        let years: Vec<Value> = years
            .iter()
            .map(|(year, flows)| {
                let mut out = Map::new();
                out.insert("year".to_owned(), json!(year));
                printer.flows(&mut out, flows);
                Value::Object(out)
            })
            .collect();
        let mut total = Map::new();
        printer.flows(&mut total, &totals);
        let npv = printer.npv(self, scenario);
        if printer.out_of_range {
            return Expected::Failed { code: AMOUNT_OUT_OF_RANGE };
        }
        Expected::Result(json!({
            "currency": scenario.currency,
            "months": months,
            "years": years,
            "totals": total,
            "npv_end_of_month": npv,
            "break_even_month_index": self.break_even(),
            "runway_months": self.runway(),
            "uncertainty": null,
        }))
    }
}

/// Units, adds and price of one line as they go from month to month.
struct RevenueState {
    units: Exact,
    adds: Exact,
    adds_factor: Exact,
    kept: Exact,
    price: Exact,
    price_factor: Exact,
}

impl RevenueState {
    fn opening(line: &RevenueLine) -> Self {
        let one = Exact::whole(1);
        Self {
            units: line.opening_units.clone(),
            adds: line.adds_per_month.clone(),
            adds_factor: one.plus(&line.adds_growth_monthly),
            kept: one.minus(&line.churn_monthly),
            price: line.price.times_whole(COMMON_DENOMINATOR),
            price_factor: one.plus(&line.price_growth_annual),
        }
    }

    /// Month `t`; called once for each, in order.
    fn advance(&mut self, line: &RevenueLine, t: u32, month: Month) -> RevenueEntry {
        if t > 0 {
            self.adds = self.adds.times(&self.adds_factor);
            if t.is_multiple_of(12) {
                self.price = self.price.times(&self.price_factor);
            }
        }
        self.units = self.units.times(&self.kept);
        self.units.add(&self.adds);
        let season = &line.seasonality[month.index_in_year()];
        RevenueEntry { units: self.units.clone(), amount: self.units.times(&self.price).times(season) }
    }
}

/// A cost line with the amount of its current year, which twelve months share.
struct CostState<'a> {
    line: &'a CostLine,
    of_year: Option<(u32, Exact)>,
}

impl<'a> CostState<'a> {
    fn new(line: &'a CostLine) -> Self {
        Self { line, of_year: None }
    }

    /// Both `revenue` and the answer carry the common denominator.
    fn cost_in(&mut self, month: Month, revenue: &Exact) -> Exact {
        match &self.line.cost {
            Cost::PercentOfRevenue { rate } => rate.times(revenue),
            Cost::OneOff { amount, month: due } if *due == month => amount.times_whole(COMMON_DENOMINATOR),
            Cost::OneOff { .. } => Exact::zero(),
            Cost::Fixed { amount, growth_annual, start, end } => {
                if month < *start || end.is_some_and(|end| month > end) {
                    return Exact::zero();
                }
                let year = u32::try_from(month.since(*start)).unwrap_or(0) / 12;
                match &self.of_year {
                    Some((known, amount)) if *known == year => amount.clone(),
                    _ => {
                        let growth = Exact::whole(1).plus(growth_annual).to_power(year);
                        let grown = amount.times_whole(COMMON_DENOMINATOR).times(&growth);
                        self.of_year = Some((year, grown.clone()));
                        grown
                    }
                }
            }
            Cost::Headcount { annual_salary, burden_rate, start, end } => {
                let days = days_employed(month, *start, *end);
                let share = COMMON_DENOMINATOR / 12 / u64::from(month.days());
                annual_salary.times(&Exact::whole(1).plus(burden_rate)).times_whole(u64::from(days) * share)
            }
        }
    }
}

/// Days of `month` from `start` to `end`, both included.
fn days_employed(month: Month, start: Day, end: Option<Day>) -> u32 {
    let last = month.days();
    let from = match start.month.cmp(&month) {
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Equal => start.day,
        std::cmp::Ordering::Greater => return 0,
    };
    let to = match end {
        None => last,
        Some(end) if end.month < month => return 0,
        Some(end) if end.month == month => end.day,
        Some(_) => last,
    };
    (to + 1).saturating_sub(from)
}

/// Writes amounts, and remembers whether one was beyond the limit.
struct Printer {
    exponent: u32,
    limit: Exact,
    limit_minor: BigInt,
    out_of_range: bool,
}

impl Printer {
    fn new(exponent: u32) -> Self {
        Self {
            exponent,
            limit: Exact::whole(AMOUNT_MAX).times_whole(COMMON_DENOMINATOR),
            limit_minor: BigInt::from(AMOUNT_MAX) * ten_to(exponent).as_ref(),
            out_of_range: false,
        }
    }

    fn amount(&mut self, money: &Exact) -> Value {
        let minor = money.rounded_over(COMMON_DENOMINATOR, self.exponent);
        // The unrounded value can only be beyond the limit where the rounded one reaches it.
        if minor.abs() >= self.limit_minor && money.abs() > self.limit {
            self.out_of_range = true;
        }
        Value::String(format_scaled(&minor, self.exponent))
    }

    fn flows(&mut self, out: &mut Map<String, Value>, flows: &Flows) {
        for (name, money) in flows.named() {
            let printed = self.amount(money);
            out.insert(name.to_owned(), printed);
        }
    }

    fn month(&mut self, book: &MonthBook, scenario: &Scenario) -> Value {
        let mut out = Map::new();
        out.insert("month".to_owned(), Value::String(book.month.label()));
        self.flows(&mut out, &book.flows);
        out.insert("cash".to_owned(), self.amount(&book.cash));
        let mut revenue_lines = Vec::with_capacity(book.revenue_lines.len());
        for (line, entry) in scenario.revenue.iter().zip(&book.revenue_lines) {
            let units = entry.units.rounded_over(1, UNITS_DIGITS);
            let mut row = Map::new();
            row.insert("name".to_owned(), Value::String(line.name.clone()));
            let units = format_scaled(&units, UNITS_DIGITS);
            row.insert("units".to_owned(), Value::String(units));
            row.insert("amount".to_owned(), self.amount(&entry.amount));
            revenue_lines.push(Value::Object(row));
        }
        out.insert("revenue_lines".to_owned(), Value::Array(revenue_lines));
        let mut cost_lines = Vec::with_capacity(book.cost_lines.len());
        for (line, cost) in scenario.costs.iter().zip(&book.cost_lines) {
            let mut row = Map::new();
            row.insert("name".to_owned(), Value::String(line.name.clone()));
            row.insert("amount".to_owned(), self.amount(cost));
            cost_lines.push(Value::Object(row));
        }
        out.insert("cost_lines".to_owned(), Value::Array(cost_lines));
        Value::Object(out)
    }

    /// Sum of `net_cash(t) / (1 + r/12)^(t+1)`.
    ///
    /// With `a = 12 * 10^s` and `q = (12 + r) * 10^s`, both whole, a month's factor is `a / q`;
    /// Horner's rule from the last month on keeps one denominator, `q^H`.
    fn npv(&mut self, books: &Books, scenario: &Scenario) -> Value {
        let yearly = Exact::whole(12).plus(&scenario.discount_rate_annual);
        let (q, rate_scale) = yearly.parts();
        let a = BigInt::from(12) * ten_to(rate_scale).as_ref();
        let scale = books.months.iter().map(|month| month.flows.net_cash.parts().1).max().unwrap_or(0);
        let mut numerator = BigInt::zero();
        let mut denominator = BigInt::one();
        for month in books.months.iter().rev() {
            let (num, own_scale) = month.flows.net_cash.parts();
            let flow = num * ten_to(scale - own_scale).as_ref();
            numerator = (flow * &denominator + numerator) * &a;
            denominator *= q;
        }
        denominator *= COMMON_DENOMINATOR;
        denominator *= ten_to(scale).as_ref();
        let limit = BigInt::from(AMOUNT_MAX) * &denominator;
        if numerator.abs() > limit {
            self.out_of_range = true;
        }
        let minor = round_half_even(&(numerator * ten_to(self.exponent).as_ref()), &denominator);
        Value::String(format_scaled(&minor, self.exponent))
    }
}
