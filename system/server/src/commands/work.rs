//! `forecastle work`

use std::time::Duration;

use anyhow::Context as _;
use forecastle_store::login_role;
use forecastle_worker::WorkerConfig;
use serde_json::json;

use crate::cli::WorkArgs;
use crate::commands::announce;
use crate::exit_code::ExitCode;
use crate::{metrics_listener, shutdown};

/// Connections beyond one for each job: the claim, heartbeats and their overlap, and the listener.
const POOL_BEYOND_JOBS: u32 = 5;

/// Works until SIGTERM.
pub(crate) async fn run(args: WorkArgs) -> anyhow::Result<ExitCode> {
    let shutdown = shutdown::requested();
    let metrics = match args.metrics_listen {
        Some(listen) => Some(metrics_listener::start(listen).await?),
        None => None,
    };
    let config = WorkerConfig {
        db: args.db.options(&args.instance, args.concurrency + POOL_BEYOND_JOBS),
        cache: args.redis.options(),
        instance: args.instance.clone(),
        concurrency: args.concurrency,
        lease: Duration::from_millis(args.lease_ms),
        heartbeat: Duration::from_millis(args.heartbeat_ms),
        progress: Duration::from_millis(args.progress_ms),
        poll: Duration::from_millis(args.poll_ms),
        listen_keep_alive: Duration::from_millis(args.listen_keep_alive_ms),
        events_kept: Duration::from_secs(args.events_kept_s),
        deadline: Duration::from_millis(args.deadline_ms),
        backoff_base_ms: args.backoff_base_ms,
        backoff_cap_ms: args.backoff_cap_ms,
        drain: Duration::from_millis(args.drain_timeout_ms),
    };
    announce(&json!({
        "event": "ready",
        "instance": args.instance,
        "metrics": metrics.map(|address| address.to_string()),
    }))?;
    let database_url = config.db.database_url.clone();
    tokio::select! {
        outcome = forecastle_worker::work(config, shutdown) => outcome.context("work")?,
        refusal = login_role::refusal(&database_url) => return Err(refusal).context("work"),
    }
    Ok(ExitCode::Done)
}
