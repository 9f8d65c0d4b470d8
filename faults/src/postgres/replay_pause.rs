//! A replica that goes on receiving the log and stops replaying it: it answers, with what was true before.

use serde_json::json;

use super::session::Admin;
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

/// Pauses the replay of one replica; healing resumes it and waits until it has caught up with what it received.
pub struct ReplayPause {
    admin: Admin,
    limit_ms: u64,
}

/// The replay as the replica tells it.
#[derive(Debug, sqlx::FromRow)]
struct Replay {
    state: String,
    received: i64,
    replayed: i64,
}

impl ReplayPause {
    /// Name of this fault.
    pub const NAME: &'static str = "replica-lag";

    /// The pause of the replica that `admin_dsn` leads to; `limit_ms` bounds each wait.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] for an id or DSN that cannot be used.
    pub fn new(id: &str, admin_dsn: &str, limit_ms: u64) -> Result<Self, InstallError> {
        Ok(Self { admin: Admin::new(id, admin_dsn)?, limit_ms })
    }

    async fn read(&self) -> Result<Replay, String> {
        self.admin
            .ask(
                "SELECT pg_get_wal_replay_pause_state() AS state, \
                        pg_wal_lsn_diff(coalesce(pg_last_wal_receive_lsn(), '0/0'), '0/0')::bigint AS received, \
                        pg_wal_lsn_diff(coalesce(pg_last_wal_replay_lsn(), '0/0'), '0/0')::bigint AS replayed",
            )
            .await
    }

    async fn look_paused(&self) -> Result<Proof, ProofError> {
        let replay = self.read().await.map_err(ProofError::Unreadable)?;
        if replay.state == "paused" {
            Ok(self.proof("replay_paused", &replay))
        } else {
            Err(ProofError::NoHarm(format!("its replay is {}", replay.state)))
        }
    }

    fn proof(&self, kind: &str, replay: &Replay) -> Proof {
        Proof::new(
            kind,
            json!({
                "address": self.admin.address.to_string(), "replay": replay.state, "received_bytes": replay.received,
                "replayed_bytes": replay.replayed,
            }),
        )
    }
}

impl Harm for ReplayPause {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Postgres { address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        self.admin.tell(&["SELECT pg_wal_replay_pause()"]).await.map_err(refused("pause the replay"))?;
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            match self.look_paused().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(Self::NAME, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_paused().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        self.admin.tell(&["SELECT pg_wal_replay_resume()"]).await.map_err(unhealed("resume the replay"))?;
        // What had arrived by now; what arrives later is the next moment's.
        let arrived = self.read().await.map_err(unhealed("read the replica"))?.received;
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            let seen = match self.read().await {
                Ok(replay) if replay.state == "not paused" && replay.replayed >= arrived => {
                    return Ok(self.proof("replay_goes_on", &replay));
                }
                Ok(replay) => format!("its replay is {}, at {} of {arrived} bytes", replay.state, replay.replayed),
                Err(reason) => reason,
            };
            wait.for_healing(Self::NAME, seen).await?;
        }
    }
}
