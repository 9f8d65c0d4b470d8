//! What a plan demands of an engine, and whether it can do it: asked before anything is started.

use std::path::PathBuf;

use anyhow::Result;
use nogo_faults::{ControlGroup, FaultRow, catalogue};

use crate::environment::clock_library::clock_library;
use crate::environment::engine::{Engine, EngineKind};
use crate::environment::links::EXTERNAL_SERVER;
use crate::exit_code::EndsWith;
use crate::experiment::Experiment;
use crate::run::books;

/// Size of the primary's volume in a run that fills it, MiB: several times what a run writes.
const DATA_MIB: u32 = 512;
/// The fault that needs such a volume.
const FILLS_VOLUME: &str = "disk-full";

/// Faults that one engine can do, and not in the same run.
#[derive(Debug, Clone, Copy)]
pub struct NotTogether {
    /// The engine.
    pub engine: EngineKind,
    /// The faults.
    pub faults: [&'static str; 2],
    /// Why.
    pub why: &'static str,
}

/// All of them.
pub const NOT_TOGETHER: &[NotTogether] = &[NotTogether {
    engine: EngineKind::Docker,
    faults: [FILLS_VOLUME, "postgres-crash"],
    why: "the volume is in memory and does not outlive a kill",
}];

/// The fault that needs control groups.
const STARVES: &str = "cpu-starved";
/// The faults that set clocks.
const SETS_CLOCKS: [&str; 2] = ["clock-skew", "clock-step"];

impl Experiment {
    /// Size of the volume for the primary's data, MiB; only where a fault fills it.
    #[must_use]
    pub fn postgres_data_mib(&self) -> Option<u32> {
        self.asks_for(FILLS_VOLUME).then_some(DATA_MIB)
    }

    /// The library that lets faults set clocks; only where one does.
    ///
    /// # Errors
    /// If it is needed and not installed; names the package.
    pub fn clock_library(&self) -> Result<Option<PathBuf>> {
        match SETS_CLOCKS.into_iter().find(|fault| self.asks_for(fault)) {
            None => Ok(None),
            Some(fault) => clock_library().map(Some).map_err(|error| {
                EndsWith::inconclusive(format!("fault '{fault}' cannot be done here: {error:#}")).into()
            }),
        }
    }

    /// Whether a fault needs connections that are followed in their own language.
    #[must_use]
    pub fn follows_protocols(&self) -> bool {
        let mut rows = self.faults.iter().filter_map(|name| catalogue::find(name));
        // A biller is caught in the middle of a request.
        rows.any(FaultRow::is_of_rules) || self.bills_under_faults()
    }

    /// Whether a biller is at work in some window, so that the payment provider takes part in the load: first charges are
    /// left for it.
    #[must_use]
    pub fn bills_under_faults(&self) -> bool {
        self.schedule.steps.iter().any(|step| books::has_a_biller(&step.fault, &step.target))
    }

    fn asks_for(&self, fault: &str) -> bool {
        self.faults.iter().any(|name| name == fault)
    }

    /// Whether `engine` can do all that is asked for.
    ///
    /// # Errors
    /// The first fault that it cannot do, with the reason (exit code 3: nothing was tried).
    pub fn check_engine(&self, engine: &dyn Engine) -> Result<()> {
        let kind = engine.kind().to_string();
        for row in self.faults.iter().filter_map(|name| catalogue::find(name)) {
            if !row.engines.contains(&kind.as_str()) {
                let engines = row.engines.join(", ");
                let message = format!("the {kind} engine cannot do fault '{}': there is {engines}", row.name);
                return Err(EndsWith::inconclusive(message).into());
            }
        }
        self.clock_library()?;
        if self.follows_protocols() && std::env::var(EXTERNAL_SERVER).is_ok_and(|address| !address.is_empty()) {
            return Err(EndsWith::inconclusive(format!(
                "the proxy server that {EXTERNAL_SERVER} names follows no protocol: leave it out for faults of single requests"
            ))
            .into());
        }
        if self.asks_for(STARVES) {
            ControlGroup::can_be_made()
                .map_err(|error| EndsWith::inconclusive(format!("fault '{STARVES}' cannot be done here: {error}")))?;
        }
        if self.asks_for(FILLS_VOLUME) {
            engine.can_size_volumes().map_err(|error| {
                EndsWith::inconclusive(format!("the {kind} engine cannot do fault '{FILLS_VOLUME}' here: {error:#}"))
            })?;
        }
        let never = NOT_TOGETHER.iter().filter(|never| never.engine == engine.kind());
        for NotTogether { faults: [one, other], why, .. } in never {
            if self.asks_for(one) && self.asks_for(other) {
                return Err(EndsWith::inconclusive(format!(
                    "the {kind} engine cannot do '{one}' and '{other}' in one run: {why}; ask for one after the other"
                ))
                .into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::cli::{RunArgs, SettingArgs};
    use crate::environment::engine::{PostgresSpec, RedisSpec};
    use crate::environment::engine_choice::EngineChoice;
    use crate::environment::servers::{PostgresServer, RedisServer};
    use crate::exit_code::{ExitCode, exit_code_of};

    fn args(faults: &str) -> RunArgs {
        RunArgs {
            suite: "smoke".to_owned(),
            seed: None,
            faults: Some(faults.to_owned()),
            schedule: None,
            load_s: Some(90),
            rate: None,
            setting: SettingArgs { engine: EngineChoice::Auto, system_bin: None, fail_fast: false },
        }
    }

    /// An engine that starts nothing: what is asked of it here is what it can do.
    struct Claims(EngineKind, bool);

    impl Engine for Claims {
        fn kind(&self) -> EngineKind {
            self.0
        }
        fn description(&self) -> String {
            self.0.to_string()
        }
        fn can_size_volumes(&self) -> Result<()> {
            if self.1 { Ok(()) } else { anyhow::bail!("run nogo as root") }
        }
        fn start_postgres<'a>(&'a self, _: &'a PostgresSpec) -> BoxFuture<'a, Result<PostgresServer>> {
            unreachable!("nothing is started here")
        }
        fn start_replica<'a>(
            &'a self,
            _: &'a PostgresSpec,
            _: &'a PostgresServer,
        ) -> BoxFuture<'a, Result<PostgresServer>> {
            unreachable!("nothing is started here")
        }
        fn start_redis<'a>(&'a self, _: &'a RedisSpec) -> BoxFuture<'a, Result<RedisServer>> {
            unreachable!("nothing is started here")
        }
    }

    #[test]
    fn what_an_engine_cannot_do_is_inconclusive_and_says_why() {
        // Whatever the catalogue has: what is asked of an engine is decided by the names.
        let asked = |faults: &str| Experiment {
            faults: faults.split(',').map(str::to_owned).collect(),
            ..Experiment::plan(&args("none"), 1).unwrap()
        };
        let (process, docker) = (Claims(EngineKind::Process, true), Claims(EngineKind::Docker, true));
        for row in catalogue::all() {
            for engine in [&process, &docker] {
                let can = row.engines.contains(&engine.0.to_string().as_str());
                assert_eq!(asked(row.name).check_engine(engine).is_ok(), can, "{} on {}", row.name, engine.0);
            }
        }
        asked("disk-full,postgres-crash").check_engine(&process).unwrap();
        for (faults, engine, word) in [
            ("disk-full", &Claims(EngineKind::Process, false), "as root"),
            ("disk-full,postgres-crash", &docker, "outlive"),
        ] {
            let error = asked(faults).check_engine(engine).unwrap_err();
            assert_eq!(exit_code_of(&error), ExitCode::Inconclusive);
            assert!(error.to_string().contains(word), "{error}");
        }
        assert_eq!(asked("disk-full").postgres_data_mib(), Some(DATA_MIB));
        assert_eq!(asked("redis-loss").postgres_data_mib(), None);
    }
}
