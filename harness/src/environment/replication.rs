//! How a replica gets its data and keeps them up to date, and the proof that it does.
//!
//! The proof is asked of both sides, by name: the primary says who streams from it, each replica says
//! that it recovers and from where. A replica that is merely running proves nothing.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

use super::engine::PostgresSpec;
use super::servers::{POSTGRES_ADMIN, PostgresServer};

/// Pause between two looks.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// One look at one server.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(3);

/// Where a replica streams from, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationSource {
    address: SocketAddr,
    name: String,
}

impl ReplicationSource {
    /// The source of the replica `spec`.
    ///
    /// # Errors
    /// If the engine cannot tell where its servers reach the primary.
    pub async fn of(spec: &PostgresSpec, primary: &PostgresServer) -> Result<Self> {
        Ok(Self { address: primary.address_among_servers().await?, name: spec.name.clone() })
    }

    /// Arguments of `pg_basebackup` but for the data directory; the password comes by `PGPASSWORD`. The
    /// settings for streaming are written into the copy, with a slot, so that no log is missed meanwhile.
    #[must_use]
    pub fn copy_arguments(&self) -> Vec<String> {
        let Self { address, name } = self;
        let conninfo = format!(
            "host={} port={} user={POSTGRES_ADMIN} application_name={name} sslmode=disable",
            address.ip(),
            address.port()
        );
        let slot = slot_name(name);
        ["-d", &conninfo, "--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--create-slot", "--slot", &slot]
            .map(str::to_owned)
            .to_vec()
    }
}

/// A slot's name holds no hyphen.
fn slot_name(name: &str) -> String {
    name.replace('-', "_")
}

/// Waits until the primary names every one of `replicas` as streaming to it, and each of them says that it
/// recovers from a stream. Gives one line for each, for the record.
///
/// # Errors
/// After `limit`, with what each lacks.
pub async fn wait_until_streaming(
    primary: &PostgresServer,
    replicas: &[(String, PostgresServer)],
    limit: Duration,
) -> Result<Vec<String>> {
    let deadline = Instant::now() + limit;
    loop {
        let mut lines = Vec::new();
        let mut lacking = Vec::new();
        for (name, replica) in replicas {
            let look = tokio::time::timeout(ATTEMPT_LIMIT, look(primary, name, replica)).await;
            match look.unwrap_or_else(|_| bail!("no answer within {} s", ATTEMPT_LIMIT.as_secs())) {
                Ok(line) => lines.push(line),
                Err(error) => lacking.push(format!("{name}: {error:#}")),
            }
        }
        if lacking.is_empty() {
            return Ok(lines);
        }
        if Instant::now() > deadline {
            bail!("replication does not stand within {} s: {}", limit.as_secs(), lacking.join("; "));
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
}

async fn look(primary: &PostgresServer, name: &str, replica: &PostgresServer) -> Result<String> {
    let mut there = PgConnection::connect(&primary.admin_dsn("postgres")).await.context("connect to the primary")?;
    let state: Option<(String, String)> =
        sqlx::query_as("SELECT state, sync_state FROM pg_stat_replication WHERE application_name = $1")
            .bind(name)
            .fetch_optional(&mut there)
            .await
            .context("read pg_stat_replication")?;
    there.close().await?;
    let mut here = PgConnection::connect(&replica.admin_dsn("postgres")).await.context("connect to the replica")?;
    let (recovers, receiver): (bool, Option<String>) = sqlx::query_as(
        "SELECT pg_is_in_recovery(), (SELECT status || ' by slot ' || slot_name FROM pg_stat_wal_receiver)",
    )
    .fetch_one(&mut here)
    .await
    .context("ask the replica whether it recovers")?;
    here.close().await?;
    let slot = format!("streaming by slot {}", slot_name(name));
    match (state, recovers, receiver) {
        (Some((state, sync)), true, Some(receiver)) if state == "streaming" && receiver == slot => {
            Ok(format!("{name} in recovery, {receiver}, {sync}"))
        }
        (None, ..) => bail!("the primary knows nobody of that name"),
        (Some(_), false, _) => bail!("it is not in recovery"),
        (Some((state, _)), true, receiver) => {
            bail!("the primary says {state}, it says {}", receiver.as_deref().unwrap_or("nothing"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_names_its_replica_and_its_slot_and_holds_no_password() {
        let source = ReplicationSource { address: "127.0.0.1:5432".parse().unwrap(), name: "replica-1".to_owned() };
        let arguments = source.copy_arguments();
        assert!(arguments[1].contains("port=5432") && arguments[1].contains("application_name=replica-1"));
        assert!(!arguments.join(" ").contains("password"));
        assert_eq!(arguments.last().map(String::as_str), Some("replica_1"));
    }
}
