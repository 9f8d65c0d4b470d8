//! The result's JSON: every figure rounded once, from its exact value. Shape and formats: `MODEL.md`, section 5.

use serde::Serialize;

use crate::exact::{Amount, Tens};
use crate::input::{Cost, Revenue, Uncertainty, ValidScenario};
use crate::model::{Exact, Flows, MonthFigures, npv_end_of_month};
use crate::percentile::Spread;
use crate::quantise::{fixed_point, fixed_point_i128, ratio, round_f64};
use crate::uncertainty::Simulated;

/// Digits after the point of units.
const UNIT_DIGITS: usize = 6;
/// A standard error carries so many digits more than its currency.
const STANDARD_ERROR_EXTRA_DIGITS: usize = 6;

/// A computed amount left ±1e15.
pub(crate) struct OutOfRange;

#[derive(Serialize)]
pub(crate) struct ForecastResult<'a> {
    engine_version: &'static str,
    currency: &'static str,
    months: Vec<MonthResult<'a>>,
    years: Vec<YearResult>,
    totals: FlowsResult,
    npv_end_of_month: String,
    break_even_month_index: Option<usize>,
    runway_months: Option<usize>,
    uncertainty: Option<UncertaintyResult>,
}

#[derive(Serialize)]
struct FlowsResult {
    revenue: String,
    costs: String,
    ebitda: String,
    tax: String,
    net_income: String,
    collected: String,
    net_cash: String,
}

#[derive(Serialize)]
struct MonthResult<'a> {
    month: String,
    #[serde(flatten)]
    flows: FlowsResult,
    cash: String,
    revenue_lines: Vec<RevenueLineResult<'a>>,
    cost_lines: Vec<CostLineResult<'a>>,
}

#[derive(Serialize)]
struct RevenueLineResult<'a> {
    name: &'a str,
    units: String,
    amount: String,
}

#[derive(Serialize)]
struct CostLineResult<'a> {
    name: &'a str,
    amount: String,
}

#[derive(Serialize)]
struct YearResult {
    year: i32,
    #[serde(flatten)]
    flows: FlowsResult,
}

#[derive(Serialize)]
pub(crate) struct UncertaintyResult {
    paths: usize,
    revenue: Vec<SpreadResult>,
    cash: Vec<SpreadResult>,
    probability_cash_negative: String,
}

#[derive(Serialize)]
struct SpreadResult {
    p5: String,
    p25: String,
    p50: String,
    p75: String,
    p95: String,
    mean: String,
    standard_error: String,
}

/// Rounds figures to one currency's minor unit.
pub(crate) struct Printer<'a> {
    pub(crate) digits: usize,
    pub(crate) tens: &'a mut Tens,
}

impl Printer<'_> {
    fn amount(&mut self, amount: &Amount) -> Result<String, OutOfRange> {
        let units = self.tens.round(amount, self.digits).ok_or(OutOfRange)?;
        Ok(fixed_point_i128(units, self.digits))
    }

    fn flows(&mut self, flows: &Flows) -> Result<FlowsResult, OutOfRange> {
        Ok(FlowsResult {
            revenue: self.amount(&flows.revenue)?,
            costs: self.amount(&flows.costs)?,
            ebitda: self.amount(&flows.ebitda)?,
            tax: self.amount(&flows.tax)?,
            net_income: self.amount(&flows.net_income)?,
            collected: self.amount(&flows.collected)?,
            net_cash: self.amount(&flows.net_cash)?,
        })
    }

    fn month<'a>(
        &mut self,
        figures: &MonthFigures,
        revenue: &'a [Revenue],
        costs: &'a [Cost],
    ) -> Result<MonthResult<'a>, OutOfRange> {
        let revenue_lines = revenue.iter().zip(&figures.revenue_lines).map(|(line, (units, amount))| {
            Ok(RevenueLineResult {
                name: &line.name,
                units: fixed_point(&self.tens.round_decimal(units, UNIT_DIGITS), UNIT_DIGITS),
                amount: self.amount(amount)?,
            })
        });
        let revenue_lines = revenue_lines.collect::<Result<_, _>>()?;
        let cost_lines = costs.iter().zip(&figures.cost_lines);
        let cost_lines = cost_lines
            .map(|(line, amount)| Ok(CostLineResult { name: line.name(), amount: self.amount(amount)? }))
            .collect::<Result<_, _>>()?;
        Ok(MonthResult {
            month: figures.month.to_string(),
            flows: self.flows(&figures.flows)?,
            cash: self.amount(&figures.cash)?,
            revenue_lines,
            cost_lines,
        })
    }

    /// The whole result.
    pub(crate) fn result<'a>(
        &mut self,
        engine_version: &'static str,
        scenario: &'a ValidScenario,
        exact: &Exact,
        uncertainty: Option<UncertaintyResult>,
    ) -> Result<ForecastResult<'a>, OutOfRange> {
        let months = exact.months.iter().map(|m| self.month(m, &scenario.revenue, &scenario.costs));
        let months = months.collect::<Result<_, _>>()?;
        let mut years = Vec::new();
        let mut totals = Flows::zero();
        for year in exact.months.chunk_by(|a, b| a.month.year() == b.month.year()) {
            let mut sum = Flows::zero();
            for month in year {
                sum.add(&month.flows, self.tens);
            }
            totals.add(&sum, self.tens);
            years.push(YearResult { year: year[0].month.year(), flows: self.flows(&sum)? });
        }
        let npv = npv_end_of_month(exact, &scenario.discount_rate_annual, self.digits, self.tens);
        Ok(ForecastResult {
            engine_version,
            currency: scenario.currency,
            months,
            years,
            totals: self.flows(&totals)?,
            npv_end_of_month: fixed_point_i128(npv.ok_or(OutOfRange)?, self.digits),
            break_even_month_index: exact.months.iter().position(|m| !m.flows.ebitda.is_negative()),
            runway_months: exact.months.iter().position(|m| m.cash.is_negative()),
            uncertainty,
        })
    }

    /// The block for simulated paths.
    pub(crate) fn simulated(&self, paths: usize, simulated: &Simulated) -> Result<UncertaintyResult, OutOfRange> {
        let all = |spreads: &[Spread]| spreads.iter().map(|s| self.spread(s)).collect::<Result<Vec<_>, _>>();
        Ok(UncertaintyResult {
            paths,
            revenue: all(&simulated.revenue)?,
            cash: all(&simulated.cash)?,
            probability_cash_negative: ratio(simulated.negative_paths, paths),
        })
    }

    fn spread(&self, spread: &Spread) -> Result<SpreadResult, OutOfRange> {
        let print = |value: f64, digits: usize| {
            round_f64(value, digits).map(|units| fixed_point_i128(units, digits)).ok_or(OutOfRange)
        };
        let [p5, p25, p50, p75, p95] = spread.percentiles;
        Ok(SpreadResult {
            p5: print(p5, self.digits)?,
            p25: print(p25, self.digits)?,
            p50: print(p50, self.digits)?,
            p75: print(p75, self.digits)?,
            p95: print(p95, self.digits)?,
            mean: print(spread.mean, self.digits)?,
            standard_error: print(spread.standard_error, self.digits + STANDARD_ERROR_EXTRA_DIGITS)?,
        })
    }

    /// The block where both σ are 0: every path is the exact forecast.
    pub(crate) fn certain(
        &mut self,
        uncertainty: &Uncertainty,
        exact: &Exact,
    ) -> Result<UncertaintyResult, OutOfRange> {
        let mut same = |amount: &Amount| {
            let value = self.amount(amount)?;
            let zero_digits = self.digits + STANDARD_ERROR_EXTRA_DIGITS;
            Ok(SpreadResult {
                p5: value.clone(),
                p25: value.clone(),
                p50: value.clone(),
                p75: value.clone(),
                p95: value.clone(),
                mean: value,
                standard_error: fixed_point_i128(0, zero_digits),
            })
        };
        let revenue = exact.months.iter().map(|m| same(&m.flows.revenue)).collect::<Result<_, _>>()?;
        let cash = exact.months.iter().map(|m| same(&m.cash)).collect::<Result<_, _>>()?;
        let negative = exact.months.iter().any(|m| m.cash.is_negative());
        Ok(UncertaintyResult {
            paths: uncertainty.paths,
            revenue,
            cash,
            probability_cash_negative: ratio(usize::from(negative), 1),
        })
    }
}
