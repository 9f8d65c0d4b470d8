//! A toxic as configured: what it does, to which direction, to which share of the links.

use serde_json::{Map, Value, json};

use crate::network::Stream;

/// One toxic of a proxy.
#[derive(Debug, Clone)]
pub(super) struct ToxicConfig {
    /// Unique over the life of the proxy; a removed toxic's number is not used again.
    pub id: u64,
    /// Grows with each update.
    pub revision: u64,
    pub name: String,
    pub stream: Stream,
    /// Share of the links it acts on, 0 to 1.
    pub toxicity: f32,
    pub action: Action,
}

impl ToxicConfig {
    pub(super) fn to_json(&self) -> Value {
        json!({
            "attributes": self.action.attributes(),
            "name": self.name,
            "type": self.action.kind(),
            "stream": self.stream,
            // Shown as it was written: 0.2, not the nearest number of four bytes to the digit.
            "toxicity": self.toxicity.to_string().parse::<f64>().unwrap_or_default(),
        })
    }
}

/// What a toxic does; durations in the unit of their name, the rate in 1000 bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Noop,
    Latency {
        latency_ms: i64,
        jitter_ms: i64,
    },
    Bandwidth {
        rate: i64,
    },
    SlowClose {
        delay_ms: i64,
    },
    Timeout {
        timeout_ms: i64,
    },
    ResetPeer {
        timeout_ms: i64,
    },
    Slicer {
        average_bytes: i64,
        variation_bytes: i64,
        delay_us: i64,
    },
    LimitData {
        bytes: i64,
    },
    /// Not of the official server: swallows data and the end alike, so that the receiver keeps a
    /// connection whose sender may be long gone. Removal resets what has lost something.
    Blackhole,
}

impl Action {
    /// The kind of this name with all attributes 0, or none if there is no such kind.
    pub(super) fn of_kind(kind: &str) -> Option<Self> {
        Some(match kind {
            "noop" => Self::Noop,
            "latency" => Self::Latency { latency_ms: 0, jitter_ms: 0 },
            "bandwidth" => Self::Bandwidth { rate: 0 },
            "slow_close" => Self::SlowClose { delay_ms: 0 },
            "timeout" => Self::Timeout { timeout_ms: 0 },
            "reset_peer" => Self::ResetPeer { timeout_ms: 0 },
            "slicer" => Self::Slicer { average_bytes: 0, variation_bytes: 0, delay_us: 0 },
            "limit_data" => Self::LimitData { bytes: 0 },
            "blackhole" => Self::Blackhole,
            _ => return None,
        })
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Latency { .. } => "latency",
            Self::Bandwidth { .. } => "bandwidth",
            Self::SlowClose { .. } => "slow_close",
            Self::Timeout { .. } => "timeout",
            Self::ResetPeer { .. } => "reset_peer",
            Self::Slicer { .. } => "slicer",
            Self::LimitData { .. } => "limit_data",
            Self::Blackhole => "blackhole",
        }
    }

    /// Takes over the attributes given; the others stay, unknown ones are ignored.
    pub(super) fn merge(&mut self, attributes: &Map<String, Value>) -> Result<(), String> {
        let read = |name: &str, into: &mut i64| match attributes.get(name) {
            None | Some(Value::Null) => Ok(()),
            Some(value) => {
                *into = value.as_i64().ok_or_else(|| format!("attribute {name} is not a whole number"))?;
                Ok(())
            }
        };
        match self {
            Self::Noop | Self::Blackhole => Ok(()),
            Self::Latency { latency_ms, jitter_ms } => {
                read("latency", latency_ms)?;
                read("jitter", jitter_ms)
            }
            Self::Bandwidth { rate } => read("rate", rate),
            Self::SlowClose { delay_ms } => read("delay", delay_ms),
            Self::Timeout { timeout_ms } | Self::ResetPeer { timeout_ms } => read("timeout", timeout_ms),
            Self::Slicer { average_bytes, variation_bytes, delay_us } => {
                read("average_size", average_bytes)?;
                read("size_variation", variation_bytes)?;
                read("delay", delay_us)
            }
            Self::LimitData { bytes } => read("bytes", bytes),
        }
    }

    fn attributes(&self) -> Value {
        match *self {
            Self::Noop | Self::Blackhole => json!({}),
            Self::Latency { latency_ms, jitter_ms } => json!({ "latency": latency_ms, "jitter": jitter_ms }),
            Self::Bandwidth { rate } => json!({ "rate": rate }),
            Self::SlowClose { delay_ms } => json!({ "delay": delay_ms }),
            Self::Timeout { timeout_ms } | Self::ResetPeer { timeout_ms } => json!({ "timeout": timeout_ms }),
            Self::Slicer { average_bytes, variation_bytes, delay_us } => {
                json!({ "average_size": average_bytes, "size_variation": variation_bytes, "delay": delay_us })
            }
            Self::LimitData { bytes } => json!({ "bytes": bytes }),
        }
    }
}
