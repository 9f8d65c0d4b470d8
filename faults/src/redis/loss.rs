//! Redis lost: killed, and at healing started again with nothing in it.
//!
//! The server belongs to the caller's engine. Its death and its new, empty life are read from
//! the server's own address, not taken from the engine.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ::redis::{AsyncConnectionConfig, Client, InfoDict, IntoConnectionInfo as _, aio::MultiplexedConnection};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    blast_radius::{Grant, Target},
    fault::{BoxFuture, Fault, HealError, InstallError, Proof, ProofError, Tolerance},
    service::ServiceControl,
};

const CONNECT_MS_MAX: u64 = 1_000;
const POLL_MS: u64 = 5;

/// Limits of each wait of [`RedisLoss`], milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisLossLimits {
    /// Longest wait for the server to be gone and its address to refuse.
    pub death_ms_max: u64,
    /// Longest wait for the new server to answer.
    pub restart_ms_max: u64,
}

impl Default for RedisLossLimits {
    fn default() -> Self {
        Self { death_ms_max: 5_000, restart_ms_max: 15_000 }
    }
}

/// Kills Redis; healing starts it empty.
pub struct RedisLoss {
    control: Arc<dyn ServiceControl>,
    limits: RedisLossLimits,
    tolerance: Tolerance,
    before: Option<Life>,
    /// Whether the new life was seen to have started empty.
    emptied: bool,
    used: bool,
}

/// One life of a server, from one start to the next.
#[derive(Debug, Clone)]
struct Life {
    run_id: String,
    keys: u64,
    /// Keys read from disk at its start, where the server tells.
    keys_loaded: Option<u64>,
}

impl RedisLoss {
    /// Name of this fault.
    pub const NAME: &'static str = "redis-loss";

    /// The loss of the Redis behind `control`.
    pub fn new(control: Arc<dyn ServiceControl>, limits: RedisLossLimits, tolerance: Tolerance) -> Self {
        Self { control, limits, tolerance, before: None, emptied: false, used: false }
    }

    async fn strike(&mut self, grant: &Grant) -> Result<Proof, InstallError> {
        if std::mem::replace(&mut self.used, true) {
            return Err(InstallError::Used { fault: Self::NAME.into() });
        }
        grant.covers(&self.targets())?;
        let before = read_life(self.control.as_ref())
            .await
            .map_err(|reason| InstallError::Target { step: "read Redis before the loss", reason })?;
        let (run_id, keys) = (before.run_id.clone(), before.keys);
        self.before = Some(before);
        self.control
            .kill()
            .await
            .map_err(|cause| InstallError::Target { step: "kill Redis", reason: cause.to_string() })?;
        let refusal = self
            .wait_for_death()
            .await
            .map_err(|reason| InstallError::DidNotLand { fault: Self::NAME.into(), reason })?;
        Ok(Proof::new(
            "service_gone",
            json!({
                "service": self.control.name(),
                "address": self.control.address().to_string(),
                "connect": refusal,
                "engine": self.engine_view().await,
                "run_id_lost": run_id,
                "keys_lost": keys,
            }),
        ))
    }

    async fn wait_for_death(&self) -> Result<String, String> {
        let mut last = String::from("it was not asked");
        let wait = async {
            let mut tick = tokio::time::interval(Duration::from_millis(POLL_MS));
            loop {
                tick.tick().await;
                match self.look_dead().await {
                    Ok(refusal) => return refusal,
                    Err(reason) => last = reason,
                }
            }
        };
        let limit_ms = self.limits.death_ms_max;
        tokio::time::timeout(Duration::from_millis(limit_ms), wait)
            .await
            .map_err(|_| format!("after {limit_ms} ms: {last}"))
    }

    async fn look_dead(&self) -> Result<String, String> {
        if self.control.is_alive().await {
            return Err("the engine sees it running".into());
        }
        match connect(self.control.address()).await {
            Ok(_) => Err("its address accepts connections".into()),
            Err(refusal) => Ok(refusal),
        }
    }

    async fn engine_view(&self) -> Value {
        self.control.probe().await.unwrap_or_else(|cause| json!({ "error": cause.to_string() }))
    }

    async fn revive(&mut self) -> Result<Proof, HealError> {
        let limit_ms = self.limits.restart_ms_max;
        let still_hurt = |reason: String| HealError::StillHurt { fault: Self::NAME.into(), limit_ms, reason };
        let mut last = String::from("the start did not return");
        let wait = async {
            self.control
                .start_empty()
                .await
                .map_err(|cause| HealError::Target { step: "start Redis", reason: cause.to_string() })?;
            let mut tick = tokio::time::interval(Duration::from_millis(POLL_MS));
            loop {
                tick.tick().await;
                match read_life(self.control.as_ref()).await {
                    Ok(life) => return Ok::<Life, HealError>(life),
                    Err(reason) => last = reason,
                }
            }
        };
        let life = match tokio::time::timeout(Duration::from_millis(limit_ms), wait).await {
            Ok(life) => life?,
            Err(_) => return Err(still_hurt(last)),
        };
        if let Some(before) = &self.before
            && !self.emptied
            && before.run_id != life.run_id
            && life.keys > 0
            && life.keys_loaded != Some(0)
        {
            // Clients may have written since, so a count above zero alone proves nothing.
            return Err(still_hurt(format!("it holds {} keys and does not say that it loaded none", life.keys)));
        }
        self.emptied |= self.before.as_ref().is_some_and(|before| before.run_id != life.run_id);
        Ok(Proof::new(
            "service_answers",
            json!({
                "service": self.control.name(),
                "address": self.control.address().to_string(),
                "ping": "PONG",
                "run_id": life.run_id,
                "run_id_before": self.before.as_ref().map(|before| before.run_id.clone()),
                "restarted": self.before.as_ref().is_some_and(|before| before.run_id != life.run_id),
                "keys_first_seen": life.keys,
                "keys_loaded_at_start": life.keys_loaded,
            }),
        ))
    }
}

impl Fault for RedisLoss {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn targets(&self) -> Vec<Target> {
        vec![Target::Service { name: self.control.name(), address: self.control.address() }]
    }

    fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    fn install<'a>(&'a mut self, grant: &'a Grant) -> BoxFuture<'a, Result<Proof, InstallError>> {
        Box::pin(self.strike(grant))
    }

    fn control_proof(&mut self) -> BoxFuture<'_, Result<Proof, ProofError>> {
        Box::pin(async {
            let refusal = self.look_dead().await.map_err(ProofError::NoHarm)?;
            Ok(Proof::new(
                "service_gone",
                json!({
                    "service": self.control.name(),
                    "address": self.control.address().to_string(),
                    "connect": refusal,
                    "engine": self.engine_view().await,
                }),
            ))
        })
    }

    fn heal(&mut self) -> BoxFuture<'_, Result<Proof, HealError>> {
        Box::pin(self.revive())
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let limit = Duration::from_millis(CONNECT_MS_MAX);
    match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("{error}")),
        Err(_) => Err(format!("no answer within {CONNECT_MS_MAX} ms")),
    }
}

async fn read_life(control: &dyn ServiceControl) -> Result<Life, String> {
    let limit = Duration::from_millis(CONNECT_MS_MAX);
    tokio::time::timeout(limit, async {
        let mut connection = open(control).await?;
        let _: String = ::redis::cmd("PING").query_async(&mut connection).await?;
        let keys: u64 = ::redis::cmd("DBSIZE").query_async(&mut connection).await?;
        let info: InfoDict = ::redis::cmd("INFO").query_async(&mut connection).await?;
        Ok::<_, ::redis::RedisError>(Life {
            run_id: info.get("run_id").unwrap_or_default(),
            keys,
            keys_loaded: info.get("rdb_last_load_keys_loaded"),
        })
    })
    .await
    .map_err(|_| format!("no answer within {CONNECT_MS_MAX} ms"))?
    .map_err(|error| error.to_string())
}

async fn open(control: &dyn ServiceControl) -> ::redis::RedisResult<MultiplexedConnection> {
    let mut info = format!("redis://{}/", control.address()).into_connection_info()?;
    if let Some(password) = control.password() {
        let settings = info.redis_settings().clone().set_password(password);
        info = info.set_redis_settings(settings);
    }
    Client::open(info)?
        .get_multiplexed_async_connection_with_config(
            &AsyncConnectionConfig::new().set_connection_timeout(Some(Duration::from_millis(CONNECT_MS_MAX))),
        )
        .await
}
