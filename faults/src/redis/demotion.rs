//! Redis made a replica of a server that is not there: it goes on answering what it knows, and takes no write.

use serde_json::json;

use super::admin::{Admin, in_words, try_write};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

/// Nobody listens there: a replica that finds no master keeps what it has.
const NO_MASTER: (&str, u16) = ("127.0.0.1", 9);
const WITNESS: &str = "nogo:witness";

/// Makes a server a replica; healing makes it a master again.
pub struct RedisDemotion {
    name: String,
    admin: Admin,
    limit_ms: u64,
    struck: bool,
}

impl RedisDemotion {
    /// Name of this fault.
    pub const NAME: &'static str = "redis-demoted";

    /// The demotion of the service `name` at `address`; `limit_ms` bounds each wait.
    ///
    /// # Errors
    /// [`InstallError::Parameter`] if the address makes no URL.
    pub fn new(
        name: impl Into<String>,
        address: std::net::SocketAddr,
        password: Option<&str>,
        limit_ms: u64,
    ) -> Result<Self, InstallError> {
        Ok(Self { name: name.into(), admin: Admin::new(address, password)?, limit_ms, struck: false })
    }

    /// The role it claims, its keys, and what it says to a write.
    async fn read(&self) -> Result<(String, u64, Result<(), String>), String> {
        let role: String = self.admin.info().await?.get("role").unwrap_or_default();
        let keys: u64 = self.admin.run(&::redis::cmd("DBSIZE")).await?;
        let mut connection = self.admin.connection().await?;
        let written = try_write(&mut connection, WITNESS).await.map_err(|error| in_words(&error));
        Ok((role, keys, written))
    }

    async fn look_demoted(&self) -> Result<Proof, ProofError> {
        let (role, keys, written) = self.read().await.map_err(ProofError::Unreadable)?;
        match written {
            Err(refusal) if role == "slave" && refusal.starts_with("READONLY") => Ok(Proof::new(
                "role_replica",
                json!({
                    "service": self.name, "address": self.admin.address.to_string(), "role": role, "keys": keys,
                    "own_write": refusal,
                }),
            )),
            written => Err(ProofError::NoHarm(format!("its role is {role}, a write: {written:?}"))),
        }
    }
}

impl Harm for RedisDemotion {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Service { name: self.name.clone(), address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        self.struck = true;
        let told: Result<(), String> =
            self.admin.run(::redis::cmd("REPLICAOF").arg(NO_MASTER.0).arg(NO_MASTER.1)).await;
        told.map_err(refused("make it a replica"))?;
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            match self.look_demoted().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(Self::NAME, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_demoted().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if self.struck {
            let told: Result<(), String> = self.admin.run(::redis::cmd("REPLICAOF").arg("NO").arg("ONE")).await;
            told.map_err(unhealed("make it a master"))?;
        }
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            let seen = match self.read().await {
                Ok((role, keys, Ok(()))) if role == "master" => {
                    let forgotten: Result<u64, String> = self.admin.run(::redis::cmd("DEL").arg(WITNESS)).await;
                    forgotten.map_err(unhealed("remove the witness"))?;
                    return Ok(Proof::new(
                        "role_master",
                        json!({
                            "service": self.name, "address": self.admin.address.to_string(), "role": role, "keys": keys,
                            "own_write": "kept",
                        }),
                    ));
                }
                Ok((role, _, written)) => format!("its role is {role}, a write: {written:?}"),
                Err(reason) => reason,
            };
            wait.for_healing(Self::NAME, seen).await?;
        }
    }
}
