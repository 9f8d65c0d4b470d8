//! Redis flushed, again and again: what the system put there is gone before it is of use.

use std::time::Duration;

use serde_json::json;

use super::{admin::Admin, repeated::Repeated};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

const EVERY: Duration = Duration::from_millis(400);
/// Put there before the first flush; its absence is the proof that a flush took it.
const MARK: &str = "nogo:mark";
const FLUSHES: &str = "cmdstat_flushall";

/// Flushes a server until it is healed.
pub struct RedisFlush {
    name: String,
    admin: Admin,
    limit_ms: u64,
    flushing: Option<Repeated>,
    keys_before: u64,
}

impl RedisFlush {
    /// Name of this fault.
    pub const NAME: &'static str = "redis-flush";

    /// The flushing of the service `name` at `address`; `limit_ms` bounds each wait.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] if the address makes no URL.
    pub fn new(
        name: impl Into<String>,
        address: std::net::SocketAddr,
        password: Option<&str>,
        limit_ms: u64,
    ) -> Result<Self, InstallError> {
        let admin = Admin::new(address, password)?;
        Ok(Self { name: name.into(), admin, limit_ms, flushing: None, keys_before: 0 })
    }

    /// Flushes since the server began, as it counts them.
    async fn flushes(&self) -> Result<u64, String> {
        let line: String = self.admin.info().await?.get(FLUSHES).unwrap_or_default();
        let calls = line.split(',').find_map(|part| part.strip_prefix("calls=")).unwrap_or("0").to_owned();
        calls.parse().map_err(|_| format!("{FLUSHES} reads {line}"))
    }

    async fn look_flushed(&self) -> Result<Proof, ProofError> {
        let Some(flushing) = &self.flushing else {
            return Err(ProofError::NoHarm("nothing is flushed".into()));
        };
        let flushes = self.flushes().await.map_err(ProofError::Unreadable)?;
        let mark: u64 = self.admin.run(::redis::cmd("EXISTS").arg(MARK)).await.map_err(ProofError::Unreadable)?;
        let keys: u64 = self.admin.run(&::redis::cmd("DBSIZE")).await.map_err(ProofError::Unreadable)?;
        if mark != 0 || flushes == 0 {
            return Err(ProofError::NoHarm(format!("the mark is there: {}, {flushes} flushes", mark != 0)));
        }
        Ok(Proof::new(
            "keys_gone",
            json!({
                "service": self.name, "address": self.admin.address.to_string(), "keys_before": self.keys_before,
                "keys": keys, "mark": "gone", "flushes_of_the_server": flushes, "flushes_confirmed": flushing.answered(),
            }),
        ))
    }
}

impl Harm for RedisFlush {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Service { name: self.name.clone(), address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let marked: Result<(), String> =
            self.admin.run(::redis::cmd("SET").arg(MARK).arg("x").arg("PX").arg(60_000)).await;
        marked.map_err(refused("put the mark"))?;
        self.keys_before = self.admin.run(&::redis::cmd("DBSIZE")).await.map_err(refused("count the keys"))?;
        self.flushing = Some(Repeated::start(self.admin.clone(), ::redis::cmd("FLUSHALL"), EVERY));
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            match self.look_flushed().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(Self::NAME, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_flushed().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if let Some(flushing) = self.flushing.take() {
            flushing.end().await;
        }
        let forgotten: Result<u64, String> = self.admin.run(::redis::cmd("DEL").arg(MARK)).await;
        forgotten.map_err(unhealed("remove the mark"))?;
        // Two counts with time for a blow between them: nobody flushes any more.
        let first = self.flushes().await.map_err(unhealed("count the flushes"))?;
        tokio::time::sleep(EVERY + EVERY / 2).await;
        let second = self.flushes().await.map_err(unhealed("count the flushes"))?;
        if second != first {
            let reason = format!("{} flushes since", second - first);
            return Err(HealError::StillHurt { fault: Self::NAME.into(), limit_ms: self.limit_ms, reason });
        }
        Ok(Proof::new(
            "flushing_ended",
            json!({ "service": self.name, "address": self.admin.address.to_string(), "flushes_of_the_server": second }),
        ))
    }
}
