//! What is measured: one module for each row of the table, or for rows that share their set-up.

mod forecast;
mod jobs;
mod memory;
mod monte_carlo;
mod read;
mod seed;
mod spike;
mod standard_mix;

use std::path::PathBuf;

use clap::ValueEnum;

use crate::report::Line;

/// How to measure.
pub(crate) struct Setting {
    /// The program under test.
    pub(crate) binary: PathBuf,
    /// The worker of the reference queue.
    pub(crate) reference_queue: PathBuf,
    /// Fewer customers and seconds.
    pub(crate) short: bool,
}

impl Setting {
    /// The first where the run is whole, the second where it is short.
    pub(crate) const fn pick<T: Copy>(&self, whole: T, short: T) -> T {
        if self.short { short } else { whole }
    }
}

/// A row, or rows that share their set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// Read a scenario, its cache off, against a bare handler.
    Read,
    /// The same with the cache on.
    CachedRead,
    /// A whole forecast against the engine alone.
    Forecast,
    /// Monte Carlo against a bare loop.
    MonteCarlo,
    /// Empty jobs against graphile_worker.
    Jobs,
    /// 50,000 customers with history.
    Seed,
    /// The standard mix at 500, 1,000 and 2,000 requests a second.
    Mix,
    /// 5,000 requests a second for a minute.
    Spike,
    /// Memory of one instance over ten minutes.
    Memory,
}

impl Row {
    /// Every row, in the table's order.
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// What it measures, in words.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Read => "read a scenario, cache off, against a bare handler",
            Self::CachedRead => "read a scenario, cache on, against a bare handler",
            Self::Forecast => "a whole forecast against the engine alone",
            Self::MonteCarlo => "Monte Carlo 10,000 × 60 × 20 against a bare loop",
            Self::Jobs => "empty jobs against graphile_worker",
            Self::Seed => "seed customers with history",
            Self::Mix => "the standard mix",
            Self::Spike => "a spike",
            Self::Memory => "memory of one instance under load",
        }
    }

    /// Measures it.
    ///
    /// # Errors
    /// What kept it from being measured; a missed bar is no error.
    pub(crate) async fn measure(self, setting: &Setting) -> anyhow::Result<Vec<Line>> {
        match self {
            Self::Read => read::measure(setting, read::Cache::Off).await,
            Self::CachedRead => read::measure(setting, read::Cache::On).await,
            Self::Forecast => forecast::measure(setting).await,
            Self::MonteCarlo => monte_carlo::measure(setting),
            Self::Jobs => jobs::measure(setting).await,
            Self::Seed => seed::measure(setting).await,
            Self::Mix => standard_mix::measure(setting).await,
            Self::Spike => spike::measure(setting).await,
            Self::Memory => memory::measure(setting).await,
        }
    }
}
