//! The exact forecast: month by month, every figure unrounded. Formulas and order: `MODEL.md`, section 3.
//!
//! Not for rounding or printing: that is the result's work, once per figure.

use chrono::NaiveDate;
use dashu_base::Sign;
use dashu_int::IBig;

use crate::calendar::Month;
use crate::decimal::Decimal;
use crate::exact::{Amount, Tens};
use crate::input::{Cost, Revenue, ValidScenario};

/// The seven figures that months, years and totals share.
#[derive(Clone)]
pub(crate) struct Flows {
    pub(crate) revenue: Amount,
    pub(crate) costs: Amount,
    pub(crate) ebitda: Amount,
    pub(crate) tax: Amount,
    pub(crate) net_income: Amount,
    pub(crate) collected: Amount,
    pub(crate) net_cash: Amount,
}

impl Flows {
    pub(crate) fn zero() -> Self {
        let zero = Amount::zero;
        Self {
            revenue: zero(),
            costs: zero(),
            ebitda: zero(),
            tax: zero(),
            net_income: zero(),
            collected: zero(),
            net_cash: zero(),
        }
    }

    pub(crate) fn add(&mut self, other: &Self, tens: &mut Tens) {
        tens.add(&mut self.revenue, &other.revenue);
        tens.add(&mut self.costs, &other.costs);
        tens.add(&mut self.ebitda, &other.ebitda);
        tens.add(&mut self.tax, &other.tax);
        tens.add(&mut self.net_income, &other.net_income);
        tens.add(&mut self.collected, &other.collected);
        tens.add(&mut self.net_cash, &other.net_cash);
    }
}

/// One month, unrounded.
pub(crate) struct MonthFigures {
    pub(crate) month: Month,
    pub(crate) flows: Flows,
    /// At the month's end.
    pub(crate) cash: Amount,
    /// Units at the month's end and revenue, one per revenue line, input order.
    pub(crate) revenue_lines: Vec<(Decimal, Amount)>,
    /// One per cost line, input order.
    pub(crate) cost_lines: Vec<Amount>,
}

/// The whole horizon, unrounded; `months` has one entry per month, t = 0 first.
pub(crate) struct Exact {
    pub(crate) months: Vec<MonthFigures>,
}

/// The computation was asked to stop.
pub(crate) struct Stopped;

/// Computes every month in order; asks `should_stop` once a month.
pub(crate) fn compute(
    scenario: &ValidScenario,
    tens: &mut Tens,
    should_stop: &dyn Fn() -> bool,
) -> Result<Exact, Stopped> {
    let mut revenue_lines: Vec<RevenueLine<'_>> = scenario.revenue.iter().map(RevenueLine::new).collect();
    let mut cost_lines: Vec<CostLine<'_>> =
        scenario.costs.iter().map(|cost| CostLine::new(cost, scenario.start_month)).collect();
    let mut cash = Amount::of(&scenario.opening_cash);
    let mut months: Vec<MonthFigures> = Vec::with_capacity(scenario.horizon_months);
    for t in 0..scenario.horizon_months {
        if should_stop() {
            return Err(Stopped);
        }
        let month = scenario.start_month.plus(t as i32);
        let lines: Vec<(Decimal, Amount)> = revenue_lines.iter_mut().map(|line| line.step(t, month, tens)).collect();
        let mut flows = Flows::zero();
        for (_, amount) in &lines {
            tens.add(&mut flows.revenue, amount);
        }
        let costs: Vec<Amount> = cost_lines.iter_mut().map(|line| line.step(month, &flows.revenue)).collect();
        for amount in &costs {
            tens.add(&mut flows.costs, amount);
        }
        flows.ebitda = tens.minus(&flows.revenue, &flows.costs);
        if !flows.ebitda.is_negative() {
            flows.tax = flows.ebitda.times(&scenario.tax_rate);
        }
        flows.net_income = tens.minus(&flows.ebitda, &flows.tax);
        for (line, revenue) in scenario.revenue.iter().enumerate() {
            match t.checked_sub(revenue.collection_lag_months) {
                Some(earned) if earned == t => tens.add(&mut flows.collected, &lines[line].1),
                Some(earned) => tens.add(&mut flows.collected, &months[earned].revenue_lines[line].1),
                None => {}
            }
        }
        let after_costs = tens.minus(&flows.collected, &flows.costs);
        flows.net_cash = tens.minus(&after_costs, &flows.tax);
        tens.add(&mut cash, &flows.net_cash);
        months.push(MonthFigures { month, flows, cash: cash.clone(), revenue_lines: lines, cost_lines: costs });
    }
    Ok(Exact { months })
}

/// A revenue line between two months.
struct RevenueLine<'a> {
    input: &'a Revenue,
    kept: Decimal,
    units: Decimal,
    adds: Decimal,
    adds_factor: Decimal,
    price: Compounding,
}

impl<'a> RevenueLine<'a> {
    fn new(input: &'a Revenue) -> Self {
        Self {
            input,
            kept: one_minus(&input.churn_monthly),
            units: input.opening_units.clone(),
            adds: input.adds_per_month.clone(),
            adds_factor: one_plus(&input.adds_growth_monthly),
            price: Compounding::new(&input.price, &input.price_growth_annual),
        }
    }

    /// Units at the end of month `t`, and its revenue. Called once for each month, in order.
    fn step(&mut self, t: usize, month: Month, tens: &mut Tens) -> (Decimal, Amount) {
        self.advance_adds(t);
        self.units = self.units.times(&self.kept);
        tens.add_decimal(&mut self.units, &self.adds);
        let price = self.seasonal_price(t, month);
        let revenue = self.units.times(&price);
        (self.units.clone(), Amount::of(&revenue))
    }

    fn advance_adds(&mut self, t: usize) {
        if t > 0 {
            self.adds = self.adds.times(&self.adds_factor);
        }
    }

    fn seasonal_price(&mut self, t: usize, month: Month) -> Decimal {
        let price = self.price.after_years(t / 12);
        match &self.input.seasonality {
            Some(factors) => price.times(&factors[month.index_in_year()]),
            None => price.clone(),
        }
    }
}

/// What one revenue line brings to each month before any chance: the nearest doubles.
pub(crate) struct LineDrivers {
    /// adds × (1 + g)^t, one per month.
    pub(crate) adds: Vec<f64>,
    /// Price with its steps, times the season's factor, one per month.
    pub(crate) seasonal_price: Vec<f64>,
}

/// The drivers of every revenue line, input order.
pub(crate) fn line_drivers(scenario: &ValidScenario, tens: &mut Tens) -> Vec<LineDrivers> {
    let of_line = |input: &Revenue| {
        let mut line = RevenueLine::new(input);
        let mut drivers = LineDrivers { adds: Vec::new(), seasonal_price: Vec::new() };
        for t in 0..scenario.horizon_months {
            line.advance_adds(t);
            drivers.adds.push(tens.decimal_to_f64(&line.adds));
            let price = line.seasonal_price(t, scenario.start_month.plus(t as i32));
            drivers.seasonal_price.push(tens.decimal_to_f64(&price));
        }
        drivers
    };
    scenario.revenue.iter().map(of_line).collect()
}

/// A cost line between two months.
enum CostLine<'a> {
    Fixed { amount: Compounding, start: Month, end: Option<Month> },
    PercentOfRevenue { rate: &'a Decimal },
    Headcount { burdened_salary: Decimal, start: NaiveDate, end: Option<NaiveDate> },
    OneOff { amount: &'a Decimal, month: Month },
}

impl<'a> CostLine<'a> {
    fn new(cost: &'a Cost, scenario_start: Month) -> Self {
        match cost {
            Cost::Fixed { amount, growth_annual, start, end, .. } => Self::Fixed {
                amount: Compounding::new(amount, growth_annual),
                start: start.unwrap_or(scenario_start),
                end: *end,
            },
            Cost::PercentOfRevenue { rate, .. } => Self::PercentOfRevenue { rate },
            Cost::Headcount { annual_salary, burden_rate, start, end, .. } => Self::Headcount {
                burdened_salary: annual_salary.times(&one_plus(burden_rate)),
                start: *start,
                end: *end,
            },
            Cost::OneOff { amount, month, .. } => Self::OneOff { amount, month: *month },
        }
    }

    fn step(&mut self, now: Month, total_revenue: &Amount) -> Amount {
        match self {
            Self::Fixed { amount, start, end } => {
                if now < *start || end.is_some_and(|end| now > end) {
                    return Amount::zero();
                }
                let years = now.months_since(*start) as usize / 12;
                Amount::of(amount.after_years(years))
            }
            Self::PercentOfRevenue { rate } => total_revenue.times(rate),
            Self::Headcount { burdened_salary, start, end } => {
                let days = now.days_between(*start, *end);
                Amount::share(burdened_salary, days.into(), 12 * i64::from(now.days()))
            }
            Self::OneOff { amount, month } if *month == now => Amount::of(amount),
            Self::OneOff { .. } => Amount::zero(),
        }
    }
}

/// `base × (1 + growth)^years`, remembered for the year last asked for.
struct Compounding {
    factor: Decimal,
    value: Decimal,
    years: usize,
}

impl Compounding {
    fn new(base: &Decimal, growth: &Decimal) -> Self {
        Self { factor: one_plus(growth), value: base.clone(), years: 0 }
    }

    /// Asked for years that never fall.
    fn after_years(&mut self, years: usize) -> &Decimal {
        let further = years - self.years;
        if further > 0 {
            let Decimal { int, scale } = &self.factor;
            self.value = self.value.times(&Decimal { int: int.pow(further), scale: scale * further });
            self.years = years;
        }
        &self.value
    }
}

fn one_plus(rate: &Decimal) -> Decimal {
    Decimal { int: IBig::from(10).pow(rate.scale) + &rate.int, scale: rate.scale }
}

fn one_minus(rate: &Decimal) -> Decimal {
    Decimal { int: IBig::from(10).pow(rate.scale) - &rate.int, scale: rate.scale }
}

/// Σ net_cash(t) / (1 + rate/12)^(t+1), in units of `10^-digits`, half to even; `None` beyond ±1e15.
///
/// With 1 / (1 + rate/12) = b/a in whole numbers, Horner's rule from the last month backwards
/// leaves one fraction over a^H, divided once.
pub(crate) fn npv_end_of_month(exact: &Exact, rate: &Decimal, digits: usize, tens: &mut Tens) -> Option<i128> {
    let b = IBig::from(12) * IBig::from(10).pow(rate.scale);
    let a = Decimal { int: &b + &rate.int, scale: 0 };
    let b = Decimal { int: b, scale: 0 };
    let mut sum = Amount::zero();
    let mut denominator = Decimal::from_int(1);
    for month in exact.months.iter().rev() {
        tens.add(&mut sum, &month.flows.net_cash.times(&denominator));
        sum = sum.times(&b);
        denominator = denominator.times(&a);
    }
    assert!(denominator.int.sign() == Sign::Positive, "the discount factor is positive");
    tens.round_over(&sum, digits, Some(&denominator.int))
}
