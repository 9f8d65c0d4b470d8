//! A Redis server asked and told past every proxy, each within a limit.

use std::{net::SocketAddr, time::Duration};

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, InfoDict, IntoConnectionInfo as _, RedisResult,
    aio::MultiplexedConnection,
};

use crate::fault::InstallError;

const ANSWER_MS_MAX: u64 = 2_000;

/// One server and what its clients authenticate with.
#[derive(Clone)]
pub(super) struct Admin {
    pub address: SocketAddr,
    info: ConnectionInfo,
}

impl Admin {
    /// # Errors
    /// [`InstallError::Parameter`] if the address makes no URL.
    pub(super) fn new(address: SocketAddr, password: Option<&str>) -> Result<Self, InstallError> {
        let mut info = format!("redis://{address}/")
            .into_connection_info()
            .map_err(|_| InstallError::Parameter { parameter: "address", reason: "not a Redis address".into() })?;
        if let Some(password) = password {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        Ok(Self { address, info })
    }

    pub(super) async fn connection(&self) -> Result<MultiplexedConnection, String> {
        let limit = Some(Duration::from_millis(ANSWER_MS_MAX));
        let config = AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
        let open =
            async { Client::open(self.info.clone())?.get_multiplexed_async_connection_with_config(&config).await };
        open.await.map_err(|error: ::redis::RedisError| in_words(&error))
    }

    /// Runs one command on a connection of its own.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        let mut connection = self.connection().await?;
        command.query_async(&mut connection).await.map_err(|error| in_words(&error))
    }

    pub(super) async fn info(&self) -> Result<InfoDict, String> {
        self.run(::redis::cmd("INFO").arg("everything")).await
    }

    /// A number of INFO, 0 where it has none.
    pub(super) async fn count(&self, name: &str) -> Result<u64, String> {
        Ok(self.info().await?.get(name).unwrap_or_default())
    }

    pub(super) async fn setting(&self, name: &str) -> Result<String, String> {
        let pairs: Vec<String> = self.run(::redis::cmd("CONFIG").arg("GET").arg(name)).await?;
        pairs.into_iter().nth(1).ok_or_else(|| format!("it has no setting {name}"))
    }

    pub(super) async fn set(&self, name: &str, value: &str) -> Result<(), String> {
        self.run(::redis::cmd("CONFIG").arg("SET").arg(name).arg(value)).await
    }
}

/// An error's kind and the server's words, without addresses or credentials.
pub(super) fn in_words(error: &::redis::RedisError) -> String {
    match error.code() {
        Some(code) => format!("{code} {}", error.detail().unwrap_or_default()),
        None => format!("{:?}", error.kind()),
    }
}

/// What a write of ours is answered: nothing where it was taken.
pub(super) async fn try_write(connection: &mut MultiplexedConnection, key: &str) -> RedisResult<()> {
    ::redis::cmd("SET").arg(key).arg("x").arg("PX").arg(60_000).query_async(connection).await
}
