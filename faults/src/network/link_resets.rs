//! Connections to one server reset, again and again, with time to work in between.
//!
//! A blow is a toxic that stands for a moment: whoever is answered meanwhile is reset, and whoever connects. At each blow a
//! greeting through each link has to end without an answer.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    toxi_client::{ToxiClient, is_missing},
    wire::{Stream, Toxic},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait},
    service::{Greeting, greet},
};

/// From one blow to the next.
const EVERY: Duration = Duration::from_millis(700);
/// How long each stands, beside the greetings.
const STANDS: Duration = Duration::from_millis(60);
/// How long a greeting may take where nothing is hurt.
const WELL: Duration = Duration::from_millis(1_000);

/// Which links.
#[derive(Debug, Clone)]
pub struct LinkResetsConfig {
    /// Name of the fault, such as `postgres-reset`.
    pub name: &'static str,
    /// Part of the toxic's name, so that it is told from other faults'.
    pub id: String,
    /// The proxies by name, with the address that each listens on.
    pub links: Vec<(String, SocketAddr)>,
    /// What the server behind them is greeted with.
    pub greeting: Greeting,
    /// Longest wait for a blow to show, and for the links to be whole, milliseconds.
    pub limit_ms: u64,
}

/// Resets connections until it is healed.
pub struct LinkResets {
    config: LinkResetsConfig,
    client: ToxiClient,
    striking: Option<Striking>,
}

struct Striking {
    stop: CancellationToken,
    task: JoinHandle<()>,
    /// Blows that showed on every link.
    blows: Arc<AtomicU64>,
}

impl Drop for Striking {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl LinkResets {
    /// The harm, through the proxy server that `client` speaks to.
    pub fn new(config: LinkResetsConfig, client: ToxiClient) -> Self {
        Self { config, client, striking: None }
    }

    fn blows(&self) -> Option<u64> {
        self.striking.as_ref().map(|striking| striking.blows.load(Ordering::Relaxed))
    }

    /// Waits for one more blow than there were.
    async fn next_blow(&self) -> Result<Proof, ProofError> {
        let Some(before) = self.blows() else {
            return Err(ProofError::NoHarm("nobody strikes".into()));
        };
        let wait = Wait::of_ms(self.config.limit_ms);
        loop {
            let blows = self.blows().unwrap_or(before);
            if blows > before {
                let api = self.client.api_addr().to_string();
                let links = self.config.links.len();
                return Ok(Proof::new("links_reset", json!({ "api": api, "links": links, "blows": blows })));
            }
            wait.again(format!("{blows} blows showed")).await.map_err(ProofError::NoHarm)?;
        }
    }

    fn toxic(&self) -> String {
        format!("nogo-{}-reset", self.config.id)
    }
}

impl Harm for LinkResets {
    fn name(&self) -> &str {
        self.config.name
    }

    fn targets(&self) -> Vec<Target> {
        let api = self.client.api_addr();
        self.config.links.iter().map(|(name, _)| Target::Proxy { api, name: name.clone() }).collect()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        let (stop, blows) = (CancellationToken::new(), Arc::<AtomicU64>::default());
        let blow = Blow { config: self.config.clone(), client: self.client.clone(), toxic: self.toxic() };
        let task = tokio::spawn(keep_striking(blow, stop.clone(), Arc::clone(&blows)));
        self.striking = Some(Striking { stop, task, blows });
        self.next_blow()
            .await
            .map_err(|error| InstallError::DidNotLand { fault: self.config.name.to_owned(), reason: error.to_string() })
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.next_blow().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if let Some(mut striking) = self.striking.take() {
            striking.stop.cancel();
            // An error is a panic of a blow, whose toxics are removed here.
            let _ = (&mut striking.task).await;
        }
        let toxic = self.toxic();
        for (link, _) in &self.config.links {
            match self.client.remove_toxic(link, &toxic).await {
                Err(error) if !is_missing(&error) => return Err(error.into()),
                _ => {}
            }
        }
        let wait = Wait::of_ms(self.config.limit_ms);
        for (link, listen) in &self.config.links {
            while let Err(reason) = greet(*listen, self.config.greeting, WELL).await {
                wait.for_healing(self.config.name, format!("a greeting through {link}: {reason}")).await?;
            }
        }
        let api = self.client.api_addr().to_string();
        Ok(Proof::new("links_whole", json!({ "api": api, "links": self.config.links.len() })))
    }
}

struct Blow {
    config: LinkResetsConfig,
    client: ToxiClient,
    toxic: String,
}

impl Blow {
    /// Whether it showed on every link.
    async fn fall(&self) -> bool {
        let mut showed = true;
        for (link, _) in &self.config.links {
            let toxic = Toxic::ResetPeer { timeout_ms: 0 };
            showed &= self.client.add_toxic_named(link, &self.toxic, Stream::Downstream, toxic, 1.0).await.is_ok();
        }
        for (_, listen) in &self.config.links {
            let met = greet(*listen, self.config.greeting, WELL).await;
            showed &= met.is_err_and(|reason| !reason.starts_with("no answer"));
        }
        tokio::time::sleep(STANDS).await;
        for (link, _) in &self.config.links {
            // What stays makes the next blow fail to show; the healing insists.
            showed &= self.client.remove_toxic(link, &self.toxic).await.is_ok();
        }
        showed
    }
}

async fn keep_striking(blow: Blow, stop: CancellationToken, blows: Arc<AtomicU64>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if blow.fall().await {
            blows.fetch_add(1, Ordering::Relaxed);
        }
    }
}
