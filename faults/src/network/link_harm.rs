//! Harm to every link that leads to one server: late, silent, or broken.
//!
//! The proxy server's own list says that the toxics stand. Since it could repeat what it was asked, a greeting is sent
//! through each link as well, and its answer must be as late, or as absent, as the harm says.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    toxi_client::{ToxiClient, is_missing},
    wire::{Stream, Toxic},
};
use crate::{
    blast_radius::Target,
    fault::{HealError, InstallError, Proof, ProofError},
    harm::{Harm, Wait},
    service::{Greeting, greet, greet_at_length},
};

/// How long a greeting may take where nothing is hurt.
const WELL: Duration = Duration::from_millis(1_000);

/// How a hurt link shows itself to who greets through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkShows {
    /// The answer comes, and not before this many milliseconds.
    LateMs(u64),
    /// Two kilobytes of an answer of PostgreSQL come, and not before this many milliseconds.
    LongLateMs(u64),
    /// No answer, and no end of the connection, for this many milliseconds.
    SilentMs(u64),
    /// The connection ends without an answer.
    Broken,
}

/// Which links, hurt how.
#[derive(Debug, Clone)]
pub struct LinkHarm {
    /// Name of the fault, such as `postgres-slow`.
    pub name: &'static str,
    /// Part of the toxics' names, so that they are told from other faults'.
    pub id: String,
    /// The proxies by name, with the address that each listens on.
    pub links: Vec<(String, SocketAddr)>,
    /// What each gets.
    pub toxics: Vec<(Stream, Toxic)>,
    /// How it shows.
    pub shows: LinkShows,
    /// What the server behind them is greeted with.
    pub greeting: Greeting,
    /// Longest wait for the harm to show, and for it to be gone, milliseconds.
    pub limit_ms: u64,
}

/// Hurts links; healing takes the toxics away.
pub struct LinksHurt {
    harm: LinkHarm,
    client: ToxiClient,
    struck: bool,
}

impl LinksHurt {
    /// The harm to links of the server that `client` speaks to.
    pub fn new(harm: LinkHarm, client: ToxiClient) -> Self {
        Self { harm, client, struck: false }
    }

    fn toxics(&self) -> impl Iterator<Item = (String, Stream, Toxic)> {
        let numbered = (1..).zip(&self.harm.toxics);
        numbered.map(|(number, (stream, toxic))| (format!("nogo-{}-{number}", self.harm.id), *stream, *toxic))
    }

    /// What a greeting through each link met, all at the same time.
    async fn greet_all(&self, limit: Duration) -> Vec<(String, Result<Duration, String>)> {
        let mut greetings = JoinSet::new();
        for (name, listen) in self.harm.links.clone() {
            let (greeting, shows) = (self.harm.greeting, self.harm.shows);
            greetings.spawn(async move {
                let met = match shows {
                    LinkShows::LongLateMs(_) => greet_at_length(listen, limit).await,
                    _ => greet(listen, greeting, limit).await,
                };
                (name, met)
            });
        }
        let mut met = greetings.join_all().await;
        met.sort_by(|one, other| one.0.cmp(&other.0));
        met
    }

    async fn look_hurt(&self) -> Result<Proof, ProofError> {
        let unreadable = |error: super::ToxiError| ProofError::Unreadable(error.to_string());
        let shown = self.client.proxies().await.map_err(unreadable)?;
        let stands = |link: &str, toxic: &str| {
            shown.get(link).is_some_and(|proxy| proxy.toxics.iter().any(|standing| standing.name == toxic))
        };
        for (link, _) in &self.harm.links {
            if let Some((toxic, ..)) = self.toxics().find(|(toxic, ..)| !stands(link, toxic)) {
                return Err(ProofError::NoHarm(format!("link {link} has no toxic {toxic}")));
            }
        }
        let limit = match self.harm.shows {
            LinkShows::LateMs(ms) | LinkShows::LongLateMs(ms) => Duration::from_millis(ms) * 4 + WELL,
            LinkShows::SilentMs(ms) => Duration::from_millis(ms),
            LinkShows::Broken => WELL,
        };
        let met = self.greet_all(limit).await;
        for (link, greeting) in &met {
            let is_hurt = match (self.harm.shows, greeting) {
                (LinkShows::LateMs(ms) | LinkShows::LongLateMs(ms), Ok(after)) => *after >= Duration::from_millis(ms),
                (LinkShows::SilentMs(_), Err(reason)) => reason.starts_with("no answer"),
                (LinkShows::Broken, Err(reason)) => !reason.starts_with("no answer"),
                _ => false,
            };
            if !is_hurt {
                return Err(ProofError::NoHarm(format!("a greeting through {link}: {}", words(greeting))));
            }
        }
        Ok(Proof::new("links_hurt", json!({ "api": self.client.api_addr().to_string(), "greetings": listed(&met) })))
    }
}

impl Harm for LinksHurt {
    fn name(&self) -> &str {
        self.harm.name
    }

    fn targets(&self) -> Vec<Target> {
        let api = self.client.api_addr();
        self.harm.links.iter().map(|(name, _)| Target::Proxy { api, name: name.clone() }).collect()
    }

    async fn strike(&mut self) -> Result<Proof, InstallError> {
        self.struck = true;
        for (link, _) in &self.harm.links {
            for (name, stream, toxic) in self.toxics() {
                self.client.add_toxic_named(link, &name, stream, toxic, 1.0).await?;
            }
        }
        let wait = Wait::of_ms(self.harm.limit_ms);
        loop {
            match self.look_hurt().await {
                Ok(proof) => return Ok(proof),
                Err(seen) => wait.for_landing(self.harm.name, seen.to_string()).await?,
            }
        }
    }

    async fn look(&mut self) -> Result<Proof, ProofError> {
        self.look_hurt().await
    }

    async fn undo(&mut self) -> Result<Proof, HealError> {
        if self.struck {
            for (link, _) in &self.harm.links {
                for (name, ..) in self.toxics() {
                    match self.client.remove_toxic(link, &name).await {
                        Err(error) if !is_missing(&error) => return Err(error.into()),
                        _ => {}
                    }
                }
            }
        }
        let wait = Wait::of_ms(self.harm.limit_ms);
        loop {
            let met = self.greet_all(WELL).await;
            let hurt = met.iter().find(|(_, greeting)| match (self.harm.shows, greeting) {
                (LinkShows::LateMs(ms) | LinkShows::LongLateMs(ms), Ok(after)) => *after >= Duration::from_millis(ms),
                (_, greeting) => greeting.is_err(),
            });
            let Some((link, greeting)) = hurt else {
                let api = self.client.api_addr().to_string();
                return Ok(Proof::new("links_whole", json!({ "api": api, "greetings": listed(&met) })));
            };
            wait.for_healing(self.harm.name, format!("a greeting through {link}: {}", words(greeting))).await?;
        }
    }
}

fn words(greeting: &Result<Duration, String>) -> String {
    match greeting {
        Ok(after) => format!("answered after {} ms", after.as_millis()),
        Err(reason) => reason.clone(),
    }
}

fn listed(met: &[(String, Result<Duration, String>)]) -> Value {
    met.iter()
        .map(|(link, greeting)| (link.clone(), Value::from(words(greeting))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
