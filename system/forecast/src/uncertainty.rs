//! Simulated paths around the exact forecast: `MODEL.md`, section 6.
//!
//! Each path has a random stream of its own and writes to a place of its own, so which thread
//! computes it, and when, leaves no trace in the bytes. Memory: 16 bytes per path and month.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::exact::{Amount, Tens};
use crate::input::{Cost, Uncertainty, ValidScenario};
use crate::model::{Exact, Stopped, line_drivers};
use crate::normal::{draw, stream};
use crate::percentile::{Spread, spread};

/// Paths computed between two looks at whether to stop.
const PATH_CHUNK: usize = 256;
/// More threads than this are not used.
const THREADS_MAX: usize = 64;

/// What the paths say.
pub(crate) struct Simulated {
    /// One per month.
    pub(crate) revenue: Vec<Spread>,
    /// One per month.
    pub(crate) cash: Vec<Spread>,
    /// Paths whose cash was below zero at the end of at least one month.
    pub(crate) negative_paths: usize,
}

/// Percent that is done when every path has been computed; the rest is for sorting them.
const PATHS_PERCENT: usize = 90;

/// Who wants to know about a simulation while it runs. Asked and told from the calling thread only.
pub(crate) struct Watch<'a> {
    pub(crate) should_stop: &'a dyn Fn() -> bool,
    pub(crate) progress: &'a dyn Fn(u8),
}

impl Watch<'_> {
    /// `done` of `all` items of a part that makes up `from` to `to` percent.
    fn tell(&self, done: usize, all: usize, from: usize, to: usize) {
        let percent = from + (to - from) * done.min(all) / all.max(1);
        (self.progress)(u8::try_from(percent.min(99)).unwrap_or(99));
    }
}

/// Runs all paths on up to `threads` threads; the caller's thread is one of them.
pub(crate) fn simulate(
    scenario: &ValidScenario,
    uncertainty: &Uncertainty,
    exact: &Exact,
    tens: &mut Tens,
    threads: usize,
    watch: &Watch<'_>,
) -> Result<Simulated, Stopped> {
    let setting = Setting::new(scenario, uncertainty, exact, tens);
    let months = scenario.horizon_months;
    // A chunk is a block of rows: revenue of each month, then cash of each month, one column per path.
    let rows = 2 * months;
    let mut figures = vec![0.0; uncertainty.paths * rows];
    let negative_paths = AtomicUsize::new(0);
    let chunks = figures.chunks_mut(PATH_CHUNK * rows).enumerate();
    let tell = |done, all| watch.tell(done, all, 0, PATHS_PERCENT);
    share_out(chunks, threads, watch.should_stop, &tell, |(chunk, block)| {
        let negative = setting.simulate_chunk(chunk * PATH_CHUNK, block);
        negative_paths.fetch_add(negative, Ordering::Relaxed);
    })?;
    let mut spreads: Vec<Option<Spread>> = vec![None; rows];
    let tell = |done, all| watch.tell(done, all, PATHS_PERCENT, 99);
    share_out(spreads.iter_mut().enumerate(), threads, watch.should_stop, &tell, |(row, slot)| {
        let mut values = Vec::with_capacity(uncertainty.paths);
        for block in figures.chunks(PATH_CHUNK * rows) {
            let columns = block.len() / rows;
            values.extend_from_slice(&block[row * columns..(row + 1) * columns]);
        }
        *slot = Some(spread(&mut values));
    })?;
    let mut revenue: Vec<Spread> = spreads.into_iter().map(|s| s.expect("every row was shared out")).collect();
    let cash = revenue.split_off(months);
    Ok(Simulated { revenue, cash, negative_paths: negative_paths.into_inner() })
}

/// Everything about the scenario that all paths share, as doubles.
struct Setting {
    seed: u64,
    months: usize,
    lines: Vec<Line>,
    /// Costs that do not follow revenue, one per month.
    own_costs: Vec<f64>,
    /// Sum of the percent-of-revenue rates.
    revenue_share: f64,
    tax_rate: f64,
    opening_cash: f64,
    price: Shock,
    adds: Shock,
}

struct Line {
    opening_units: f64,
    kept: f64,
    adds: Vec<f64>,
    seasonal_price: Vec<f64>,
    lag: usize,
}

/// A factor exp(σz - σ²/2): lognormal with mean 1.
struct Shock {
    sigma: f64,
    half_variance: f64,
}

impl Shock {
    fn new(sigma: f64) -> Self {
        Self { sigma, half_variance: sigma * sigma / 2.0 }
    }

    fn factor(&self, z: f64) -> f64 {
        libm::exp(self.sigma * z - self.half_variance)
    }
}

impl Setting {
    fn new(scenario: &ValidScenario, uncertainty: &Uncertainty, exact: &Exact, tens: &mut Tens) -> Self {
        let drivers = line_drivers(scenario, tens);
        let lines = scenario.revenue.iter().zip(drivers).map(|(line, drivers)| Line {
            opening_units: tens.decimal_to_f64(&line.opening_units),
            kept: 1.0 - tens.decimal_to_f64(&line.churn_monthly),
            adds: drivers.adds,
            seasonal_price: drivers.seasonal_price,
            lag: line.collection_lag_months,
        });
        let lines = lines.collect();
        let mut revenue_share = crate::decimal::Decimal::from_int(0);
        for cost in &scenario.costs {
            if let Cost::PercentOfRevenue { rate, .. } = cost {
                tens.add_decimal(&mut revenue_share, rate);
            }
        }
        let mut own_costs = Vec::with_capacity(scenario.horizon_months);
        for month in &exact.months {
            let mut own = Amount::zero();
            for (cost, amount) in scenario.costs.iter().zip(&month.cost_lines) {
                if !matches!(cost, Cost::PercentOfRevenue { .. }) {
                    tens.add(&mut own, amount);
                }
            }
            own_costs.push(tens.amount_to_f64(&own));
        }
        Self {
            seed: uncertainty.seed,
            months: scenario.horizon_months,
            lines,
            own_costs,
            revenue_share: tens.decimal_to_f64(&revenue_share),
            tax_rate: tens.decimal_to_f64(&scenario.tax_rate),
            opening_cash: tens.decimal_to_f64(&scenario.opening_cash),
            price: Shock::new(tens.decimal_to_f64(&uncertainty.price_sigma_monthly)),
            adds: Shock::new(tens.decimal_to_f64(&uncertainty.adds_sigma_monthly)),
        }
    }

    /// Fills one block with the paths from `first_path` on; returns how many ran out of cash.
    fn simulate_chunk(&self, first_path: usize, block: &mut [f64]) -> usize {
        let columns = block.len() / (2 * self.months);
        let (revenue_rows, cash_rows) = block.split_at_mut(self.months * columns);
        let mut units = vec![0.0; self.lines.len()];
        // Revenue per month and line, kept for its collection.
        let mut earned = vec![0.0; self.lines.len() * self.months];
        let mut negative_paths = 0;
        for column in 0..columns {
            let mut rng = stream(self.seed, (first_path + column) as u64);
            for (units, line) in units.iter_mut().zip(&self.lines) {
                *units = line.opening_units;
            }
            let mut cash = self.opening_cash;
            let mut was_negative = false;
            for t in 0..self.months {
                let (mut revenue, mut collected) = (0.0, 0.0);
                for (l, line) in self.lines.iter().enumerate() {
                    let price_factor = self.price.factor(draw(&mut rng));
                    let adds_factor = self.adds.factor(draw(&mut rng));
                    units[l] = units[l] * line.kept + line.adds[t] * adds_factor;
                    let amount = units[l] * (line.seasonal_price[t] * price_factor);
                    earned[t * self.lines.len() + l] = amount;
                    revenue += amount;
                    if t >= line.lag {
                        collected += earned[(t - line.lag) * self.lines.len() + l];
                    }
                }
                let costs = self.own_costs[t] + self.revenue_share * revenue;
                let ebitda = revenue - costs;
                let tax = if ebitda > 0.0 { self.tax_rate * ebitda } else { 0.0 };
                cash += collected - costs - tax;
                was_negative |= cash < 0.0;
                revenue_rows[t * columns + column] = revenue;
                cash_rows[t * columns + column] = cash;
            }
            negative_paths += usize::from(was_negative);
        }
        negative_paths
    }
}

/// Gives each item to one of up to `threads` threads, in no particular order; only the caller's
/// thread asks `should_stop` and tells how many of all items are done, between two items.
fn share_out<I>(
    items: I,
    threads: usize,
    should_stop: &dyn Fn() -> bool,
    tell: &dyn Fn(usize, usize),
    work: impl Fn(I::Item) + Sync,
) -> Result<(), Stopped>
where
    I: ExactSizeIterator + Send,
{
    let threads = threads.clamp(1, THREADS_MAX).min(items.len().max(1));
    let all = items.len();
    let done = AtomicUsize::new(0);
    let work = |item| {
        work(item);
        done.fetch_add(1, Ordering::Relaxed);
    };
    let items = Mutex::new(items);
    let next = || items.lock().expect("taking an item does not panic").next();
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| {
                while !stopped.load(Ordering::Relaxed) {
                    let Some(item) = next() else { return };
                    work(item);
                }
            });
        }
        loop {
            if should_stop() {
                stopped.store(true, Ordering::Relaxed);
                return Err(Stopped);
            }
            let Some(item) = next() else { return Ok(()) };
            work(item);
            tell(done.load(Ordering::Relaxed), all);
        }
    })
}
