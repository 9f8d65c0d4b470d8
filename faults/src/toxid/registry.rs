//! Every proxy of a server by name, and what the API does to them.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{
    api_error::ApiError,
    board::Board,
    inspector::InspectorFactory,
    metrics::Metrics,
    proxy::Proxy,
    request::{ProxyRequest, ToxicRequest},
    server::ToxidOptions,
    toxic::{Action, ToxicConfig},
};
use crate::network::Stream;

/// The proxies of one server.
pub(super) struct Registry {
    options: ToxidOptions,
    stop: CancellationToken,
    metrics: Metrics,
    proxies: BTreeMap<String, Proxy>,
}

impl Registry {
    pub(super) fn new(options: ToxidOptions, stop: CancellationToken, metrics: Metrics) -> Self {
        Self { options, stop, metrics, proxies: BTreeMap::new() }
    }

    pub(super) fn list(&self) -> Map<String, Value> {
        self.proxies.iter().map(|(name, proxy)| (name.clone(), proxy.to_json())).collect()
    }

    pub(super) fn show(&self, name: &str) -> Result<Value, ApiError> {
        self.find(name).map(Proxy::to_json)
    }

    pub(super) async fn create(&mut self, request: ProxyRequest) -> Result<Value, ApiError> {
        self.create_inspected(request, None).await
    }

    /// Inspected from its first connection on.
    pub(super) async fn create_inspected(
        &mut self,
        request: ProxyRequest,
        inspectors: Option<Arc<dyn InspectorFactory>>,
    ) -> Result<Value, ApiError> {
        check_fields(&request, "")?;
        if self.proxies.contains_key(&request.name) {
            return Err(ApiError::ProxyExists);
        }
        self.add(request, inspectors).await
    }

    /// All are checked before the first is created; one that cannot listen keeps the earlier, and
    /// if it was to replace another, that one stays and is disabled.
    pub(super) async fn populate(&mut self, requests: Vec<ProxyRequest>) -> Result<Vec<Value>, (ApiError, Vec<Value>)> {
        for (index, request) in requests.iter().enumerate() {
            check_fields(request, &format!(" at proxy {}", index + 1)).map_err(|error| (error, Vec::new()))?;
        }
        let mut shown = Vec::with_capacity(requests.len());
        for request in requests {
            match self.add_or_replace(request).await {
                Ok(proxy) => shown.push(proxy),
                Err(error) => return Err((error, shown)),
            }
        }
        Ok(shown)
    }

    async fn add_or_replace(&mut self, request: ProxyRequest) -> Result<Value, ApiError> {
        if let Some(standing) = self.proxies.get_mut(&request.name) {
            if !standing.differs(&request.listen, &request.upstream).await? {
                return Ok(standing.to_json());
            }
            standing.stop().await;
        }
        self.add(request, None).await
    }

    pub(super) async fn update(&mut self, name: &str, request: ProxyRequest) -> Result<Value, ApiError> {
        let stop = self.stop.clone();
        let proxy = self.find_mut(name)?;
        let enable = request.enabled.unwrap_or_else(|| proxy.is_enabled());
        let listen = if request.listen.is_empty() { proxy.listen.clone() } else { request.listen };
        let upstream = if request.upstream.is_empty() { proxy.upstream.clone() } else { request.upstream };
        if proxy.differs(&listen, &upstream).await? {
            proxy.stop().await;
            proxy.listen = listen;
            proxy.upstream = upstream;
        }
        if enable {
            proxy.start(&stop).await?;
        } else {
            proxy.stop().await;
        }
        Ok(proxy.to_json())
    }

    /// Inspects connections that are accepted from now on, or no longer.
    pub(super) fn set_inspectors(
        &self,
        name: &str,
        inspectors: Option<Arc<dyn InspectorFactory>>,
    ) -> Result<(), ApiError> {
        self.find(name)?.board.set_inspectors(inspectors);
        Ok(())
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
            proxy.start(&stop).await?;
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
        let mut action = Action::of_kind(&request.kind)
            .filter(|action| self.options.blackhole || *action != Action::Blackhole)
            .ok_or(ApiError::InvalidToxicType)?;
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

    async fn add(
        &mut self,
        request: ProxyRequest,
        inspectors: Option<Arc<dyn InspectorFactory>>,
    ) -> Result<Value, ApiError> {
        let board = Board::new(&request.name, self.options, self.metrics.clone());
        board.set_inspectors(inspectors);
        let mut proxy = Proxy::new(request.name, request.listen, request.upstream, board);
        if request.enabled.unwrap_or(true) {
            proxy.start(&self.stop).await?;
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
