//! The command line: flags and their help, nothing that acts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::environment::engine_choice::EngineChoice;
use crate::point_sweep::{PointChoice, PointFault, Story};

/// Verifies a build of Forecastle: starts it on real PostgreSQL and Redis, loads it, breaks it, judges it by evidence.
#[derive(Debug, Parser)]
#[command(name = "nogo", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// Folder that holds the runs.
    #[arg(long, global = true, env = "NOGO_STORE", default_value = "store")]
    pub store: PathBuf,
    /// Print the result as JSON on stdout.
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not print progress.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 held (GO), 1 no-go violated (NO-GO), 2 usage, 3 inconclusive (INSUFFICIENT EVIDENCE), \
4 budget missed (CONDITIONAL GO), 6 environment not ready, 7 nothing selected, 70 harness broke, 130 interrupted";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a suite and print its verdict.
    Run(RunArgs),
    /// Run the realised schedule of an earlier run again.
    Replay(ReplayArgs),
    /// Judge a stored run again from its record alone, offline.
    Gate {
        /// A run's id, a path to its folder, or `latest`.
        run: String,
    },
    /// List suites, faults, laws or stored runs.
    List {
        /// What to list.
        #[arg(value_enum)]
        what: Listing,
    },
    /// Show a stored run: verdict, laws, violations.
    Show {
        /// A run's id, a path to its folder, or `latest`.
        run: String,
    },
    /// Remove what runs whose owner is gone have left on this host.
    Clean {
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
        /// Remove stored runs as well, all but the newest N.
        #[arg(long, value_name = "N")]
        keep_runs: Option<usize>,
    },
    /// Check that this machine can run the suites; name what is missing and its fix.
    Doctor,
    /// Run a story once for each point at which something lasting happens, and lose it there in each of four ways.
    Sweep(SweepArgs),
    /// Plant bugs into a copy of the system, one by one, and report which law notices each.
    Mutants(MutantsArgs),
}

/// What `nogo list` can list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// The suites, with their load and faults.
    Suites,
    /// The faults, with their targets, proofs and tolerances.
    Faults,
    /// The laws, with what each requires of the evidence.
    Invariants,
    /// The JSON Schema of a schedule file.
    ScheduleSchema,
    /// The runs in the store.
    Runs,
}

/// Flags of `nogo run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The suite to run; `nogo list suites` names them.
    pub suite: String,
    /// Root of everything drawn: decimal, or hexadecimal with 0x. Default: drawn afresh and printed.
    #[arg(long, value_parser = parse_seed)]
    pub seed: Option<u64>,
    /// Faults to inject, by name with commas between; `none`; or `drawn`, one of each family by the seed but of the payment
    /// provider's, which want first charges that there are not at every hour. Default: the suite's.
    #[arg(long, value_name = "none|drawn|F,…")]
    pub faults: Option<String>,
    /// Faults by a file of your own, which also sets the length of the load; `nogo list schedule-schema` says how.
    #[arg(long, value_name = "FILE.toml", conflicts_with_all = ["faults", "load_s"])]
    pub schedule: Option<PathBuf>,
    /// Seconds of load. Default: the suite's.
    #[arg(long, value_name = "SECONDS")]
    pub load_s: Option<u64>,
    /// Offered operations a second. Default: the suite's.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<u32>,
    /// What applies to `run` and `replay` alike.
    #[command(flatten)]
    pub setting: SettingArgs,
}

/// Where a run happens.
#[derive(Debug, Clone, Args)]
pub struct SettingArgs {
    /// Engine for PostgreSQL and Redis.
    #[arg(long, value_enum, env = "NOGO_ENGINE", default_value = "auto")]
    pub engine: EngineChoice,
    /// Use this binary of the system instead of building it.
    #[arg(long, value_name = "PATH")]
    pub system_bin: Option<PathBuf>,
    /// Stop the load as soon as a no-go law is seen violated.
    #[arg(long)]
    pub fail_fast: bool,
}

/// Flags of `nogo replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// A run's id, a path to its folder, or `latest`.
    pub run: String,
    /// Where to run it.
    #[command(flatten)]
    pub setting: SettingArgs,
}

/// Flags of `nogo sweep`.
#[derive(Debug, Clone, Args)]
pub struct SweepArgs {
    /// The story to sweep.
    #[arg(value_enum)]
    pub story: Story,
    /// Only list the points: one run without a fault.
    #[arg(long, conflicts_with_all = ["point", "fault"])]
    pub list: bool,
    /// Visit these points only, by number or name with commas between. Default: all.
    #[arg(long, value_name = "K|NAME,…", value_delimiter = ',')]
    pub point: Vec<PointChoice>,
    /// Do this only, with commas between. Default: all four.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub fault: Vec<PointFault>,
    /// Root of everything drawn: decimal, or hexadecimal with 0x.
    #[arg(long, value_parser = parse_seed, default_value = "1")]
    pub seed: u64,
    /// Lease of a worker's claim, and longest silence in a transaction, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 800, value_parser = clap::value_parser!(u64).range(300..=1_000))]
    pub lease_ms: u64,
    /// Engine, binary, fail-fast: here, no further case once a law was broken.
    #[command(flatten)]
    pub setting: SettingArgs,
}

/// Flags of `nogo mutants`.
#[derive(Debug, Clone, Args)]
pub struct MutantsArgs {
    /// Ids of the mutants to try. Default: all.
    pub ids: Vec<String>,
    /// Folder with `*.patch` files and `catalogue.toml`.
    #[arg(long, default_value = "harness/mutants")]
    pub dir: PathBuf,
    /// Only check that every patch still applies.
    #[arg(long)]
    pub check: bool,
    /// Leave out the runs of a bug under the other faults that its row names, each of which ought to reveal it too.
    #[arg(long)]
    pub skip_also: bool,
    /// Leave out the last runs of a bug that needs a fault, under the milder ones that its row names.
    #[arg(long)]
    pub skip_milder: bool,
    /// Engine for PostgreSQL and Redis.
    #[arg(long, value_enum, env = "NOGO_ENGINE", default_value = "auto")]
    pub engine: EngineChoice,
    /// Root of everything drawn.
    #[arg(long, value_parser = parse_seed, default_value = "1")]
    pub seed: u64,
}

/// A seed as written: decimal, or hexadecimal after `0x`.
///
/// # Errors
/// Says which form was expected.
pub fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("'{text}' is no seed: give a whole number up to 2^64-1, or its hexadecimal form as 0x…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_in_both_forms_and_nothing_else() {
        assert_eq!(parse_seed("17"), Ok(17));
        assert_eq!(parse_seed("0xff"), Ok(255));
        assert!(parse_seed("seventeen").is_err());
        assert!(parse_seed("-1").is_err());
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
