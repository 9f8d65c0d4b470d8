//! Reads what was left, once everything is healed and drained: rows, the provider's book, Redis, metrics, logs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nogo_invariants::Canaries;
use nogo_invariants::final_state::FinalState;
use sqlx::PgPool;
use tokio::time::Instant;

use super::phases::Prepared;
use crate::environment::topology::Topology;
use crate::final_reads::{provider_book, read_connections, read_rows, reads_of, scan_file, scan_redis, scan_text};
use crate::provider::Provider;
use crate::run_directory::RunDirectory;

/// Between two looks at the queue.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits until no job is queued or running; gives how many are at the limit.
///
/// # Errors
/// When the queue cannot be read.
pub async fn wait_for_empty_queue(reader: &PgPool, limit: Duration) -> Result<u64> {
    let deadline = Instant::now() + limit;
    loop {
        let unfinished: i64 = sqlx::query_scalar("SELECT count(*) FROM app.jobs WHERE state IN ('queued', 'running')")
            .fetch_one(reader)
            .await
            .context("read the queue")?;
        if unfinished == 0 || Instant::now() >= deadline {
            return Ok(u64::try_from(unfinished).unwrap_or_default());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Everything but the logs, which are still being written.
///
/// # Errors
/// When something cannot be read: what was not looked at is not clean.
pub async fn read(prepared: &Prepared, provider: &Provider) -> Result<FinalState> {
    let topology = &prepared.topology;
    let mut state = read_rows(&topology.read_dsn(), &prepared.canaries).await?;
    state.provider = provider_book(&provider.book());
    let pages = metrics_pages(topology)?;
    state.connections = read_connections(&topology.admin_dsn(), &pages).await?;
    state.redis = scan_redis(&topology.redis().url(), &prepared.canaries, &state.tenants).await?;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    for (process, url) in &pages {
        let page = client.get(url).send().await.with_context(|| format!("read the metrics of {process}"))?;
        let text = page.bytes().await.with_context(|| format!("read the metrics of {process}"))?;
        for (replica, _) in topology.replicas() {
            let reads = reads_of(replica, &String::from_utf8_lossy(&text));
            *state.replica_reads.entry(replica.clone()).or_default() += reads;
        }
        state.leaks.push(scan_text(&format!("metrics:{process}"), &text, &prepared.canaries));
    }
    Ok(state)
}

/// Searches the logs of `processes`; call once nobody writes to them any more.
///
/// # Errors
/// When a log of a service cannot be read.
pub fn search_logs(
    directory: &RunDirectory,
    processes: &[String],
    canaries: &Arc<Canaries>,
    state: &mut FinalState,
) -> Result<()> {
    for process in processes {
        let path = directory.file("logs").join(format!("{process}.log"));
        if path.is_file() {
            state.leaks.push(scan_file(&format!("log:{process}"), &path, canaries)?);
        }
    }
    Ok(())
}

/// Counts what the sinks were told, and searches it; call once nobody tells them anything any more.
///
/// # Errors
/// When what one was told cannot be read.
pub fn search_sinks(topology: &Topology, canaries: &Arc<Canaries>, state: &mut FinalState) -> Result<()> {
    for (name, sink) in topology.sinks() {
        state.sinks.insert((*name).to_owned(), sink.book().counts());
        state.leaks.push(scan_file(&format!("sink:{name}"), sink.book().path(), canaries)?);
    }
    Ok(())
}

/// Names of processes and the addresses of their metrics. One that has ended has none, which is for the law about that to
/// judge and no reason to look at nothing else.
fn metrics_pages(topology: &Topology) -> Result<Vec<(String, String)>> {
    let mut pages = Vec::new();
    for (api, base) in topology.apis().iter().zip(topology.api_base_urls()?).filter(|(api, _)| api.runs()) {
        pages.push((api.process_name().to_owned(), format!("{base}/metrics")));
    }
    for worker in topology.workers().iter().filter(|worker| worker.runs()) {
        pages.push((worker.process_name().to_owned(), format!("http://{}/metrics", worker.address("metrics")?)));
    }
    Ok(pages)
}
