//! `forecastle-reference-queue DATABASE_URL CONCURRENCY SCHEMA MODE`: a worker of graphile_worker with a task that does
//! nothing. Makes its tables in the schema, prints `{"event":"ready"}`, and works until killed. Tasks are queued by
//! SQL, with the function that it offers for that (`SCHEMA.add_job`).
//!
//! MODE `each`: its defaults, each job fetched and completed by itself, the queue worked off whenever there is
//! anything (a running worker would take one job for each notification, and one transaction notifies once). MODE
//! `many`: its settings for many small jobs, fetched by the hundred and completed together.

use std::time::Duration;

use anyhow::Context as _;
use graphile_worker::local_queue::LocalQueueConfig;
use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext, WorkerOptions};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;

/// Longest wait of an idle worker whose notification was lost; as Forecastle's own poll.
const POLL: Duration = Duration::from_millis(500);
/// Pause of mode `each` where nothing was left.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a completion waits for others in mode `many`; as its documentation shows it.
const TOGETHER: Duration = Duration::from_millis(5);

#[derive(Deserialize, Serialize)]
struct Nothing {}

impl TaskHandler for Nothing {
    const IDENTIFIER: &'static str = "nothing";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {}
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [database_url, concurrency, schema, mode] = &arguments[..] else {
        anyhow::bail!("give an address, a concurrency, a schema and a mode");
    };
    let concurrency: u32 = concurrency.parse().context("read the concurrency")?;
    // One for each task under way, and some for what it does beside.
    let pool = PgPoolOptions::new()
        .max_connections(concurrency.saturating_add(4))
        .connect(database_url)
        .await
        .context("connect")?;
    let options = WorkerOptions::default()
        .concurrency(concurrency as usize)
        .poll_interval(POLL)
        .schema(schema)
        .define_job::<Nothing>()
        .pg_pool(pool);
    let options = match mode.as_str() {
        "each" => options,
        "many" => options.local_queue(LocalQueueConfig::default()).complete_job_batch_delay(TOGETHER),
        other => anyhow::bail!("{other:?} is no mode: each, many"),
    };
    let worker = options.init().await.map_err(|error| anyhow::anyhow!("set graphile_worker up: {error}"))?;
    println!("{}", serde_json::json!({ "event": "ready" }));
    let failed = |error| anyhow::anyhow!("run graphile_worker: {error}");
    if mode == "many" {
        return worker.run().await.map_err(failed);
    }
    loop {
        worker.run_once().await.map_err(failed)?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
