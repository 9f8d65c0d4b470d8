//! `forecastle-reference-queue DATABASE_URL CONCURRENCY`: a worker of graphile_worker with its defaults and a task
//! that does nothing. Makes its tables, prints `{"event":"ready"}`, and works until killed. Tasks are queued by SQL,
//! with the function that it offers for that (`graphile_worker.add_job`).

use std::time::Duration;

use anyhow::Context as _;
use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext, WorkerOptions};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;

/// Where its tables are; the benchmark counts what is open there.
const SCHEMA: &str = "graphile_worker";
/// Longest wait of an idle worker whose notification was lost; as Forecastle's own poll.
const POLL: Duration = Duration::from_millis(500);

#[derive(Deserialize, Serialize)]
struct Nothing {}

impl TaskHandler for Nothing {
    const IDENTIFIER: &'static str = "nothing";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {}
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [database_url, concurrency] = &arguments[..] else {
        anyhow::bail!("give an address and a concurrency");
    };
    let concurrency: u32 = concurrency.parse().context("read the concurrency")?;
    // One for each task under way, and some for what it does beside.
    let pool = PgPoolOptions::new()
        .max_connections(concurrency.saturating_add(4))
        .connect(database_url)
        .await
        .context("connect")?;
    let worker = WorkerOptions::default()
        .concurrency(concurrency as usize)
        .poll_interval(POLL)
        .schema(SCHEMA)
        .define_job::<Nothing>()
        .pg_pool(pool)
        .init()
        .await
        .map_err(|error| anyhow::anyhow!("set graphile_worker up: {error}"))?;
    println!("{}", serde_json::json!({ "event": "ready" }));
    worker.run().await.map_err(|error| anyhow::anyhow!("run graphile_worker: {error}"))
}
