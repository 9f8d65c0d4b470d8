//! One look at one process.

use std::time::Duration;

use reqwest::{Client, StatusCode, Url};
use tokio::time::Instant;

use crate::exposition::parse;
use crate::signal::Look;

/// Longest exposition that is read, bytes.
const EXPOSITION_BYTES_MAX: usize = 8 << 20;

/// A process to watch: `name=http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name in alerts.
    pub name: String,
    metrics: Url,
    readiness: Url,
}

/// A target does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a target is written name=http://host:port")]
pub struct BadTarget;

impl std::str::FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (name, base) = text.split_once('=').ok_or(BadTarget)?;
        let base = Url::parse(base).map_err(|_| BadTarget)?;
        if name.is_empty() || base.scheme() != "http" || !base.has_host() {
            return Err(BadTarget);
        }
        let at = |path| base.join(path).map_err(|_| BadTarget);
        Ok(Self { name: name.to_owned(), metrics: at("/metrics")?, readiness: at("/readyz")? })
    }
}

impl Target {
    /// Asks both addresses at once; never takes longer than the client's time-out.
    pub(crate) async fn look(&self, client: &Client) -> Look {
        let (text, ready) = tokio::join!(fetch(client, &self.metrics), is_ready(client, &self.readiness));
        Look { at: Instant::now(), samples: text.map(|text| parse(&text)), ready }
    }
}

async fn fetch(client: &Client, url: &Url) -> Option<String> {
    let mut answer = client.get(url.clone()).send().await.ok().filter(|answer| answer.status().is_success())?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if bytes.len() + chunk.len() > EXPOSITION_BYTES_MAX {
            return None;
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).ok()
}

/// Workers and their like have no such address: nobody sends them anything.
async fn is_ready(client: &Client, url: &Url) -> bool {
    match client.get(url.clone()).send().await {
        Ok(answer) => answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND,
        Err(_) => false,
    }
}

pub(crate) fn client(timeout: Duration) -> Option<Client> {
    Client::builder().timeout(timeout).connect_timeout(timeout).no_proxy().build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name_and_an_address() {
        let target: Target = "api-1=http://127.0.0.1:8080".parse().unwrap();
        assert_eq!((target.name.as_str(), target.metrics.as_str()), ("api-1", "http://127.0.0.1:8080/metrics"));
        for bad in ["", "api", "=http://a", "api=ftp://a", "api=http://"] {
            assert_eq!(bad.parse::<Target>(), Err(BadTarget), "{bad}");
        }
    }
}
