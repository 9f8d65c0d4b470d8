//! Reads a scenario input as it was copied into the job. Not a form validator: the first wrong
//! field ends the reading, with its JSON pointer; unknown fields are ignored.
//!
//! Re-derived from the specification on purpose: do not deduplicate against the system.

use serde_json::Value;

use super::error::OracleError;
use super::exact::Exact;

/// Fractional digits a decimal of the input may have.
const FRACTION_MAX: usize = 12;

/// A calendar month, counted from January of the year 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month(i32);

impl Month {
    /// Year and month 1 to 12.
    pub fn new(year: i32, month: u32) -> Option<Self> {
        (1..=12).contains(&month).then(|| Self(year * 12 + month as i32 - 1))
    }

    /// The month `count` months later.
    pub fn plus(self, count: u32) -> Self {
        Self(self.0.saturating_add_unsigned(count))
    }

    /// Months from `earlier` to this one; negative where this one is the earlier.
    pub fn since(self, earlier: Self) -> i32 {
        self.0 - earlier.0
    }

    /// The Gregorian year.
    pub fn year(self) -> i32 {
        self.0.div_euclid(12)
    }

    /// January is 0.
    pub fn index_in_year(self) -> usize {
        self.0.rem_euclid(12) as usize
    }

    /// 28 to 31.
    pub fn days(self) -> u32 {
        let year = self.year();
        match self.index_in_year() {
            1 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
            1 => 28,
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        }
    }

    /// `YYYY-MM`.
    pub fn label(self) -> String {
        format!("{:04}-{:02}", self.year(), self.index_in_year() + 1)
    }
}

/// A day of the Gregorian calendar; ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day {
    /// Its month.
    pub month: Month,
    /// 1 to the month's length.
    pub day: u32,
}

/// One revenue line of the input.
#[derive(Debug, Clone)]
pub struct RevenueLine {
    /// Free text, repeated in the result.
    pub name: String,
    /// Units before the first month.
    pub opening_units: Exact,
    /// Units added in the first month.
    pub adds_per_month: Exact,
    /// Growth of the adds from month to month.
    pub adds_growth_monthly: Exact,
    /// Share of the units lost each month.
    pub churn_monthly: Exact,
    /// Money for a unit and month, in the first year.
    pub price: Exact,
    /// Growth of the price from year to year of the scenario.
    pub price_growth_annual: Exact,
    /// Twelve factors, January first.
    pub seasonality: Vec<Exact>,
    /// Months from revenue to cash, 0 to 12.
    pub collection_lag_months: usize,
}

/// One cost line of the input.
#[derive(Debug, Clone)]
pub struct CostLine {
    /// The line's name; a headcount line's role.
    pub name: String,
    /// What it costs when.
    pub cost: Cost,
}

/// What a cost line costs when.
#[derive(Debug, Clone)]
pub enum Cost {
    /// An amount each month, growing by the year of the line.
    Fixed {
        /// Money in the first twelve months of the line.
        amount: Exact,
        /// Growth from year to year of the line.
        growth_annual: Exact,
        /// First month; the scenario's where the input names none.
        start: Month,
        /// Last month, included.
        end: Option<Month>,
    },
    /// A share of the month's total revenue.
    PercentOfRevenue {
        /// The share; 1 is all of it.
        rate: Exact,
    },
    /// A salary for the days employed.
    Headcount {
        /// Money for a year.
        annual_salary: Exact,
        /// Share of the salary on top of it.
        burden_rate: Exact,
        /// First day employed.
        start: Day,
        /// Last day employed.
        end: Option<Day>,
    },
    /// An amount in one month.
    OneOff {
        /// Money.
        amount: Exact,
        /// When.
        month: Month,
    },
}

/// The uncertainty block of the input.
#[derive(Debug, Clone)]
pub struct UncertaintyInput {
    /// 1 to 100,000.
    pub paths: u64,
    /// Standard deviation of a month's price factor.
    pub price_sigma_monthly: Exact,
    /// Standard deviation of a month's adds factor.
    pub adds_sigma_monthly: Exact,
}

impl UncertaintyInput {
    /// Whether nothing is drawn at all.
    pub fn is_bypassed(&self) -> bool {
        self.price_sigma_monthly.is_zero() && self.adds_sigma_monthly.is_zero()
    }
}

/// A scenario input that obeys every written bound.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// ISO 4217 code.
    pub currency: String,
    /// Fractional digits of the currency.
    pub exponent: u32,
    /// Month of t = 0.
    pub start_month: Month,
    /// 1 to 120.
    pub horizon_months: u32,
    /// Cash before t = 0.
    pub opening_cash: Exact,
    /// Rate a year.
    pub discount_rate_annual: Exact,
    /// Share of a positive ebitda.
    pub tax_rate: Exact,
    /// At most 50, in input order.
    pub revenue: Vec<RevenueLine>,
    /// At most 200, in input order.
    pub costs: Vec<CostLine>,
    /// Absent or null: no paths.
    pub uncertainty: Option<UncertaintyInput>,
}

impl Scenario {
    /// Reads `input`; the error names the first wrong field.
    pub fn read(input: &Value) -> Result<Self, OracleError> {
        let root = Node::root(input);
        let currency = root.text("currency")?;
        let exponent =
            exponent_of(&currency).ok_or_else(|| root.child_error("currency", "not one of the five currencies"))?;
        let start_month = root.month("start_month")?;
        if !(1970..=2199).contains(&start_month.year()) {
            return Err(root.child_error("start_month", "outside 1970-01 to 2199-12"));
        }
        let revenue = root.list("revenue", 50, RevenueLine::read)?;
        let costs = root.list("costs", 200, |node| CostLine::read(node, start_month))?;
        let uncertainty = match root.optional("uncertainty") {
            None => None,
            Some(node) => Some(UncertaintyInput {
                paths: node.integer("paths", 1, 100_000)?,
                price_sigma_monthly: node.decimal("price_sigma_monthly", "0", "2")?,
                adds_sigma_monthly: node.decimal("adds_sigma_monthly", "0", "2")?,
            }),
        };
        Ok(Self {
            exponent,
            currency,
            start_month,
            horizon_months: root.integer("horizon_months", 1, 120)? as u32,
            opening_cash: root.decimal("opening_cash", "-1000000000000", "1000000000000")?,
            discount_rate_annual: root.decimal("discount_rate_annual", "0", "1")?,
            tax_rate: root.decimal("tax_rate", "0", "1")?,
            revenue,
            costs,
            uncertainty,
        })
    }
}

/// Fractional digits of one of the five currencies.
pub fn exponent_of(currency: &str) -> Option<u32> {
    match currency {
        "USD" | "EUR" | "GBP" => Some(2),
        "JPY" => Some(0),
        "KWD" => Some(3),
        _ => None,
    }
}

const UNITS_MAX: &str = "1000000000";
const AMOUNT_MAX: &str = "1000000000000";
const GROWTH_MIN: &str = "-0.99";

impl RevenueLine {
    fn read(node: &Node<'_>) -> Result<Self, OracleError> {
        let seasonality = match node.optional("seasonality") {
            None => vec![Exact::whole(1); 12],
            Some(_) => node.list("seasonality", 12, |factor| factor.as_decimal("0", "10"))?,
        };
        if seasonality.len() != 12 {
            return Err(node.child_error("seasonality", "not twelve factors"));
        }
        Ok(Self {
            name: node.text("name")?,
            opening_units: node.decimal("opening_units", "0", UNITS_MAX)?,
            adds_per_month: node.decimal("adds_per_month", "0", UNITS_MAX)?,
            adds_growth_monthly: node.decimal("adds_growth_monthly", GROWTH_MIN, "1")?,
            churn_monthly: node.decimal("churn_monthly", "0", "1")?,
            price: node.decimal("price", "0", UNITS_MAX)?,
            price_growth_annual: node.decimal("price_growth_annual", GROWTH_MIN, "1")?,
            seasonality,
            collection_lag_months: node.integer("collection_lag_months", 0, 12)? as usize,
        })
    }
}

impl CostLine {
    fn read(node: &Node<'_>, scenario_start: Month) -> Result<Self, OracleError> {
        let kind = node.text("kind")?;
        let (name, cost) = match kind.as_str() {
            "fixed" => {
                let start = node.optional_month("start_month")?.unwrap_or(scenario_start);
                let end = node.optional_month("end_month")?;
                let cost = Cost::Fixed {
                    amount: node.decimal("amount", "0", AMOUNT_MAX)?,
                    growth_annual: node.decimal("growth_annual", GROWTH_MIN, "1")?,
                    start,
                    end,
                };
                (node.text("name")?, cost)
            }
            "percent_of_revenue" => {
                let rate = node.decimal("rate", "0", "10")?;
                (node.text("name")?, Cost::PercentOfRevenue { rate })
            }
            "headcount" => {
                let start = node.day("start_date")?;
                let end = match node.optional("end_date") {
                    None => None,
                    Some(_) => Some(node.day("end_date")?),
                };
                if end.is_some_and(|end| end < start) {
                    return Err(node.child_error("end_date", "before start_date"));
                }
                let cost = Cost::Headcount {
                    annual_salary: node.decimal("annual_salary", "0", AMOUNT_MAX)?,
                    burden_rate: node.decimal("burden_rate", "0", "10")?,
                    start,
                    end,
                };
                (node.text("role")?, cost)
            }
            "one_off" => {
                let cost =
                    Cost::OneOff { amount: node.decimal("amount", "0", AMOUNT_MAX)?, month: node.month("month")? };
                (node.text("name")?, cost)
            }
            _ => return Err(node.child_error("kind", "unknown kind of cost")),
        };
        Ok(Self { name, cost })
    }
}

/// A value and the pointer that leads to it.
struct Node<'a> {
    value: &'a Value,
    pointer: String,
}

impl<'a> Node<'a> {
    fn root(value: &'a Value) -> Self {
        Self { value, pointer: String::new() }
    }

    fn child_error(&self, key: &str, reason: &str) -> OracleError {
        OracleError::input(format!("{}/{key}", self.pointer), reason)
    }

    fn error(&self, reason: &str) -> OracleError {
        OracleError::input(self.pointer.clone(), reason)
    }

    /// Absent and null are the same.
    fn optional(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Self { value, pointer: format!("{}/{key}", self.pointer) })
    }

    fn required(&self, key: &str) -> Result<Self, OracleError> {
        self.optional(key).ok_or_else(|| self.child_error(key, "missing"))
    }

    fn text(&self, key: &str) -> Result<String, OracleError> {
        let node = self.required(key)?;
        let text = node.value.as_str();
        text.map(str::to_owned).ok_or_else(|| node.error("not a string"))
    }

    fn integer(&self, key: &str, min: u64, max: u64) -> Result<u64, OracleError> {
        let node = self.required(key)?;
        let value = node.value.as_u64();
        value.filter(|value| (min..=max).contains(value)).ok_or_else(|| node.error("not a whole number within bounds"))
    }

    fn decimal(&self, key: &str, min: &str, max: &str) -> Result<Exact, OracleError> {
        self.required(key)?.as_decimal(min, max)
    }

    fn as_decimal(&self, min: &str, max: &str) -> Result<Exact, OracleError> {
        let text = self.value.as_str();
        let text = text.ok_or_else(|| self.error("not a decimal string"))?;
        let read = |text: &str| Exact::parse(text, FRACTION_MAX).map_err(|reason| self.error(&reason.to_string()));
        let value = read(text)?;
        if value < read(min)? || value > read(max)? {
            return Err(self.error(&format!("outside {min} to {max}")));
        }
        Ok(value)
    }

    fn list<T>(
        &self,
        key: &str,
        count_max: usize,
        read: impl Fn(&Node<'_>) -> Result<T, OracleError>,
    ) -> Result<Vec<T>, OracleError> {
        let node = self.required(key)?;
        let items = node.value.as_array().ok_or_else(|| node.error("not a list"))?;
        if items.len() > count_max {
            return Err(node.error(&format!("more than {count_max} entries")));
        }
        items
            .iter()
            .enumerate()
            .map(|(index, value)| read(&Node { value, pointer: format!("{}/{index}", node.pointer) }))
            .collect()
    }

    fn month(&self, key: &str) -> Result<Month, OracleError> {
        let text = self.text(key)?;
        parse_month(&text).ok_or_else(|| self.child_error(key, "not YYYY-MM"))
    }

    fn optional_month(&self, key: &str) -> Result<Option<Month>, OracleError> {
        match self.optional(key) {
            None => Ok(None),
            Some(_) => self.month(key).map(Some),
        }
    }

    fn day(&self, key: &str) -> Result<Day, OracleError> {
        let text = self.text(key)?;
        let wrong = || self.child_error(key, "not an existing YYYY-MM-DD");
        let (month, day) = text.rsplit_once('-').ok_or_else(wrong)?;
        let month = parse_month(month).ok_or_else(wrong)?;
        let day = parse_digits(day, 2).filter(|day| (1..=month.days()).contains(day)).ok_or_else(wrong)?;
        Ok(Day { month, day })
    }
}

fn parse_month(text: &str) -> Option<Month> {
    let (year, month) = text.split_once('-')?;
    Month::new(parse_digits(year, 4)? as i32, parse_digits(month, 2)?)
}

fn parse_digits(text: &str, width: usize) -> Option<u32> {
    if text.len() != width || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn february_has_a_leap_day_in_2000_and_2024_but_not_in_1900_and_2100() {
        for (year, days) in [(2000, 29), (2024, 29), (2023, 28), (1900, 28), (2100, 28)] {
            assert_eq!(Month::new(year, 2).expect("month").days(), days, "{year}");
        }
    }

    #[test]
    fn months_count_across_the_year() {
        let november = parse_month("2025-11").expect("month");
        assert_eq!(november.plus(2).label(), "2026-01");
        assert_eq!(november.plus(2).since(november), 2);
        assert_eq!(november.plus(2).index_in_year(), 0);
        assert_eq!(parse_month("2025-13"), None);
        assert_eq!(parse_month("2025-1"), None);
    }
}
