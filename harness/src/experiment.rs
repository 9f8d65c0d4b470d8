//! The whole plan of a run as data: suite, seed, load, faults, limits. Thresholds stand here, with unit and reason.

use std::collections::BTreeMap;

use anyhow::Result;
use nogo_faults::catalogue::Family;
use nogo_faults::{DrawPlan, FaultChoice, FaultRow, Schedule, catalogue};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::cli::RunArgs;
use crate::exit_code::EndsWith;
use crate::nemesis::SKEW_S;
use crate::randomness::Randomness;
use crate::schedule_file;
use crate::workload::LoadSpec;

/// A named load with its faults; its name is the verdict's scope.
#[derive(Debug, Clone, Copy)]
pub struct Suite {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is for, in a sentence.
    pub what: &'static str,
    /// Length of the load, baseline included, milliseconds.
    pub load_ms: u64,
    /// Faults injected unless `--faults` says otherwise.
    pub faults: &'static [&'static str],
}

/// Every suite.
pub const SUITES: &[Suite] = &[Suite {
    name: "smoke",
    what: "the whole loop once: the standard mix, three faults, the laws under them",
    load_ms: 55_000,
    faults: &["pool-exhaustion", "redis-loss", "worker-crash"],
}];

/// How many of each process, and how each is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemShape {
    /// API instances.
    pub apis: u32,
    /// Worker processes.
    pub workers: u32,
    /// Jobs at once in one worker.
    pub worker_concurrency: u32,
    /// Connections in the pool of one API instance.
    pub api_pool: u32,
    /// Life of an access token, seconds: short enough that one expires within the load.
    pub access_ttl_s: u64,
    /// Lease of a job, milliseconds: short enough that a killed worker's job is finished within the run.
    pub lease_ms: u64,
}

impl Default for SystemShape {
    fn default() -> Self {
        SystemShape { apis: 2, workers: 2, worker_concurrency: 2, api_pool: 16, access_ttl_s: 15, lease_ms: 3_000 }
    }
}

/// Longest waits of a run, each a condition with this limit, milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// All processes ready.
    pub provision_ms: u64,
    /// The steady state before the load.
    pub steady_ms: u64,
    /// The effect of a fault after its control proof.
    pub effect_ms: u64,
    /// Healing all open faults.
    pub heal_ms: u64,
    /// Queue drained and every payment settled.
    pub quiesce_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { provision_ms: 60_000, steady_ms: 15_000, effect_ms: 6_000, heal_ms: 30_000, quiesce_ms: 45_000 }
    }
}

/// The plan of one run; written into its folder before anything starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Name of the suite.
    pub suite: String,
    /// Root of everything drawn.
    pub seed: u64,
    /// Faults asked for, by name.
    pub faults: Vec<String>,
    /// Processes and their settings.
    pub system: SystemShape,
    /// Waits.
    pub limits: Limits,
    /// The load.
    pub load: LoadSpec,
    /// What is injected when.
    pub schedule: Schedule,
}

impl Experiment {
    /// The plan that the flags of `nogo run` describe, its schedule drawn from the seed.
    ///
    /// # Errors
    /// A usage error for an unknown suite or fault, or a load too short for the faults asked for.
    pub fn plan(args: &RunArgs, seed: u64) -> Result<Experiment> {
        let suite = SUITES.iter().find(|suite| suite.name == args.suite).ok_or_else(|| {
            let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
            EndsWith::usage(format!("no suite '{}': there is {}", args.suite, names.join(", ")))
        })?;
        let mut key = [0u8; 32];
        Randomness::new(seed).stream("faults").fill_bytes(&mut key);
        let (faults, schedule) = match &args.schedule {
            Some(path) => {
                let schedule = schedule_file::read(path, key)?;
                let rows = catalogue::all().filter(|row| schedule.steps.iter().any(|step| step.fault == row.name));
                (rows.collect(), schedule)
            }
            None => drawn_schedule(args, suite, key)?,
        };
        let mut load = LoadSpec::default();
        if let Some(rate) = args.rate {
            load.operations_per_s = rate;
        }
        if faults.iter().any(|row| row.name == "clock-skew") {
            load.clocks_apart_s = SKEW_S;
        }
        Ok(Experiment {
            suite: suite.name.to_owned(),
            seed,
            faults: faults.iter().map(|row| row.name.to_owned()).collect(),
            system: SystemShape::default(),
            limits: Limits::default(),
            load,
            schedule,
        })
    }
}

/// Says instead of names that faults are to be drawn.
const DRAWN: &str = "drawn";
/// Load beyond the suite's own for one fault of each family, milliseconds.
const DRAWN_MS_MORE: u64 = 40_000;

/// One fault of each family of what the load itself meets at any hour, drawn from `key`.
fn one_of_each_family(key: [u8; 32]) -> Vec<&'static FaultRow> {
    let mut rng = ChaCha8Rng::from_seed(key);
    // The provider's faults hurt first charges, and how many there are depends on the hour: a tenant in the first hour of
    // its day pays nothing yet, and a window that finds too few does not land. They are asked for by name.
    let families = catalogue::families().filter(|(family, _)| !matches!(family, Family::Placebo | Family::Provider));
    families.map(|(_, rows)| &rows[rng.random_range(0..rows.len())]).collect()
}

/// The faults asked for by name, each once in a window drawn from `key`.
fn drawn_schedule(args: &RunArgs, suite: &Suite, key: [u8; 32]) -> Result<(Vec<&'static FaultRow>, Schedule)> {
    let is_drawn = args.faults.as_deref() == Some(DRAWN);
    let faults = if is_drawn { one_of_each_family(key) } else { requested_faults(args.faults.as_deref(), suite)? };
    let suites_own_ms = if is_drawn { suite.load_ms + DRAWN_MS_MORE } else { suite.load_ms };
    let load_ms = args.load_s.map_or(suites_own_ms, |seconds| seconds.saturating_mul(1_000));
    let choices = faults.iter().map(|row| choice(row)).collect();
    let schedule = Schedule::draw(key, &DrawPlan::smoke(load_ms, choices))
        .map_err(|error| EndsWith::usage(format!("--load-s: {error}; give a longer load or fewer --faults")))?;
    Ok((faults, schedule))
}

fn requested_faults(flag: Option<&str>, suite: &Suite) -> Result<Vec<&'static FaultRow>> {
    let names: Vec<&str> = match flag {
        None => suite.faults.to_vec(),
        Some("none") => Vec::new(),
        Some(list) => list.split(',').map(str::trim).collect(),
    };
    let mut rows = Vec::new();
    for name in names {
        let row = catalogue::find(name).ok_or_else(|| {
            let known: Vec<&str> = catalogue::all().map(|row| row.name).collect();
            EndsWith::usage(format!("no fault '{name}': there is {}, none, or drawn", known.join(", ")))
        })?;
        if rows.iter().any(|present: &&FaultRow| present.name == row.name) {
            return Err(EndsWith::usage(format!("fault '{name}' is named twice")).into());
        }
        rows.push(row);
    }
    Ok(rows)
}

fn choice(row: &FaultRow) -> FaultChoice {
    FaultChoice {
        fault: row.name.to_owned(),
        targets: row.targets.iter().map(|target| (*target).to_owned()).collect(),
        params: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::SettingArgs;
    use crate::environment::engine_choice::EngineChoice;
    use crate::exit_code::{ExitCode, exit_code_of};

    fn args(suite: &str, faults: Option<&str>, load_s: Option<u64>) -> RunArgs {
        RunArgs {
            suite: suite.to_owned(),
            seed: None,
            faults: faults.map(str::to_owned),
            schedule: None,
            load_s,
            rate: None,
            setting: SettingArgs { engine: EngineChoice::Auto, system_bin: None, fail_fast: false },
        }
    }

    #[test]
    fn the_smoke_suite_asks_for_all_its_faults_and_the_same_seed_plans_the_same() {
        let first = Experiment::plan(&args("smoke", None, None), 5).unwrap();
        let again = Experiment::plan(&args("smoke", None, None), 5).unwrap();
        assert_eq!(first.schedule, again.schedule);
        assert_eq!(first.schedule.steps.len(), 3);
        assert!(first.schedule.load_ms <= 60_000);
        assert_ne!(first.schedule, Experiment::plan(&args("smoke", None, None), 6).unwrap().schedule);
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error() {
        for (suite, faults, load_s) in [
            ("smok", None, None),
            ("smoke", Some("redis-los"), None),
            ("smoke", Some("redis-loss,redis-loss"), None),
            ("smoke", None, Some(10)),
        ] {
            let error = Experiment::plan(&args(suite, faults, load_s), 1).unwrap_err();
            assert_eq!(exit_code_of(&error), ExitCode::Usage, "{error}");
        }
    }

    #[test]
    fn drawn_is_one_fault_of_each_family_and_fits() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let planned = Experiment::plan(&args("smoke", Some("drawn"), None), seed).unwrap();
            let families: std::collections::BTreeSet<Family> =
                planned.faults.iter().map(|name| catalogue::family_of(catalogue::find(name).unwrap())).collect();
            assert_eq!((families.len(), planned.schedule.steps.len()), (7, 7), "{:?}", planned.faults);
            let again = Experiment::plan(&args("smoke", Some("drawn"), None), seed).unwrap();
            assert_eq!(planned.schedule, again.schedule);
            seen.extend(planned.faults);
        }
        assert!(seen.len() > 35, "{seen:?}");
    }

    #[test]
    fn none_is_a_load_without_faults() {
        assert!(Experiment::plan(&args("smoke", Some("none"), None), 1).unwrap().schedule.steps.is_empty());
    }
}
