//! Faults of PostgreSQL, planted.

use std::sync::Arc;

use anyhow::{Result, bail};
use nogo_faults::{
    BlastRadius, Deadlocks, DeadlocksConfig, DiskFull, FaultRow, FreezeLimits, Greeting, HeldTransaction,
    HeldTransactionConfig, LinkResets, LinkResetsConfig, LinkShows, MaxConnections, MaxConnectionsConfig,
    PoolExhaustion, PoolExhaustionConfig, PostgresCrash, PostgresCrashLimits, ReplayPause, SerializationConfig,
    SerializationFailures, ServiceControl as _, ServiceFreeze, SlowStatement, SlowStatementConfig, Struck,
};

use super::{Planted, Site};
use crate::environment::service_control::DataVolume;
use crate::environment::topology::{POSTGRES, REPLICAS};
use crate::nemesis::effect::{
    AndStreaming, Asked, Counter, CounterRises, EffectProbe, Readiness, SilentReplica, Unwell,
};

/// Longest wait for one lock or for one part of healing.
const LIMIT_MS: u64 = 10_000;
/// Longest wait for the server to count a deadlock, milliseconds: one whose connection then rests is told of after ten
/// seconds (measured: 10.2), since a server process hands on its statistics at once only where it did not do so just before.
const DEADLOCKS_TOLD_MS: u64 = 12_000;
/// Longest wait for a server that is full, and for one with room again, milliseconds: a hundred connections are made and
/// a few dozen ended, each of which takes a tenth of a second where everybody asks for one at the same time.
const FULL_MS: u64 = 20_000;
/// The system writes it in every run.
const TABLE: &str = "app.scenarios";
/// The system's own.
const ROLE: &str = "forecastle_app";
/// Connections that each process keeps where the server has no other.
const KEPT_EACH: i64 = 1;
/// Refusals that are more than the load's own.
const REFUSALS_MIN: u64 = 3;

/// Makes the fault of this family that `row` describes.
pub(super) async fn plant(row: &'static FaultRow, radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    match row.name {
        "pool-exhaustion" => pool_exhaustion(row, radius, site),
        "max-connections" => max_connections(row, radius, site).await,
        "postgres-crash" | "replica-stop" => crash(row, radius, site),
        "postgres-freeze" => freeze(row, radius, site),
        "postgres-slow" | "postgres-blackhole" => links(row, radius, site),
        "postgres-reset" => resets(row, radius, site).await,
        "row-locks" | "table-locks" | "idle-in-transaction" => held_transaction(row, radius, site),
        "deadlocks" | "serialization-failures" | "statement-timeout" | "disk-full" => refusals(row, radius, site).await,
        "replica-lag" => replica_lag(row, radius, site),
        other => bail!("fault '{other}' has a row and no implementation"),
    }
}

fn readiness(site: &Site<'_>, unwell: Unwell) -> Result<Readiness> {
    Readiness::new(site.topology.api_base_urls()?, unwell)
}

/// Answers with status 503, beyond those before the fault.
async fn refused(site: &Site<'_>) -> Result<Box<dyn EffectProbe>> {
    let counter = Counter::new(site.topology.api_base_urls()?, "http_requests_total", "status=\"503\"")?;
    Ok(Box::new(CounterRises::new(counter, REFUSALS_MIN, readiness(site, Unwell::NotReady)?).await?))
}

/// With `probe`, that both replicas stream again afterwards.
fn and_streaming<P: EffectProbe + 'static>(site: &Site<'_>, probe: P) -> Box<dyn EffectProbe> {
    let replicas = REPLICAS.map(str::to_owned).to_vec();
    Box::new(AndStreaming { probe, primary: site.topology.admin_dsn(), replicas })
}

/// Every connection taken, writers of scenarios and jobs locked out.
fn pool_exhaustion(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let mut config =
        PoolExhaustionConfig::new(format!("f{}", site.number), site.topology.app_dsn(), site.topology.admin_dsn());
    // Blocks every writer of scenarios and of the queue, no reader: the pool fills with waiting writers.
    config.lock_statements = vec![
        "LOCK TABLE app.scenarios IN EXCLUSIVE MODE".to_owned(),
        "LOCK TABLE app.forecasts IN EXCLUSIVE MODE".to_owned(),
    ];
    let fault = PoolExhaustion::new(config, row.tolerance)?;
    radius.allow_address(site.topology.postgres().address());
    Ok(Planted { row, fault: Box::new(fault), radius, probe: Box::new(readiness(site, Unwell::NotReady)?) })
}

/// Every place of the server taken but a few that the system keeps.
async fn max_connections(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let harm = MaxConnections::new(MaxConnectionsConfig {
        id: format!("f{}", site.number),
        admin_dsn: site.topology.admin_dsn(),
        ordinary_dsn: site.topology.app_dsn(),
        role: ROLE.to_owned(),
        keep_each: KEPT_EACH,
        limit_ms: FULL_MS,
    })?;
    radius.allow_address(site.topology.postgres().address());
    let fault = Box::new(Struck::new(harm, row.tolerance));
    Ok(Planted { row, fault, radius, probe: refused(site).await? })
}

/// The primary or a replica killed, and started on its data.
fn crash(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let target = &site.step.target;
    let control = site.topology.postgres_control(target)?;
    radius.allow_address(control.address());
    let dsn = site.topology.postgres_named(target)?.admin_dsn("postgres");
    let id = format!("f{}", site.number);
    let harm = PostgresCrash::new(row.name, &id, control, &dsn, PostgresCrashLimits::default())?;
    let probe = if target == POSTGRES {
        and_streaming(site, readiness(site, Unwell::NotReady)?)
    } else {
        and_streaming(site, SilentReplica::new(site.topology.api_base_urls()?, target)?)
    };
    Ok(Planted { row, fault: Box::new(Struck::new(harm, row.tolerance)), radius, probe })
}

fn freeze(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let control = site.topology.postgres_control(&site.step.target)?;
    radius.allow_address(control.address());
    let harm = ServiceFreeze::new(row.name, control, Greeting::Postgres, FreezeLimits::default());
    let probe = and_streaming(site, readiness(site, Unwell::NotReady)?);
    Ok(Planted { row, fault: Box::new(Struck::new(harm, row.tolerance)), radius, probe })
}

/// Every link of the system to the primary hurt.
fn links(row: &'static FaultRow, radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let harm = super::links_to(row, site, POSTGRES, Greeting::Postgres)?;
    let unwell = match harm.shows {
        LinkShows::LateMs(ms) => Unwell::SlowerThanMs(ms),
        _ => Unwell::NotReady,
    };
    Ok(super::on_links(row, radius, site, harm, Box::new(readiness(site, unwell)?)))
}

/// Connections of the system to the primary reset, again and again.
async fn resets(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let client = site.topology.links().client().clone();
    radius.allow_address(client.api_addr());
    let links = site.topology.links().list().into_iter().filter(|link| link.server == POSTGRES);
    let config = LinkResetsConfig {
        name: row.name,
        id: format!("f{}", site.number),
        links: links.map(|link| (link.name, link.listen)).collect(),
        greeting: Greeting::Postgres,
        limit_ms: LIMIT_MS,
    };
    let fault = Box::new(Struck::new(LinkResets::new(config, client), row.tolerance));
    Ok(Planted { row, fault, radius, probe: refused(site).await? })
}

/// One transaction that stays open.
fn held_transaction(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let (statement, contender) = match row.name {
        "row-locks" => {
            let rows = format!("SELECT FROM {TABLE} FOR UPDATE");
            (rows.clone(), Some(rows))
        }
        "table-locks" => {
            (format!("LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE"), Some(format!("SELECT FROM {TABLE} LIMIT 1")))
        }
        _ => ("SELECT pg_current_xact_id()".to_owned(), None),
    };
    let holds_lock = contender.is_some();
    let harm = HeldTransaction::new(HeldTransactionConfig {
        name: row.name,
        id: format!("f{}", site.number),
        admin_dsn: site.topology.admin_dsn(),
        statements: vec![statement],
        contender,
        lock_ms_max: LIMIT_MS,
        heal_ms_max: LIMIT_MS,
    })?;
    let (source, question) = if holds_lock {
        let holder = harm.application_name();
        let question = format!(
            "SELECT count(*) > 0, count(*) || ' sessions of the system wait for ours' FROM pg_stat_activity waiting \
              WHERE waiting.usename = 'forecastle_app' AND pg_blocking_pids(waiting.pid) && \
                    (SELECT coalesce(array_agg(pid), '{{}}') FROM pg_stat_activity WHERE application_name = '{holder}')"
        );
        ("pg_blocking_pids", question)
    } else {
        let question = "SELECT coalesce(max(clock_timestamp() - at) > interval '300 ms', false), \
                               count(*) || ' events of forecasts are committed and not settled' \
                          FROM app.forecast_events WHERE xid >= pg_snapshot_xmin(pg_current_snapshot())";
        ("app.forecast_events", question.to_owned())
    };
    radius.allow_address(site.topology.postgres().address());
    let well = readiness(site, Unwell::NotReady)?;
    let probe = Asked { dsn: site.topology.admin_dsn(), source, question, well };
    let fault = Box::new(Struck::new(harm, row.tolerance));
    Ok(Planted { row, fault, radius, probe: Box::new(probe) })
}

/// Statements that the server refuses or ends, each felt as answers with status 503.
async fn refusals(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let (id, admin_dsn) = (format!("f{}", site.number), site.topology.admin_dsn());
    radius.allow_address(site.topology.postgres().address());
    let tolerance = row.tolerance;
    let fault: Box<dyn nogo_faults::Fault> = match row.name {
        "deadlocks" => {
            let table = TABLE.to_owned();
            let config =
                DeadlocksConfig { id, admin_dsn, table, landing_ms_max: DEADLOCKS_TOLD_MS, heal_ms_max: LIMIT_MS };
            Box::new(Struck::new(Deadlocks::new(config)?, tolerance))
        }
        "serialization-failures" => {
            // Every request for a forecast counts there, after it has read.
            let rewrite = "UPDATE app.quota_periods SET taken = taken".to_owned();
            let config =
                SerializationConfig { id, admin_dsn, rewrite, landing_ms_max: LIMIT_MS, heal_ms_max: LIMIT_MS };
            Box::new(Struck::new(SerializationFailures::new(config)?, tolerance))
        }
        "statement-timeout" => {
            let config = SlowStatementConfig {
                id,
                admin_dsn,
                table: TABLE.to_owned(),
                events: "UPDATE".to_owned(),
                witness: format!("UPDATE {TABLE} SET version = version WHERE false"),
                sleep_ms: 60_000,
                lock_ms_max: LIMIT_MS,
            };
            Box::new(Struck::new(SlowStatement::new(config)?, tolerance))
        }
        _ => {
            let volume = Arc::new(DataVolume::of(site.topology.postgres()));
            Box::new(Struck::new(DiskFull::new(&id, volume, &admin_dsn, LIMIT_MS)?, tolerance))
        }
    };
    Ok(Planted { row, fault, radius, probe: refused(site).await? })
}

fn replica_lag(row: &'static FaultRow, mut radius: BlastRadius, site: &Site<'_>) -> Result<Planted> {
    let replica = site.topology.postgres_named(&site.step.target)?;
    radius.allow_address(replica.address());
    let harm = ReplayPause::new(&format!("f{}", site.number), &replica.admin_dsn("postgres"), LIMIT_MS)?;
    let probe = SilentReplica::new(site.topology.api_base_urls()?, &site.step.target)?;
    Ok(Planted { row, fault: Box::new(Struck::new(harm, row.tolerance)), radius, probe: Box::new(probe) })
}
