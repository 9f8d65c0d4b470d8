//! Client of a server that speaks Toxiproxy's HTTP API, ours or the official one.
//!
//! `toxiproxy_rust` does what it can; since it never looks at a status and cannot create,
//! rename, update or remove a single toxic, the rest goes through requests of our own. Whoever
//! sends it, every change is read back: a server that answers and does nothing is an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use toxiproxy_rust::{client::Client as Prescribed, proxy::ProxyPack};

use super::wire::{ProxySpec, ProxyView, Stream, Toxic, ToxicView};

const REQUEST_MS_MAX: u64 = 10_000;

/// What went wrong between us and the proxy server.
#[derive(Debug, thiserror::Error)]
pub enum ToxiError {
    /// No answer, or none that could be read.
    #[error("proxy server at {api}: {reason}")]
    Unreachable {
        /// Address of the API.
        api: SocketAddr,
        /// The cause.
        reason: String,
    },
    /// The server refused, and said so.
    #[error("proxy server refused to {action}: {status} {message}")]
    Refused {
        /// What was asked.
        action: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        message: String,
    },
    /// The server agreed, or said nothing, and what it shows is not what was asked.
    #[error("proxy server did not {action}: {shown}")]
    NotTaken {
        /// What was asked.
        action: String,
        /// What it shows instead.
        shown: String,
    },
}

/// The client; clones share connections and the list of what is to be healed.
#[derive(Clone)]
pub struct ToxiClient {
    api: SocketAddr,
    http: reqwest::Client,
    prescribed: Arc<DroppedElsewhere>,
    hurt: Arc<Mutex<Hurt>>,
}

/// What this client did to the server's proxies and did not undo yet.
#[derive(Default)]
struct Hurt {
    disabled: BTreeSet<String>,
    toxics: BTreeSet<(String, String)>,
}

impl ToxiClient {
    /// Connects to the API at this address and asks for its version.
    ///
    /// # Errors
    /// [`ToxiError::Unreachable`] if nothing answers there.
    pub async fn connect(api: SocketAddr) -> Result<Self, ToxiError> {
        let unreachable = |reason: String| ToxiError::Unreachable { api, reason };
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_millis(REQUEST_MS_MAX))
            .build()
            .map_err(|error| unreachable(error.to_string()))?;
        let prescribed = tokio::task::spawn_blocking(move || Prescribed::new(api))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let client = Self { api, http, prescribed: Arc::new(DroppedElsewhere(Some(prescribed))), hurt: Arc::default() };
        client.version().await?;
        Ok(client)
    }

    /// Address of the API.
    pub fn api_addr(&self) -> SocketAddr {
        self.api
    }

    /// The version the server claims.
    ///
    /// # Errors
    /// [`ToxiError::Unreachable`] or [`ToxiError::Refused`].
    pub async fn version(&self) -> Result<String, ToxiError> {
        let answer = self.call(Method::GET, "/version", None, "tell its version").await?;
        Ok(answer["version"].as_str().unwrap_or_default().to_owned())
    }

    /// Every proxy of the server, by name.
    ///
    /// # Errors
    /// [`ToxiError::Unreachable`] or [`ToxiError::Refused`].
    pub async fn proxies(&self) -> Result<BTreeMap<String, ProxyView>, ToxiError> {
        let answer = self.call(Method::GET, "/proxies", None, "list proxies").await?;
        self.read(answer)
    }

    /// One proxy.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] with status 404 if there is none of that name.
    pub async fn proxy(&self, name: &str) -> Result<ProxyView, ToxiError> {
        let path = format!("/proxies/{}", encoded(name));
        let answer = self.call(Method::GET, &path, None, "show a proxy").await?;
        self.read(answer)
    }

    /// Creates the proxies, or leaves those alone that exist with the same addresses.
    ///
    /// Returns them as the server shows them afterwards, in the order asked.
    ///
    /// # Errors
    /// [`ToxiError::NotTaken`] naming the first that is not there as asked.
    pub async fn populate(&self, specs: &[ProxySpec]) -> Result<Vec<ProxyView>, ToxiError> {
        let packs: Vec<ProxyPack> = specs
            .iter()
            .map(|spec| ProxyPack::new(spec.name.clone(), spec.listen.clone(), spec.upstream.clone()))
            .collect();
        self.prescribed("populate", move |client| client.populate(packs).map(drop)).await?;
        let mut shown = self.proxies().await?;
        specs
            .iter()
            .map(|spec| {
                let action = format!("create proxy {}", spec.name);
                let view = shown
                    .remove(&spec.name)
                    .ok_or_else(|| ToxiError::NotTaken { action: action.clone(), shown: "no such proxy".into() })?;
                check_proxy(action, spec, view)
            })
            .collect()
    }

    /// Creates one proxy, which must not exist.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] with status 409 if it exists; [`ToxiError::NotTaken`].
    pub async fn create_proxy(&self, spec: &ProxySpec) -> Result<ProxyView, ToxiError> {
        let action = format!("create proxy {}", spec.name);
        let body = json!({
            "name": spec.name, "listen": spec.listen, "upstream": spec.upstream, "enabled": true,
        });
        self.call(Method::POST, "/proxies", Some(body), &action).await?;
        let view = self.read_back(&spec.name, &action).await?;
        check_proxy(action, spec, view)
    }

    /// Points a proxy at another server; its connections are dropped.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] or [`ToxiError::NotTaken`].
    pub async fn set_upstream(&self, name: &str, upstream: &str) -> Result<ProxyView, ToxiError> {
        let action = format!("point proxy {name} at {upstream}");
        let path = format!("/proxies/{}", encoded(name));
        // POST, for servers older than PATCH.
        self.call(Method::POST, &path, Some(json!({ "upstream": upstream })), &action).await?;
        let view = self.read_back(name, &action).await?;
        if view.upstream == upstream {
            Ok(view)
        } else {
            Err(ToxiError::NotTaken { action, shown: format!("upstream is {}", view.upstream) })
        }
    }

    /// Removes a proxy with its connections.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] with status 404 if there is none; [`ToxiError::NotTaken`].
    pub async fn delete_proxy(&self, name: &str) -> Result<(), ToxiError> {
        let action = format!("delete proxy {name}");
        let path = format!("/proxies/{}", encoded(name));
        self.call(Method::DELETE, &path, None, &action).await?;
        if self.proxies().await?.contains_key(name) {
            return Err(ToxiError::NotTaken { action, shown: "it is still listed".into() });
        }
        let mut hurt = self.hurt();
        hurt.disabled.remove(name);
        hurt.toxics.retain(|(proxy, _)| proxy != name);
        Ok(())
    }

    /// Takes a proxy down (refuses and drops connections) or up again.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] if there is none; [`ToxiError::NotTaken`].
    pub async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), ToxiError> {
        let verb = if enabled { "enable" } else { "disable" };
        let action = format!("{verb} proxy {name}");
        if !enabled {
            self.hurt().disabled.insert(name.to_owned());
        }
        // Asked first, for the prescribed client cannot tell a missing proxy from a broken one.
        self.proxy(name).await?;
        let found = name.to_owned();
        self.prescribed(&action, move |client| {
            let proxy = client.find_proxy(&found)?;
            if enabled { proxy.enable() } else { proxy.disable() }
        })
        .await?;
        let view = self.read_back(name, &action).await?;
        if view.enabled != enabled {
            return Err(ToxiError::NotTaken { action, shown: format!("enabled is {}", view.enabled) });
        }
        if enabled {
            self.hurt().disabled.remove(name);
        }
        Ok(())
    }

    /// Adds a toxic under its default name, on all links.
    ///
    /// # Errors
    /// As [`Self::add_toxic_named`].
    pub async fn add_toxic(&self, proxy: &str, stream: Stream, toxic: Toxic) -> Result<ToxicView, ToxiError> {
        self.add_toxic_named(proxy, &toxic.default_name(stream), stream, toxic, 1.0).await
    }

    /// Adds a toxic; `toxicity` is the share of links it acts on, 0 to 1.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] with status 404 for a missing proxy and 409 for a name that is
    /// taken; [`ToxiError::NotTaken`].
    pub async fn add_toxic_named(
        &self,
        proxy: &str,
        name: &str,
        stream: Stream,
        toxic: Toxic,
        toxicity: f32,
    ) -> Result<ToxicView, ToxiError> {
        let action = format!("add toxic {name} to proxy {proxy}");
        let standing = self.proxy(proxy).await?;
        if standing.toxics.iter().any(|shown| shown.name == name) {
            return Err(ToxiError::Refused {
                action,
                status: StatusCode::CONFLICT.as_u16(),
                message: "toxic already exists".into(),
            });
        }
        self.hurt().toxics.insert((proxy.to_owned(), name.to_owned()));
        if name == toxic.default_name(stream) && is_known_to_prescribed(toxic) {
            let proxy = proxy.to_owned();
            self.prescribed(&action, move |client| {
                let proxy = client.find_proxy(&proxy)?;
                add_by_prescribed(&proxy, stream, toxic, toxicity);
                Ok(())
            })
            .await?;
        } else {
            let body = json!({
                "name": name, "type": toxic.kind(), "stream": stream, "toxicity": toxicity,
                "attributes": toxic.attributes(),
            });
            let path = format!("/proxies/{}/toxics", encoded(proxy));
            self.call(Method::POST, &path, Some(body), &action).await?;
        }
        self.check_toxic(action, proxy, name, stream, toxic, toxicity).await
    }

    /// Changes attributes and toxicity of a toxic; its kind and stream stay.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] with status 404 if there is none; [`ToxiError::NotTaken`], also
    /// for a toxic of another kind or stream.
    pub async fn update_toxic(
        &self,
        proxy: &str,
        name: &str,
        stream: Stream,
        toxic: Toxic,
        toxicity: f32,
    ) -> Result<ToxicView, ToxiError> {
        let action = format!("update toxic {name} of proxy {proxy}");
        let body = json!({ "attributes": toxic.attributes(), "toxicity": toxicity });
        let path = format!("/proxies/{}/toxics/{}", encoded(proxy), encoded(name));
        self.call(Method::POST, &path, Some(body), &action).await?;
        self.check_toxic(action, proxy, name, stream, toxic, toxicity).await
    }

    /// Removes one toxic.
    ///
    /// # Errors
    /// [`ToxiError::Refused`] with status 404 if there is none; [`ToxiError::NotTaken`].
    pub async fn remove_toxic(&self, proxy: &str, name: &str) -> Result<(), ToxiError> {
        let action = format!("remove toxic {name} from proxy {proxy}");
        let path = format!("/proxies/{}/toxics/{}", encoded(proxy), encoded(name));
        self.call(Method::DELETE, &path, None, &action).await?;
        let view = self.read_back(proxy, &action).await?;
        if view.toxics.iter().any(|shown| shown.name == name) {
            return Err(ToxiError::NotTaken { action, shown: "it is still listed".into() });
        }
        self.hurt().toxics.remove(&(proxy.to_owned(), name.to_owned()));
        Ok(())
    }

    /// Enables every proxy of the server and removes every toxic, whoever set them.
    ///
    /// # Errors
    /// [`ToxiError::NotTaken`] naming the first proxy that is still hurt.
    pub async fn reset(&self) -> Result<(), ToxiError> {
        self.prescribed("reset", |client| client.reset()).await?;
        for (name, view) in self.proxies().await? {
            if !view.enabled || !view.toxics.is_empty() {
                return Err(ToxiError::NotTaken {
                    action: "reset".into(),
                    shown: format!("proxy {name}: enabled {}, {} toxics", view.enabled, view.toxics.len()),
                });
            }
        }
        let mut hurt = self.hurt();
        hurt.disabled.clear();
        hurt.toxics.clear();
        Ok(())
    }

    /// Undoes whatever this client and its clones did and did not undo, also in tasks that
    /// panicked. A proxy or toxic that is gone counts as healed.
    ///
    /// # Errors
    /// The first failure, after everything was tried; what failed stays on the list.
    pub async fn heal_all(&self) -> Result<(), ToxiError> {
        let (disabled, toxics) = {
            let hurt = self.hurt();
            (hurt.disabled.clone(), hurt.toxics.clone())
        };
        let mut first_failure = None;
        for (proxy, name) in toxics {
            match self.remove_toxic(&proxy, &name).await {
                Ok(()) => {}
                Err(error) if is_missing(&error) => {
                    self.hurt().toxics.remove(&(proxy, name));
                }
                Err(error) => first_failure = first_failure.or(Some(error)),
            }
        }
        for name in disabled {
            match self.set_enabled(&name, true).await {
                Ok(()) => {}
                Err(error) if is_missing(&error) => {
                    self.hurt().disabled.remove(&name);
                }
                Err(error) => first_failure = first_failure.or(Some(error)),
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    async fn check_toxic(
        &self,
        action: String,
        proxy: &str,
        name: &str,
        stream: Stream,
        toxic: Toxic,
        toxicity: f32,
    ) -> Result<ToxicView, ToxiError> {
        let view = self.read_back(proxy, &action).await?;
        match view.toxics.into_iter().find(|shown| shown.name == name) {
            Some(shown) if toxic.is_shown_as(&shown, stream, toxicity) => Ok(shown),
            Some(shown) => Err(ToxiError::NotTaken { action, shown: format!("{shown:?}") }),
            None => Err(ToxiError::NotTaken { action, shown: "no such toxic".into() }),
        }
    }

    /// Shows a proxy after a change; here its absence means that the change was not taken.
    async fn read_back(&self, proxy: &str, action: &str) -> Result<ProxyView, ToxiError> {
        self.proxy(proxy).await.map_err(|error| {
            if is_missing(&error) {
                ToxiError::NotTaken { action: action.to_owned(), shown: "no such proxy".into() }
            } else {
                error
            }
        })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>, action: &str) -> Result<Value, ToxiError> {
        let unreachable =
            |error: reqwest::Error| ToxiError::Unreachable { api: self.api, reason: format!("{action}: {error}") };
        let mut request = self.http.request(method, format!("http://{}{path}", self.api));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        let answer = serde_json::from_str(&text).unwrap_or(Value::Null);
        if status.is_success() {
            return Ok(answer);
        }
        Err(ToxiError::Refused {
            action: action.to_owned(),
            status: status.as_u16(),
            message: answer["error"].as_str().unwrap_or(text.trim()).to_owned(),
        })
    }

    fn read<T: serde::de::DeserializeOwned>(&self, answer: Value) -> Result<T, ToxiError> {
        serde_json::from_value(answer).map_err(|error| ToxiError::Unreachable {
            api: self.api,
            reason: format!("its answer cannot be read: {error}"),
        })
    }

    /// Runs the prescribed client where it may block; it also panics where it should fail.
    async fn prescribed<F>(&self, action: &str, act: F) -> Result<(), ToxiError>
    where
        F: FnOnce(&Prescribed) -> Result<(), String> + Send + 'static,
    {
        let shared = Arc::clone(&self.prescribed);
        let outcome = tokio::task::spawn_blocking(move || match &shared.0 {
            Some(client) => act(client),
            None => Err("the client is closed".into()),
        })
        .await
        .unwrap_or_else(|panic| Err(panic.to_string()));
        outcome.map_err(|reason| ToxiError::Unreachable { api: self.api, reason: format!("{action}: {reason}") })
    }

    fn hurt(&self) -> MutexGuard<'_, Hurt> {
        self.hurt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The prescribed client blocks while it is dropped, which async code must not.
struct DroppedElsewhere(Option<Prescribed>);

impl Drop for DroppedElsewhere {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            std::thread::spawn(move || drop(client));
        }
    }
}

fn is_known_to_prescribed(toxic: Toxic) -> bool {
    !matches!(toxic, Toxic::ResetPeer { .. } | Toxic::Noop | Toxic::Blackhole)
}

fn add_by_prescribed(proxy: &toxiproxy_rust::proxy::Proxy, stream: Stream, toxic: Toxic, toxicity: f32) {
    let stream = stream.to_string();
    match toxic {
        Toxic::Latency { latency_ms, jitter_ms } => proxy.with_latency(stream, latency_ms, jitter_ms, toxicity),
        Toxic::Bandwidth { rate_kb_per_s } => proxy.with_bandwidth(stream, rate_kb_per_s, toxicity),
        Toxic::SlowClose { delay_ms } => proxy.with_slow_close(stream, delay_ms, toxicity),
        Toxic::Timeout { timeout_ms } => proxy.with_timeout(stream, timeout_ms, toxicity),
        Toxic::Slicer { average_bytes, variation_bytes, delay_us } => {
            proxy.with_slicer(stream, average_bytes, variation_bytes, delay_us, toxicity)
        }
        Toxic::LimitData { bytes } => proxy.with_limit_data(stream, bytes, toxicity),
        // The caller does not send these here.
        Toxic::ResetPeer { .. } | Toxic::Noop | Toxic::Blackhole => proxy,
    };
}

fn check_proxy(action: String, spec: &ProxySpec, view: ProxyView) -> Result<ProxyView, ToxiError> {
    let same_listen = view.listen == spec.listen
        || match (spec.listen.parse::<SocketAddr>(), view.listen.parse::<SocketAddr>()) {
            (Ok(asked), Ok(shown)) => asked.ip() == shown.ip() && (asked.port() == 0 || asked.port() == shown.port()),
            // A host name is shown resolved.
            (Err(_), Ok(_)) => true,
            _ => false,
        };
    if same_listen && view.upstream == spec.upstream && view.enabled {
        Ok(view)
    } else {
        Err(ToxiError::NotTaken {
            action,
            shown: format!("listens on {}, upstream {}, enabled {}", view.listen, view.upstream, view.enabled),
        })
    }
}

pub(super) fn is_missing(error: &ToxiError) -> bool {
    matches!(error, ToxiError::Refused { status: 404, .. })
}

/// Percent-encodes what may not stand in a path segment.
fn encoded(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
