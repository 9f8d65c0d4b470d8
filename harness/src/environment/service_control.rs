//! Redis as the faults see it: ended, and started again with nothing in it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use nogo_faults::{BoxFuture, ControlError, ServiceControl};
use serde_json::{Value, json};

use super::links::Links;
use super::servers::RedisServer;

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

    fn is_alive(&self) -> BoxFuture<'_, bool> {
        // An engine that cannot tell gives no proof of death.
        Box::pin(async move { self.server.is_alive().await.unwrap_or(true) })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Value, ControlError>> {
        Box::pin(async move {
            let alive = self.server.is_alive().await.map_err(in_words)?;
            let origin = self.server.origin();
            Ok(json!({
                "alive": alive,
                "address": self.server.address().to_string(),
                "source": origin.source,
                "version": origin.version,
            }))
        })
    }
}

fn in_words(error: anyhow::Error) -> ControlError {
    ControlError(format!("{error:#}"))
}
