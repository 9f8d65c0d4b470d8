//! One proxy per link between a process and a server, so that one link can be hurt alone.
//!
//! Named `<process>-<server>`. The proxy server runs in this process, unless `NOGO_TOXIPROXY`
//! names the API of an official one on this machine.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use nogo_faults::{Origin, Protocol, ProxySpec, RuleBook, ToxiClient, ToxidHandle, ToxidOptions, ToxidServer};
use serde::Serialize;

use super::service_control::RedisControl;
use super::topology::{ALERTS, ANALYTICS, ERRORS, PROVIDER};

/// Environment variable with `address:port` of another proxy server's API.
pub const EXTERNAL_SERVER: &str = "NOGO_TOXIPROXY";

/// A link as it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Name of the proxy: `<process>-<server>`.
    pub name: String,
    /// The process that uses it, such as `api-1`.
    pub process: String,
    /// What it leads to, such as `postgres`.
    pub server: String,
    /// Where the process connects.
    pub listen: SocketAddr,
    /// Where the proxy connects.
    pub upstream: SocketAddr,
}

/// All links of a run.
pub struct Links {
    client: ToxiClient,
    own_server: tokio::sync::Mutex<Option<ToxidHandle>>,
    rule_book: Option<RuleBook>,
    links: Mutex<BTreeMap<String, Link>>,
}

impl Links {
    /// Starts the proxy server, with `seed` for its draws, or connects to the one named. With a book, connections are
    /// followed in the language of what they lead to, and its rules are asked for every request.
    ///
    /// # Errors
    /// If it cannot be started or does not answer, or has to follow protocols and is another's.
    pub async fn start(seed: u64, rule_book: Option<RuleBook>) -> Result<Self> {
        let (own_server, api) = match std::env::var(EXTERNAL_SERVER) {
            Ok(address) if !address.is_empty() => {
                if rule_book.is_some() {
                    bail!("{EXTERNAL_SERVER} names a proxy server that follows no protocol: leave it out");
                }
                let api = address.parse().with_context(|| format!("read {EXTERNAL_SERVER}={address}"))?;
                (None, api)
            }
            _ => {
                let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let options = ToxidOptions { seed, blackhole: true, reset_live_links: true, ..ToxidOptions::default() };
                let server = ToxidServer::start_with(options, any).await.context("start the proxy server")?;
                let api = server.api_addr();
                (Some(server), api)
            }
        };
        let client = ToxiClient::connect(api).await.context("connect to the proxy server")?;
        Ok(Self { client, own_server: tokio::sync::Mutex::new(own_server), rule_book, links: Mutex::default() })
    }

    /// The client, for faults.
    #[must_use]
    pub fn client(&self) -> &ToxiClient {
        &self.client
    }

    /// The rules that are asked for every request; none where connections are not followed.
    #[must_use]
    pub fn rule_book(&self) -> Option<&RuleBook> {
        self.rule_book.as_ref()
    }

    /// Opens the link from `process` to `server` at `upstream`; gives the address to connect to.
    ///
    /// # Errors
    /// If there is a link of that name, or the proxy server refuses.
    pub async fn open(&self, process: &str, server: &str, upstream: SocketAddr) -> Result<SocketAddr> {
        let name = link_name(process, server);
        let spec = ProxySpec { name: name.clone(), listen: "127.0.0.1:0".to_owned(), upstream: upstream.to_string() };
        let view = match &self.rule_book {
            None => self.client.create_proxy(&spec).await,
            Some(book) => {
                let own = self.own_server.lock().await;
                let own = own.as_ref().context("find the proxy server")?;
                own.create_proxy(&spec, Some(book.inspectors(Origin::of_process(process), protocol_of(server)))).await
            }
        };
        let view = view.with_context(|| format!("open link {name}"))?;
        let listen =
            view.listen.parse().with_context(|| format!("read the address of link {name}: {}", view.listen))?;
        let link =
            Link { name: name.clone(), process: process.to_owned(), server: server.to_owned(), listen, upstream };
        self.lock().insert(name, link);
        Ok(listen)
    }

    /// Leads every link to `server` to its new address. No effect on links that lead there.
    ///
    /// # Errors
    /// If the proxy server refuses.
    pub async fn follow(&self, server: &str, upstream: SocketAddr) -> Result<()> {
        let stale: Vec<String> = self
            .lock()
            .values()
            .filter(|link| link.server == server && link.upstream != upstream)
            .map(|link| link.name.clone())
            .collect();
        for name in stale {
            self.client
                .set_upstream(&name, &upstream.to_string())
                .await
                .with_context(|| format!("lead link {name} to {upstream}"))?;
            if let Some(link) = self.lock().get_mut(&name) {
                link.upstream = upstream;
            }
        }
        Ok(())
    }

    /// Every link, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<Link> {
        self.lock().values().cloned().collect()
    }

    /// Closes every link; ends the proxy server if it is ours. May be called again.
    ///
    /// # Errors
    /// If an external server refuses to delete a proxy.
    pub async fn close(&self) -> Result<()> {
        let names: Vec<String> = std::mem::take(&mut *self.lock()).into_keys().collect();
        let own = self.own_server.lock().await.take();
        if let Some(server) = own {
            server.stop().await;
            return Ok(());
        }
        for name in names {
            self.client.delete_proxy(&name).await.with_context(|| format!("close link {name}"))?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The language that a server is spoken to in.
fn protocol_of(server: &str) -> Protocol {
    match server {
        RedisControl::NAME => Protocol::Redis,
        PROVIDER | ERRORS | ANALYTICS | ALERTS => Protocol::Http,
        api if api.starts_with("api-") => Protocol::Http,
        _ => Protocol::Postgres,
    }
}

/// The proxy's name for a link.
#[must_use]
pub fn link_name(process: &str, server: &str) -> String {
    format!("{process}-{server}")
}
