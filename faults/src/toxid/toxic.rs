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
            "toxicity": self.toxicity,
        })
    }
}

/// What a toxic does; durations in milliseconds, the rate in 1000 bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Noop,
    Latency { latency_ms: i64, jitter_ms: i64 },
    Bandwidth { rate: i64 },
    Timeout { timeout_ms: i64 },
    ResetPeer { timeout_ms: i64 },
}

impl Action {
    /// The kind of this name with all attributes 0, or none if there is no such kind.
    pub(super) fn of_kind(kind: &str) -> Option<Self> {
        Some(match kind {
            "noop" => Self::Noop,
            "latency" => Self::Latency { latency_ms: 0, jitter_ms: 0 },
            "bandwidth" => Self::Bandwidth { rate: 0 },
            "timeout" => Self::Timeout { timeout_ms: 0 },
            "reset_peer" => Self::ResetPeer { timeout_ms: 0 },
            _ => return None,
        })
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Latency { .. } => "latency",
            Self::Bandwidth { .. } => "bandwidth",
            Self::Timeout { .. } => "timeout",
            Self::ResetPeer { .. } => "reset_peer",
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
            Self::Noop => Ok(()),
            Self::Latency { latency_ms, jitter_ms } => {
                read("latency", latency_ms)?;
                read("jitter", jitter_ms)
            }
            Self::Bandwidth { rate } => read("rate", rate),
            Self::Timeout { timeout_ms } | Self::ResetPeer { timeout_ms } => read("timeout", timeout_ms),
        }
    }

    fn attributes(&self) -> Value {
        match *self {
            Self::Noop => json!({}),
            Self::Latency { latency_ms, jitter_ms } => json!({ "latency": latency_ms, "jitter": jitter_ms }),
            Self::Bandwidth { rate } => json!({ "rate": rate }),
            Self::Timeout { timeout_ms } | Self::ResetPeer { timeout_ms } => {
                json!({ "timeout": timeout_ms })
            }
        }
    }
}
