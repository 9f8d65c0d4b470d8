//! Every client of Redis cut off, again and again.

use std::time::Duration;

use serde_json::json;

use super::{admin::Admin, repeated::Repeated};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait, refused, unhealed},
};

const EVERY: Duration = Duration::from_millis(150);

/// Cuts a server's clients off until it is healed.
pub struct RedisClientKill {
    name: String,
    admin: Admin,
    limit_ms: u64,
    cutting: Option<Repeated>,
    /// The oldest client that is not ours when it began.
    oldest_before: u64,
}

impl RedisClientKill {
    /// Name of this fault.
    pub const NAME: &'static str = "redis-clients-killed";

    /// The cutting of the service `name` at `address`; `limit_ms` bounds each wait.
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
        Ok(Self { name: name.into(), admin, limit_ms, cutting: None, oldest_before: 0 })
    }

    /// How long the clients but the one that asks have been connected: the longest, whole seconds, and their number.
    async fn clients(&self) -> Result<(u64, u64, u64), String> {
        let mut connection = self.admin.connection().await?;
        let own: u64 =
            ::redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await.map_err(|e| e.to_string())?;
        let list: String =
            ::redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.map_err(|e| e.to_string())?;
        let ids =
            list.lines().filter_map(|line| line.split(' ').find_map(|part| part.strip_prefix("id="))?.parse().ok());
        let others: Vec<u64> = ids.filter(|id| *id != own).collect();
        Ok((own, others.iter().copied().min().unwrap_or(0), others.len() as u64))
    }

    async fn look_cut(&self) -> Result<Proof, ProofError> {
        let Some(cutting) = &self.cutting else {
            return Err(ProofError::NoHarm("nobody is cut off".into()));
        };
        let answered = cutting.answered();
        let (newest, oldest, count) = self.clients().await.map_err(ProofError::Unreadable)?;
        if answered == 0 || (oldest != 0 && oldest <= self.oldest_before) {
            return Err(ProofError::NoHarm(format!("client {oldest} is connected as it was before")));
        }
        Ok(Proof::new(
            "clients_cut_off",
            json!({
                "service": self.name, "address": self.admin.address.to_string(), "oldest_client_before": self.oldest_before,
                "oldest_client": oldest, "newest_client": newest, "clients": count, "blows_confirmed": answered,
            }),
        ))
    }
}

impl Harm for RedisClientKill {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Service { name: self.name.clone(), address: self.admin.address }]
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let (_, oldest, count) = self.clients().await.map_err(refused("list the clients"))?;
        if count == 0 {
            return Err(InstallError::DidNotLand { fault: Self::NAME.into(), reason: "it has no client".into() });
        }
        self.oldest_before = oldest;
        let mut blow = ::redis::cmd("CLIENT");
        blow.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
        self.cutting = Some(Repeated::start(self.admin.clone(), blow, EVERY));
        let wait = Wait::of_ms(self.limit_ms);
        loop {
            match self.look_cut().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(Self::NAME, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        // A look may itself be cut off in the middle.
        match self.look_cut().await {
            Err(ProofError::Unreadable(_)) => self.look_cut().await,
            found => found,
        }
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if let Some(cutting) = self.cutting.take() {
            cutting.end().await;
        }
        // A connection that outlives the time between two blows.
        let mut kept = self.admin.connection().await.map_err(unhealed("connect"))?;
        let mut ask = async || ::redis::cmd("CLIENT").arg("ID").query_async::<u64>(&mut kept).await;
        let first = ask().await.map_err(unhealed("ask for the client's id"))?;
        tokio::time::sleep(EVERY * 2).await;
        let second = ask().await.map_err(unhealed("ask for the client's id"))?;
        if first != second {
            let reason = format!("client {first} was cut off");
            return Err(HealError::StillHurt { fault: Self::NAME.into(), limit_ms: self.limit_ms, reason });
        }
        Ok(Proof::new(
            "client_kept",
            json!({ "service": self.name, "address": self.admin.address.to_string(), "client": second }),
        ))
    }
}
