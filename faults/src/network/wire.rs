//! Proxies and toxics as Toxiproxy's HTTP API writes them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Direction of a link, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// From the client to the server.
    Upstream,
    /// From the server to the client.
    Downstream,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Upstream => "upstream",
            Self::Downstream => "downstream",
        })
    }
}

/// A proxy that shall exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySpec {
    /// Unique within the server.
    pub name: String,
    /// `address:port` to listen on; port 0 takes a free one.
    pub listen: String,
    /// `address:port` to connect to.
    pub upstream: String,
}

/// A proxy as the server shows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ProxyView {
    /// Unique within the server.
    pub name: String,
    /// The address it listens on, with the real port.
    pub listen: String,
    /// The address it connects to.
    pub upstream: String,
    /// Whether it listens at all.
    pub enabled: bool,
    /// Its toxics, of both streams.
    #[serde(default)]
    pub toxics: Vec<ToxicView>,
}

/// A toxic as the server shows it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ToxicView {
    /// Unique within the proxy.
    pub name: String,
    /// Kind of toxic, such as `latency`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its direction.
    pub stream: Stream,
    /// Share of the links it acts on, 0 to 1.
    pub toxicity: f32,
    /// By name; numbers.
    #[serde(default)]
    pub attributes: BTreeMap<String, Value>,
}

/// A kind of toxic with its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toxic {
    /// Delays every chunk.
    Latency {
        /// Mean delay, milliseconds.
        latency_ms: u32,
        /// Largest deviation to either side, milliseconds.
        jitter_ms: u32,
    },
    /// Caps the throughput.
    Bandwidth {
        /// Kilobytes (1000 bytes) per second; 0 does not cap.
        rate_kb_per_s: u32,
    },
    /// Holds back the end of the data.
    SlowClose {
        /// From the end to its passing on, milliseconds.
        delay_ms: u32,
    },
    /// Swallows all data, and closes after a silence.
    Timeout {
        /// Silence after which the connection is closed, milliseconds; 0 never closes.
        timeout_ms: u32,
    },
    /// Resets the connection after its first data.
    ResetPeer {
        /// From the first data to the reset, milliseconds.
        timeout_ms: u32,
    },
    /// Sends data in small pieces.
    Slicer {
        /// Mean size of a piece, bytes; 0 does not cut.
        average_bytes: u32,
        /// Largest deviation to either side, bytes.
        variation_bytes: u32,
        /// Between two pieces, microseconds.
        delay_us: u32,
    },
    /// Closes the connection once this direction has carried so much.
    LimitData {
        /// Bytes that still pass, counted for each connection over all updates.
        bytes: u32,
    },
    /// Does nothing: a placebo.
    Noop,
    /// Swallows data and the end alike, so that the receiver keeps a half-open connection. Only
    /// our own server knows it, and only with [`crate::ToxidOptions::blackhole`].
    Blackhole,
}

impl Toxic {
    /// The name the API gives this kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Bandwidth { .. } => "bandwidth",
            Self::SlowClose { .. } => "slow_close",
            Self::Timeout { .. } => "timeout",
            Self::ResetPeer { .. } => "reset_peer",
            Self::Slicer { .. } => "slicer",
            Self::LimitData { .. } => "limit_data",
            Self::Noop => "noop",
            Self::Blackhole => "blackhole",
        }
    }

    /// The name the API gives a toxic of this kind when none is asked for.
    pub fn default_name(&self, stream: Stream) -> String {
        format!("{}_{stream}", self.kind())
    }

    /// The attributes as the API writes them.
    pub fn attributes(&self) -> Map<String, Value> {
        let value = match *self {
            Self::Latency { latency_ms, jitter_ms } => json!({ "latency": latency_ms, "jitter": jitter_ms }),
            Self::Bandwidth { rate_kb_per_s } => json!({ "rate": rate_kb_per_s }),
            Self::SlowClose { delay_ms } => json!({ "delay": delay_ms }),
            Self::Timeout { timeout_ms } | Self::ResetPeer { timeout_ms } => json!({ "timeout": timeout_ms }),
            Self::Slicer { average_bytes, variation_bytes, delay_us } => {
                json!({ "average_size": average_bytes, "size_variation": variation_bytes, "delay": delay_us })
            }
            Self::LimitData { bytes } => json!({ "bytes": bytes }),
            Self::Noop | Self::Blackhole => json!({}),
        };
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// Whether `view` is this toxic with this toxicity.
    pub(super) fn is_shown_as(&self, view: &ToxicView, stream: Stream, toxicity: f32) -> bool {
        view.kind == self.kind()
            && view.stream == stream
            && (view.toxicity - toxicity).abs() < 1e-6
            && self
                .attributes()
                .iter()
                .all(|(name, wanted)| view.attributes.get(name).is_some_and(|shown| shown.as_f64() == wanted.as_f64()))
    }
}
