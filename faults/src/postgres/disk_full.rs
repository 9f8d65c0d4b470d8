//! The volume of a server's data filled to the last byte.
//!
//! The volume belongs to the caller's engine and has a set size; its fill is read from the file system, and a session of
//! ours must be refused what needs more room. The log lies elsewhere: a full volume refuses statements, it ends no server.

use std::sync::Arc;

use serde_json::json;

use super::session::{Admin, close, connect, in_words, refused_with, run};
use crate::{
    blast_radius::Target,
    fault::{BoxFuture, ControlError, HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

const DISK_FULL: &str = "53100";
/// Less room than this is none: a table grows by pages of 8 KiB, and not by one alone.
const ROOM_BYTES_MAX: u64 = 64 << 10;

/// Room on a volume, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Size of the volume.
    pub size: u64,
    /// Room that is left.
    pub free: u64,
}

/// Who made the volume that a server's data lie on.
pub trait VolumeControl: Send + Sync {
    /// What the file system says now.
    fn usage(&self) -> BoxFuture<'_, Result<VolumeUsage, ControlError>>;
    /// Fills it with one file of ours until nothing more fits.
    fn fill(&self) -> BoxFuture<'_, Result<(), ControlError>>;
    /// Removes that file. Without effect if there is none.
    fn release(&self) -> BoxFuture<'_, Result<(), ControlError>>;
}

/// Fills a volume; healing gives the room back.
pub struct DiskFull {
    volume: Arc<dyn VolumeControl>,
    admin: Admin,
    limit_ms: u64,
    struck: bool,
}

impl DiskFull {
    /// Name of this fault.
    pub const NAME: &'static str = "disk-full";

    /// The filling of `volume`, which the data of the server lie on that `admin_dsn` leads to; `limit_ms` bounds each
    /// wait.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] for an id or DSN that cannot be used.
    pub fn new(id: &str, volume: Arc<dyn VolumeControl>, admin_dsn: &str, limit_ms: u64) -> Result<Self, InstallError> {
        Ok(Self { volume, admin: Admin::new(id, admin_dsn)?, limit_ms, struck: false })
    }

    /// What the server says to a session of ours that wants a megabyte, which it then gives back.
    async fn want_room(&self) -> Result<Result<(), String>, String> {
        let mut witness = connect(&self.admin.options).await?;
        let tried = run(
            &mut witness,
            "SET lock_timeout = '2s'; BEGIN; \
             CREATE TABLE public.nogo_room AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 1000) n; \
             ROLLBACK",
        )
        .await;
        close(witness).await;
        match tried {
            Ok(()) => Ok(Ok(())),
            Err(error) if refused_with(&error, DISK_FULL) => Ok(Err(in_words(&error))),
            Err(error) => Err(in_words(&error)),
        }
    }

    async fn look_full(&self) -> Result<Proof, ProofError> {
        let usage = self.volume.usage().await.map_err(|cause| ProofError::Unreadable(cause.to_string()))?;
        if usage.free > ROOM_BYTES_MAX {
            return Err(ProofError::NoHarm(format!("{} of {} bytes are free", usage.free, usage.size)));
        }
        let Err(refusal) = self.want_room().await.map_err(ProofError::Unreadable)? else {
            return Err(ProofError::NoHarm("the server found room for a table".into()));
        };
        Ok(Proof::new(
            "volume_full",
            json!({
                "address": self.admin.address.to_string(), "size_bytes": usage.size, "free_bytes": usage.free,
                "own_table": refusal,
            }),
        ))
    }
}

impl Harm for DiskFull {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Postgres { address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        self.struck = true;
        self.volume.fill().await.map_err(refused("fill the volume"))?;
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            match self.look_full().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(Self::NAME, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_full().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if self.struck {
            self.volume.release().await.map_err(unhealed("give the room back"))?;
        }
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            let usage = self.volume.usage().await.map_err(unhealed("read the volume"))?;
            let seen = match self.want_room().await {
                Ok(Ok(())) => {
                    return Ok(Proof::new(
                        "volume_has_room",
                        json!({
                            "address": self.admin.address.to_string(), "size_bytes": usage.size,
                            "free_bytes": usage.free,
                        }),
                    ));
                }
                Ok(Err(refusal)) | Err(refusal) => refusal,
            };
            wait.for_healing(Self::NAME, seen).await?;
        }
    }
}
