//! Every proxy of a server by name, and what the API does to them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{
    api_error::ApiError,
    proxy::{Board, Proxy},
    server::ToxidOptions,
    toxic::{Action, ToxicConfig},
};
use crate::network::Stream;

/// Listens on a free loopback port when no address is asked for.
const LISTEN_DEFAULT: &str = "127.0.0.1:0";

/// A proxy as asked for; what is left out stays or takes its default.
#[derive(Debug, Deserialize)]
pub(super) struct ProxyRequest {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub listen: String,
    #[serde(default)]
    pub upstream: String,
    pub enabled: Option<bool>,
}

/// A toxic as asked for; an update looks at attributes and toxicity only.
#[derive(Debug, Deserialize)]
pub(super) struct ToxicRequest {
    #[serde(default)]
    pub name: String,
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub stream: String,
    pub toxicity: Option<f32>,
    #[serde(default)]
    pub attributes: Option<Map<String, Value>>,
}

/// The proxies of one server.
pub(super) struct Registry {
    options: ToxidOptions,
    stop: CancellationToken,
    proxies: BTreeMap<String, Proxy>,
}

impl Registry {
    pub(super) fn new(options: ToxidOptions, stop: CancellationToken) -> Self {
        Self { options, stop, proxies: BTreeMap::new() }
    }

    pub(super) fn list(&self) -> Map<String, Value> {
        self.proxies.iter().map(|(name, proxy)| (name.clone(), proxy.to_json())).collect()
    }

    pub(super) fn show(&self, name: &str) -> Result<Value, ApiError> {
        self.find(name).map(Proxy::to_json)
    }

    pub(super) async fn create(&mut self, request: ProxyRequest) -> Result<Value, ApiError> {
        check_fields(&request, "")?;
        if self.proxies.contains_key(&request.name) {
            return Err(ApiError::ProxyExists);
        }
        self.add(request).await
    }

    /// All are checked before the first is created; one that cannot listen keeps the earlier.
    pub(super) async fn populate(&mut self, requests: Vec<ProxyRequest>) -> Result<Vec<Value>, (ApiError, Vec<Value>)> {
        for (index, request) in requests.iter().enumerate() {
            check_fields(request, &format!(" at proxy {}", index + 1)).map_err(|error| (error, Vec::new()))?;
        }
        let mut shown = Vec::with_capacity(requests.len());
        for request in requests {
            if let Some(standing) = self.proxies.get_mut(&request.name) {
                if standing.listen == request.listen && standing.upstream == request.upstream {
                    shown.push(standing.to_json());
                    continue;
                }
                standing.stop().await;
                self.proxies.remove(&request.name);
            }
            match self.add(request).await {
                Ok(proxy) => shown.push(proxy),
                Err(error) => return Err((error, shown)),
            }
        }
        Ok(shown)
    }

    pub(super) async fn update(&mut self, name: &str, request: ProxyRequest) -> Result<Value, ApiError> {
        let stop = self.stop.clone();
        let proxy = self.find_mut(name)?;
        let enable = request.enabled.unwrap_or_else(|| proxy.is_enabled());
        let moves_listen = !request.listen.is_empty() && request.listen != proxy.listen;
        let moves_upstream = !request.upstream.is_empty() && request.upstream != proxy.upstream;
        if moves_listen || moves_upstream || !enable {
            proxy.stop().await;
        }
        if moves_listen {
            proxy.listen = request.listen;
        }
        if moves_upstream {
            proxy.upstream = request.upstream;
        }
        if enable {
            proxy.start(&stop).await.map_err(ApiError::Listen)?;
        }
        Ok(proxy.to_json())
    }

    pub(super) async fn delete(&mut self, name: &str) -> Result<(), ApiError> {
        let mut proxy = self.proxies.remove(name).ok_or(ApiError::ProxyNotFound)?;
        proxy.stop().await;
        Ok(())
    }

    /// Enables every proxy and removes every toxic.
    pub(super) async fn reset(&mut self) -> Result<(), ApiError> {
        let stop = self.stop.clone();
        for proxy in self.proxies.values_mut() {
            proxy.start(&stop).await.map_err(ApiError::Listen)?;
            proxy.board.set_toxics(Vec::new()).await;
        }
        Ok(())
    }

    pub(super) async fn stop_all(&mut self) {
        for proxy in self.proxies.values_mut() {
            proxy.stop().await;
        }
    }

    pub(super) fn list_toxics(&self, name: &str) -> Result<Vec<Value>, ApiError> {
        let toxics = self.find(name)?.board.toxics();
        Ok(toxics.iter().map(ToxicConfig::to_json).collect())
    }

    pub(super) fn show_toxic(&self, name: &str, toxic: &str) -> Result<Value, ApiError> {
        self.find(name)?
            .board
            .toxics()
            .iter()
            .find(|standing| standing.name == toxic)
            .map(ToxicConfig::to_json)
            .ok_or(ApiError::ToxicNotFound)
    }

    pub(super) async fn add_toxic(&self, name: &str, request: ToxicRequest) -> Result<Value, ApiError> {
        let board = &self.find(name)?.board;
        let stream = match request.stream.to_ascii_lowercase().as_str() {
            "" | "downstream" => Stream::Downstream,
            "upstream" => Stream::Upstream,
            _ => return Err(ApiError::InvalidStream),
        };
        let mut action = Action::of_kind(&request.kind).ok_or(ApiError::InvalidToxicType)?;
        let toxic_name = if request.name.is_empty() { format!("{}_{stream}", request.kind) } else { request.name };
        let mut toxics = board.toxics();
        if toxics.iter().any(|standing| standing.name == toxic_name) {
            return Err(ApiError::ToxicExists);
        }
        action.merge(&request.attributes.unwrap_or_default()).map_err(ApiError::BadBody)?;
        let toxic = ToxicConfig {
            id: board.next_toxic_id(),
            revision: 0,
            name: toxic_name,
            stream,
            toxicity: request.toxicity.unwrap_or(1.0),
            action,
        };
        let shown = toxic.to_json();
        toxics.push(toxic);
        board.set_toxics(toxics).await;
        Ok(shown)
    }

    pub(super) async fn update_toxic(&self, name: &str, toxic: &str, request: ToxicRequest) -> Result<Value, ApiError> {
        let board = &self.find(name)?.board;
        let mut toxics = board.toxics();
        let standing = toxics.iter_mut().find(|standing| standing.name == toxic).ok_or(ApiError::ToxicNotFound)?;
        standing.action.merge(&request.attributes.unwrap_or_default()).map_err(ApiError::BadBody)?;
        standing.toxicity = request.toxicity.unwrap_or(standing.toxicity);
        standing.revision += 1;
        let shown = standing.to_json();
        board.set_toxics(toxics).await;
        Ok(shown)
    }

    pub(super) async fn remove_toxic(&self, name: &str, toxic: &str) -> Result<(), ApiError> {
        let board = &self.find(name)?.board;
        let mut toxics = board.toxics();
        let before = toxics.len();
        toxics.retain(|standing| standing.name != toxic);
        if toxics.len() == before {
            return Err(ApiError::ToxicNotFound);
        }
        board.set_toxics(toxics).await;
        Ok(())
    }

    async fn add(&mut self, request: ProxyRequest) -> Result<Value, ApiError> {
        let listen = if request.listen.is_empty() { LISTEN_DEFAULT.to_owned() } else { request.listen };
        let board = Board::new(self.options.seed, &request.name, self.options.reset_live_links);
        let mut proxy = Proxy::new(request.name, listen, request.upstream, board);
        if request.enabled.unwrap_or(true) {
            proxy.start(&self.stop).await.map_err(ApiError::Listen)?;
        }
        let shown = proxy.to_json();
        self.proxies.insert(proxy.name.clone(), proxy);
        Ok(shown)
    }

    fn find(&self, name: &str) -> Result<&Proxy, ApiError> {
        self.proxies.get(name).ok_or(ApiError::ProxyNotFound)
    }

    fn find_mut(&mut self, name: &str) -> Result<&mut Proxy, ApiError> {
        self.proxies.get_mut(name).ok_or(ApiError::ProxyNotFound)
    }
}

fn check_fields(request: &ProxyRequest, place: &str) -> Result<(), ApiError> {
    for (field, value) in [("name", &request.name), ("upstream", &request.upstream)] {
        if value.is_empty() {
            return Err(ApiError::MissingField(format!("{field}{place}")));
        }
    }
    Ok(())
}
