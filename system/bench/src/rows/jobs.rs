//! Jobs that do nothing, from the queue to their end, against graphile_worker: one worker process each with the
//! same concurrency, on the same server, in turn.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use sqlx::postgres::PgConnection;

use super::Setting;
use crate::bed::Bed;
use crate::process::Process;
use crate::report::{Line, median};

const CONCURRENCY: u32 = 16;
/// Longest wait for a block.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// Pause between two looks at a queue.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A queue of one of the two columns, as SQL.
struct Queue {
    /// Queues `$1` jobs that do nothing, due at once, and wakes the workers.
    enqueue: &'static str,
    /// How many are not done.
    count_open: &'static str,
}

/// As `forecastle_store::jobs::enqueue_probes` does it.
const OURS: Queue = Queue {
    enqueue: "WITH tenant AS (SELECT tenant_id FROM app.tenants ORDER BY tenant_id LIMIT 1),
              ids AS MATERIALIZED (SELECT gen_random_uuid() AS id FROM generate_series(1, $1)),
              queued AS (
                  INSERT INTO app.jobs (tenant_id, job_id, kind, subject_id, state, ready_at, enqueued_at)
                  SELECT tenant.tenant_id, id, 'probe', id, 'queued', now(), now() FROM ids, tenant
                  RETURNING job_id)
              SELECT pg_notify('forecastle_jobs', '') FROM queued LIMIT 1",
    count_open: "SELECT count(*) FROM app.jobs WHERE state IN ('queued', 'running')",
};

const THEIRS: Queue = Queue {
    enqueue: "SELECT count(graphile_worker.add_job('nothing', '{}'::json)) FROM generate_series(1, $1)",
    count_open: "SELECT count(*) FROM graphile_worker._private_jobs",
};

pub(crate) async fn measure(setting: &Setting) -> anyhow::Result<Vec<Line>> {
    let (blocks, per_block) = setting.pick((5, 20_000), (2, 2_000));
    let bed = Bed::start(&setting.binary)?;
    bed.seed(10)?;
    let mut admin = bed.admin().await;
    let _ours = bed.work("worker-1", CONCURRENCY)?;
    let arguments = [bed.postgres.admin_url(), CONCURRENCY.to_string()];
    let (_theirs, _) = Process::start("graphile_worker", &setting.reference_queue, &arguments)?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first block of each warms up.
    for block in 0..=blocks {
        let count = if block == 0 { per_block / 10 } else { per_block };
        let our_rate = drain(&mut admin, &OURS, count).await.context("drain Forecastle's queue")?;
        let their_rate = drain(&mut admin, &THEIRS, count).await.context("drain the reference's queue")?;
        if block > 0 {
            ours.push(our_rate);
            theirs.push(their_rate);
        }
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    let line = Line::at_least("jobs", "empty jobs against graphile_worker 0.14", median(&ratios), 1.0, 5.0);
    let figures = |values: &[f64]| format!("{:.0} /s", median(values));
    Ok(vec![line.figures(figures(&ours), figures(&theirs)).note(format!(
        "{blocks} blocks of {per_block} jobs each in turn, medians, concurrency {CONCURRENCY}, one process each, commits \
         synced; ours: claim, lease, heartbeat, fence, attempt and completion of a job of kind probe, its row kept; \
         theirs: its defaults, rows deleted; block ratios {}",
        ratios.iter().map(|ratio| format!("{ratio:.1}")).collect::<Vec<_>>().join(" ")
    ))])
}

/// Queues `count` jobs in one transaction: jobs a second from its commit until none is open.
async fn drain(admin: &mut PgConnection, queue: &Queue, count: u32) -> anyhow::Result<f64> {
    sqlx::query(queue.enqueue).bind(i64::from(count)).execute(&mut *admin).await.context("queue jobs")?;
    let started = Instant::now();
    loop {
        let open: i64 = sqlx::query_scalar(queue.count_open).fetch_one(&mut *admin).await?;
        if open == 0 {
            return Ok(f64::from(count) / started.elapsed().as_secs_f64());
        }
        ensure!(started.elapsed() < DRAIN_MAX, "{open} jobs were still open after {DRAIN_MAX:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
