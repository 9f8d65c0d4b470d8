//! The state of database connections once everything should be at rest.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use nogo_invariants::final_state::ConnectionHygiene;
use sqlx::{Connection, PgConnection};

/// A transaction that idles longer than this was forgotten.
const IDLE_LIMIT_S: u64 = 5;
/// Looks at each process's metrics; the least one counts, so that a poll is no leak.
const SAMPLES: usize = 6;
/// Between two looks.
const SAMPLE_GAP: Duration = Duration::from_millis(600);
/// The gauge of connections that are checked out.
const GAUGE: &str = "forecastle_pool_connections_in_use";
/// The same of the connections to one replica.
const REPLICA_GAUGE: &str = "forecastle_replica_connections_in_use{replica=\"";

/// Reads the server's list of connections with an administrator's role (others are not shown states).
///
/// # Errors
/// Where the list cannot be read.
pub async fn read_connections(admin_url: &str, metrics: &[(String, String)]) -> anyhow::Result<ConnectionHygiene> {
    let mut connection = PgConnection::connect(admin_url).await.context("connect as administrator")?;
    let (connections, idle): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE state LIKE 'idle in transaction%'
             AND state_change < now() - make_interval(secs => $1))
         FROM pg_stat_activity WHERE usename = 'forecastle_app'",
    )
    .bind(IDLE_LIMIT_S as f64)
    .fetch_one(&mut connection)
    .await
    .context("read pg_stat_activity")?;
    connection.close().await.context("close the administrator's connection")?;
    Ok(ConnectionHygiene {
        sampled: true,
        connections: u64::try_from(connections).unwrap_or_default(),
        idle_in_transaction: u64::try_from(idle).unwrap_or_default(),
        idle_limit_s: IDLE_LIMIT_S,
        in_use: in_use_connections(metrics).await,
    })
}

/// Connections checked out, by process (`api-1`) and by process and replica (`api-1 to replica-1`), the least of several
/// looks at `(process, metrics URL)`. A process whose metrics do not name the gauge, or do not answer, is left out.
pub async fn in_use_connections(metrics: &[(String, String)]) -> BTreeMap<String, u64> {
    let client = reqwest::Client::new();
    let mut least: BTreeMap<String, u64> = BTreeMap::new();
    for look in 0..SAMPLES {
        if look > 0 {
            tokio::time::sleep(SAMPLE_GAP).await;
        }
        for (process, url) in metrics {
            let Ok(response) = client.get(url).timeout(Duration::from_secs(2)).send().await else { continue };
            let Ok(text) = response.text().await else { continue };
            let own = gauge(&text).map(|value| (process.clone(), value));
            let replicas = replica_gauges(&text).map(|(replica, value)| (format!("{process} to {replica}"), value));
            for (pool, value) in own.into_iter().chain(replicas) {
                least.entry(pool).and_modify(|known| *known = (*known).min(value)).or_insert(value);
            }
        }
    }
    least
}

fn gauge(text: &str) -> Option<u64> {
    value_of(text.lines().find(|line| line.starts_with(GAUGE))?)
}

fn replica_gauges(text: &str) -> impl Iterator<Item = (String, u64)> {
    text.lines().filter_map(|line| {
        let (replica, _) = line.strip_prefix(REPLICA_GAUGE)?.split_once('"')?;
        Some((replica.to_owned(), value_of(line)?))
    })
}

fn value_of(line: &str) -> Option<u64> {
    let value: f64 = line.rsplit(' ').next()?.parse().ok()?;
    Some(value.max(0.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_is_read_and_its_comment_is_not() {
        let text = "# TYPE forecastle_pool_connections_in_use gauge\nforecastle_pool_connections_in_use 3\n";
        assert_eq!(gauge(text), Some(3));
        assert_eq!(gauge("up 1\n"), None);
        let text = "# TYPE forecastle_replica_connections_in_use gauge\n\
                    forecastle_replica_connections_in_use{replica=\"replica-2\"} 2\n";
        assert_eq!(replica_gauges(text).collect::<Vec<_>>(), [("replica-2".to_owned(), 2)]);
    }
}
