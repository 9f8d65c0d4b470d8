//! Jobs that do nothing, from the queue to their end, against graphile_worker: one worker process each with the
//! same concurrency, on the same server, in turn.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::Setting;
use crate::bed::Bed;
use crate::process::Process;
use crate::report::{Line, median};

const CONCURRENCY: u32 = 16;
/// Longest wait for a block.
const DRAIN_MAX: Duration = Duration::from_secs(300);
/// Pause between two looks at a queue.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A queue of one of the columns, as SQL.
struct Queue {
    /// Queues `$1` jobs that do nothing, due at once, and wakes the workers.
    enqueue: String,
    /// Tells the planner how many there are, as a server that has run for a while would know.
    analyze: String,
    /// How many are not done.
    count_open: String,
}

impl Queue {
    /// As `forecastle_store::jobs::enqueue_probes` does it.
    fn ours() -> Self {
        Self {
            enqueue: "WITH tenant AS (SELECT tenant_id FROM app.tenants ORDER BY tenant_id LIMIT 1),
                      ids AS MATERIALIZED (SELECT gen_random_uuid() AS id FROM generate_series(1, $1)),
                      queued AS (
                          INSERT INTO app.jobs (tenant_id, job_id, kind, subject_id, state, ready_at, enqueued_at)
                          SELECT tenant.tenant_id, id, 'probe', id, 'queued', now(), now() FROM ids, tenant
                          RETURNING job_id)
                      SELECT pg_notify('forecastle_jobs', '') FROM queued LIMIT 1"
                .to_owned(),
            analyze: "ANALYZE app.jobs".to_owned(),
            count_open: "SELECT count(*) FROM app.jobs WHERE state IN ('queued', 'running')".to_owned(),
        }
    }

    /// graphile_worker's in a schema of its own.
    fn theirs(schema: &str) -> Self {
        Self {
            enqueue: format!("SELECT count({schema}.add_job('nothing', '{{}}'::json)) FROM generate_series(1, $1)"),
            analyze: format!("ANALYZE {schema}._private_jobs"),
            count_open: format!("SELECT count(*) FROM {schema}._private_jobs"),
        }
    }
}

pub(crate) async fn measure(setting: &Setting) -> anyhow::Result<Vec<Line>> {
    let (blocks, per_block) = setting.pick((5, 10_000), (2, 2_000));
    let bed = Bed::start(&setting.binary)?;
    bed.seed(10)?;
    let mut admin = bed.admin().await;
    let _ours = bed.work("worker-1", CONCURRENCY)?;
    let start = |schema: &str, mode: &str| {
        let arguments = [&bed.postgres.admin_url(), &CONCURRENCY.to_string(), schema, mode].map(str::to_owned);
        Process::start("graphile_worker", &setting.reference_queue, &arguments)
    };
    let _each = start("reference_each", "each")?;
    let _many = start("reference_many", "many")?;
    let queues = [Queue::ours(), Queue::theirs("reference_each"), Queue::theirs("reference_many")];

    let mut rates: [Vec<f64>; 3] = Default::default();
    // The first block of each warms up.
    for block in 0..=blocks {
        let count = if block == 0 { per_block / 10 } else { per_block };
        for (queue, rates) in queues.iter().zip(&mut rates) {
            let rate = drain(&mut admin, queue, count).await.with_context(|| format!("drain: {}", queue.count_open))?;
            if block > 0 {
                rates.push(rate);
            }
        }
    }
    let [ours, each, many] = &rates;
    let ratios: Vec<f64> = ours.iter().zip(each).map(|(a, b)| a / b).collect();
    let line = Line::at_least("jobs", "empty jobs against graphile_worker 0.14", median(&ratios), 1.0, 5.0);
    let figures = |values: &[f64]| format!("{:.0} /s", median(values));
    let line = line.figures(figures(ours), figures(each)).note(format!(
        "{blocks} blocks of {per_block} jobs each in turn, medians, concurrency {CONCURRENCY}, one process each, commits \
         synced; ours: claim, lease, heartbeat, fence, attempt and completion of a job of kind probe, its row kept; \
         theirs: each job fetched and completed by itself, its row deleted; block ratios {}",
        ratios.iter().map(|ratio| format!("{ratio:.1}")).collect::<Vec<_>>().join(" ")
    ));
    Ok(vec![line.note(format!(
        "not gated: graphile_worker with jobs fetched by the hundred and completed together, {}: {:.2} of it",
        figures(many),
        median(ours) / median(many)
    ))])
}

/// Queues `count` jobs in one transaction: jobs a second from its commit until none is open.
async fn drain(admin: &mut PgConnection, queue: &Queue, count: u32) -> anyhow::Result<f64> {
    let mut tx = admin.begin().await?;
    sqlx::query(AssertSqlSafe(queue.enqueue.as_str()))
        .bind(i64::from(count))
        .execute(&mut *tx)
        .await
        .context("queue jobs")?;
    sqlx::query(AssertSqlSafe(queue.analyze.as_str())).execute(&mut *tx).await.context("analyze the queue")?;
    tx.commit().await?;
    let started = Instant::now();
    loop {
        let open: i64 = sqlx::query_scalar(AssertSqlSafe(queue.count_open.as_str())).fetch_one(&mut *admin).await?;
        if open == 0 {
            return Ok(f64::from(count) / started.elapsed().as_secs_f64());
        }
        ensure!(started.elapsed() < DRAIN_MAX, "{open} jobs were still open after {DRAIN_MAX:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
