//! A fixed number of connections, each with one request under way: how many a second come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hyper::StatusCode;

use crate::client::{Call, Connection};

/// What one block brought.
pub(crate) struct Block {
    /// How many came back.
    pub(crate) requests: usize,
    pub(crate) per_second: f64,
    /// 95th percentile of latency, ms.
    pub(crate) p95_ms: f64,
}

/// Sends `calls` in turn over `connections` connections for `time`.
///
/// # Errors
/// An answer that is not 200: a block that counted it would compare nothing.
pub(crate) async fn block(
    address: SocketAddr,
    calls: &Arc<Vec<Call>>,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Block> {
    let (next, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(address).await?);
    }
    let started = Instant::now();
    let tasks: Vec<_> = opened
        .into_iter()
        .map(|mut connection| {
            let (calls, next, over) = (Arc::clone(calls), Arc::clone(&next), Arc::clone(&over));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let call = &calls[next.fetch_add(1, Ordering::Relaxed) % calls.len()];
                    let sent = Instant::now();
                    let answer = connection.call(call).await?;
                    ensure!(answer.status == StatusCode::OK, "{} answered {}", call.path, answer.status);
                    latencies.push(sent.elapsed());
                }
                Ok(latencies)
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let elapsed = started.elapsed();
    let mut latencies: Vec<Duration> = Vec::new();
    for task in tasks {
        latencies.extend(task.await.context("join a connection's task")??);
    }
    latencies.sort_unstable();
    let p95 = latencies.get(latencies.len() * 95 / 100).copied().unwrap_or_default();
    Ok(Block {
        requests: latencies.len(),
        per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
        p95_ms: p95.as_secs_f64() * 1e3,
    })
}
