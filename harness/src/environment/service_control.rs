//! The servers as the faults see them: ended, started again, frozen, thawed, filled.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use nogo_faults::{BoxFuture, ControlError, ServiceControl, VolumeControl, VolumeUsage};
use serde_json::{Value, json};

use super::engine::ServerProcess;
use super::links::Links;
use super::servers::{PostgresServer, RedisServer};

/// Hands the run's Redis to a fault; leads the links to it after a restart.
pub struct RedisControl {
    server: Arc<RedisServer>,
    links: Arc<Links>,
}

impl RedisControl {
    /// The name of the service in links and in blast radii.
    pub const NAME: &'static str = "redis";

    /// Control over `server`, reached through `links`.
    #[must_use]
    pub fn new(server: Arc<RedisServer>, links: Arc<Links>) -> Self {
        Self { server, links }
    }

    async fn start(&self) -> Result<()> {
        if !self.server.is_alive().await? {
            self.server.start_again_empty().await?;
        }
        self.links.follow(Self::NAME, self.server.address()).await
    }
}

impl ServiceControl for RedisControl {
    fn name(&self) -> String {
        Self::NAME.to_owned()
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn password(&self) -> Option<String> {
        Some(self.server.password().to_owned())
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.server.kill().await.map_err(in_words) })
    }

    fn start_empty(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.start().await.map_err(in_words) })
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.server.freeze().await.map_err(in_words) })
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.server.thaw().await.map_err(in_words) })
    }

    fn is_frozen(&self) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async move { self.server.is_frozen().await.map_err(in_words) })
    }

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        // An engine that cannot tell gives no proof of death.
        Box::pin(async move { self.server.is_alive().await.unwrap_or(true) })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async move {
            let alive = self.server.is_alive().await.map_err(in_words)?;
            let frozen = self.server.is_frozen().await.unwrap_or(false);
            let origin = self.server.origin();
            Ok(json!({
                "alive": alive,
                "frozen": frozen,
                "address": self.server.address().to_string(),
                "source": origin.source,
                "version": origin.version,
            }))
        })
    }
}

/// Hands a PostgreSQL server to a fault: the primary or a replica.
pub struct PostgresControl {
    name: String,
    server: PostgresServer,
}

impl PostgresControl {
    /// Control over `server` under its name within the run.
    #[must_use]
    pub fn new(name: &str, server: PostgresServer) -> Self {
        Self { name: name.to_owned(), server }
    }

    async fn start(&self) -> Result<()> {
        if self.server.is_alive().await? { Ok(()) } else { self.server.start_again().await }
    }
}

impl ServiceControl for PostgresControl {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn kill(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.server.kill().await.map_err(in_words) })
    }

    fn start_empty(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { Err(ControlError(format!("{} holds the truth and is not emptied", self.name))) })
    }

    fn start_again(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.start().await.map_err(in_words) })
    }

    fn freeze(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.server.freeze().await.map_err(in_words) })
    }

    fn thaw(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.server.thaw().await.map_err(in_words) })
    }

    fn is_frozen(&self) -> BoxFuture<'_, Result<bool, ControlError>> {
        Box::pin(async move { self.server.is_frozen().await.map_err(in_words) })
    }

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        // An engine that cannot tell gives no proof of death.
        Box::pin(async move { self.server.is_alive().await.unwrap_or(true) })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async move {
            let alive = self.server.is_alive().await.map_err(in_words)?;
            let frozen = self.server.is_frozen().await.unwrap_or(false);
            let origin = self.server.origin();
            Ok(json!({ "alive": alive, "frozen": frozen, "source": origin.source, "version": origin.version }))
        })
    }
}

/// Hands the volume of a server's data to a fault.
pub struct DataVolume(Arc<dyn ServerProcess>);

impl DataVolume {
    /// The volume that the data of `server` lie on.
    #[must_use]
    pub fn of(server: &PostgresServer) -> Self {
        Self(server.process())
    }
}

impl VolumeControl for DataVolume {
    fn usage(&self) -> BoxFuture<'_, Result<VolumeUsage, ControlError>> {
        Box::pin(async move { self.0.volume_usage().await.map_err(in_words) })
    }

    fn fill(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.0.fill_volume().await.map_err(in_words) })
    }

    fn release(&self) -> BoxFuture<'_, Result<(), ControlError>> {
        Box::pin(async move { self.0.release_volume().await.map_err(in_words) })
    }
}

fn in_words(error: anyhow::Error) -> ControlError {
    ControlError(format!("{error:#}"))
}
