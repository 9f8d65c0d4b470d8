//! A step of the schedule as a fault on the running topology, with the probe that shows its effect.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nogo_faults::{
    BlastRadius, BoxFuture, Fault, Grant, HealError, InstallError, MidJobProbe, PoolExhaustion, PoolExhaustionConfig,
    ProcessControl as _, ProcessKill, ProcessKillLimits, Proof, ProofError, RedisLoss, RedisLossLimits,
    ServiceControl as _, Step, Target, Tolerance,
};
use serde_json::json;
use sqlx::PgPool;

use super::effect::{ApiPools, EffectProbe, Nothing, OrphanedJobs, RedisPath};
use crate::environment::links::link_name;
use crate::environment::topology::Topology;
use crate::experiment::{FaultRow, fault_row};
use crate::workload::Load;

/// Longest any fault of a suite may stand.
const HOLD_MAX: Duration = Duration::from_secs(60);
/// Long jobs put into the queue so that the victim is in the middle of one.
const BAITS: usize = 4;
/// Paths of such a job: most of a second of one core.
const BAIT_PATHS: u32 = 30_000;

/// A fault ready to be installed.
pub struct Planted {
    /// What is known of it.
    pub row: &'static FaultRow,
    /// The harm.
    pub fault: Box<dyn Fault>,
    /// What it may touch.
    pub radius: BlastRadius,
    /// How its effect shows.
    pub probe: Box<dyn EffectProbe>,
}

/// Makes the fault of `step`; `number` tells the faults of a run apart.
///
/// # Errors
/// When the step names a fault or a victim that this topology does not have.
pub async fn plant(step: &Step, number: usize, topology: &Topology, load: &Load, reader: &PgPool) -> Result<Planted> {
    let row = fault_row(&step.fault).with_context(|| format!("find fault '{}'", step.fault))?;
    let mut radius = BlastRadius::new(HOLD_MAX);
    match row.name {
        "pool-exhaustion" => {
            let mut config = PoolExhaustionConfig::new(format!("f{number}"), topology.app_dsn(), topology.admin_dsn());
            // Blocks every writer of scenarios and of the queue, no reader: the pool fills with waiting writers.
            config.lock_statements = vec![
                "LOCK TABLE app.scenarios IN EXCLUSIVE MODE".to_owned(),
                "LOCK TABLE app.forecasts IN EXCLUSIVE MODE".to_owned(),
            ];
            let fault = PoolExhaustion::new(config, row.tolerance)?;
            radius.allow_address(topology.postgres().address());
            let probe = Box::new(ApiPools::new(topology.api_base_urls()?)?);
            Ok(Planted { row, fault: Box::new(fault), radius, probe })
        }
        "redis-loss" => {
            let control = topology.redis_control();
            radius.allow_address(control.address());
            let link = link_name("api-1", "redis");
            let listen = topology.links().list().into_iter().find(|known| known.name == link);
            let listen = listen.with_context(|| format!("find link {link}"))?.listen;
            let probe = RedisPath { link, url: topology.redis().url_at(listen) };
            let fault = RedisLoss::new(control, RedisLossLimits::default(), row.tolerance);
            Ok(Planted { row, fault: Box::new(fault), radius, probe: Box::new(probe) })
        }
        "worker-crash" => {
            let victim = topology.process_named(&step.target)?;
            let identity = victim.identity().with_context(|| format!("find a running {}", step.target))?;
            radius.allow_process(identity);
            let baits = load.submit_long_forecasts(BAITS, BAIT_PATHS).await;
            let mid_job = LongJobHeld { reader: reader.clone(), worker: step.target.clone(), baits };
            let fault = ProcessKill::new(victim, Arc::new(mid_job), ProcessKillLimits::default(), row.tolerance);
            let probe = OrphanedJobs::new(reader.clone(), step.target.clone());
            Ok(Planted { row, fault: Box::new(fault), radius, probe: Box::new(probe) })
        }
        "placebo" => {
            let address = topology.redis().address();
            radius.allow_address(address);
            let fault =
                Placebo { target: Target::Service { name: "redis".to_owned(), address }, tolerance: row.tolerance };
            Ok(Planted { row, fault: Box::new(fault), radius, probe: Box::new(Nothing { address }) })
        }
        other => bail!("fault '{other}' has a row and no implementation"),
    }
}

/// Whether the victim runs one of the long jobs right now.
struct LongJobHeld {
    reader: PgPool,
    worker: String,
    baits: Vec<String>,
}

impl MidJobProbe for LongJobHeld {
    fn mid_job(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(async move {
            let held: Option<(String, i32)> = sqlx::query_as(
                "SELECT job_id::text, attempts FROM app.jobs
                 WHERE state = 'running' AND (worker = $1 OR worker LIKE $1 || '/%') AND subject_id::text = ANY($2) LIMIT 1",
            )
            .bind(&self.worker)
            .bind(&self.baits)
            .fetch_optional(&self.reader)
            .await
            .ok()
            .flatten();
            held.map(|(job, attempts)| format!("{} runs job {job}, attempt {attempts}", self.worker))
        })
    }
}

/// Requested and never done. Claims to be in place, so that only the missing effect gives it away.
struct Placebo {
    target: Target,
    tolerance: Tolerance,
}

impl Fault for Placebo {
    fn name(&self) -> &str {
        "placebo"
    }

    fn targets(&self) -> Vec<Target> {
        vec![self.target.clone()]
    }

    fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    fn install<'a>(&'a mut self, grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
        Box::pin(async move {
            grant.covers(&self.targets())?;
            Ok(Proof::new("placebo", json!({"did": "nothing"})))
        })
    }

    fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
        Box::pin(async { Err(ProofError::NoHarm("a placebo does nothing".to_owned())) })
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
        Box::pin(async { Ok(Proof::new("placebo", json!({"undid": "nothing"}))) })
    }
}
