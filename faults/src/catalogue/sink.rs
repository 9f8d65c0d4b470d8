//! What is done on the way from the system to where it tells about itself: error reports, product
//! analytics, and the webhook of alerts.
//!
//! No request waits for a sink, whatever becomes of it: the floors are as tight as the load's own noise allows, and lower
//! ones would excuse what must not be.

use super::FaultRow;
use super::parameters::{Parameter, Takes};
use super::wire::{Given, RULE_LIVE};
use crate::fault::Tolerance;
use crate::protocol::{Action, HttpPattern, Occurrence, Pattern, Place, Rule};

const BOTH: &[&str] = &["docker", "process"];
const TARGETS: &[&str] = &["apis-errors", "apis-analytics", "alert-1-alerts"];
/// What the sinks are called, as victims name them last, with the paths of their requests.
const PATHS: [(&str, &str); 3] = [("errors", "/api/*"), ("analytics", "/batch"), ("alerts", "/notices")];
/// When a busy sink asks to be asked again, seconds.
const RETRY_AFTER_S: u64 = 1;

// Measured in 36 windows on a machine that others built on: 94 to 99 % of the load succeeded, the least late in a load of two
// minutes, when tenants come to their own limits; nothing paused for longer than 220 ms, and all was told again within 2 s. The
// alert process tries again after 6.4 s at the latest by the end of a window of 8 s.
const NOBODY_NOTICES: Tolerance = Tolerance { goodput_ratio_min: 0.90, outage_ms_max: 1_000, recover_ms_max: 20_000 };

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[
    FaultRow {
        name: "sink-reset",
        kind: "sink_reset",
        targets: TARGETS,
        what: "the sink is down: every connection to it is reset at its first request",
        control_proof: RULE_LIVE,
        effect_proof: "the proxies reset what was sent, and the sender's own counters: more that reached nobody",
        engines: BOTH,
        tolerance: NOBODY_NOTICES,
    },
    FaultRow {
        name: "sink-blackhole",
        kind: "sink_blackhole",
        targets: TARGETS,
        what: "the sink takes connections and never answers, nor does anything that is sent arrive",
        control_proof: RULE_LIVE,
        effect_proof: "the proxies hold what was sent, and the sender's own counters: more that was given up in time",
        engines: BOTH,
        tolerance: NOBODY_NOTICES,
    },
    FaultRow {
        name: "sink-error",
        kind: "sink_error",
        targets: TARGETS,
        what: "every request to the sink is answered with code: 500 after the sink took it, 429 before it did",
        control_proof: RULE_LIVE,
        effect_proof: "the proxies answered what was sent, and the sender's own counters: more that was refused",
        engines: BOTH,
        tolerance: NOBODY_NOTICES,
    },
];

const CODE: Parameter = Parameter { name: "code", what: "the status", takes: Takes::Word(&["500", "429"]) };

/// What a schedule may say of a row of this family.
pub(super) fn parameters(row: &FaultRow) -> &'static [Parameter] {
    if row.name == "sink-error" { &[CODE] } else { &[] }
}

/// The path of requests to the sink of that name; what ends in `*` stands for all that begins like it.
#[must_use]
pub fn sink_path(sink: &str) -> Option<&'static str> {
    PATHS.into_iter().find(|(name, _)| *name == sink).map(|(_, path)| path)
}

/// The one rule that a window stands for: whatever the role tells that sink.
pub(super) fn rule(given: &Given<'_>, id: &str, role: &str, sink: &str) -> Result<Rule, String> {
    let path = sink_path(sink).ok_or_else(|| format!("{sink} is no sink"))?;
    let code = given.text("code").unwrap_or_default();
    let (place, action) = match given.row.name {
        "sink-reset" => (Place::BeforeServer, Action::Reset),
        "sink-blackhole" => (Place::BeforeServer, Action::Hold { ms: None }),
        _ if code == "429" => {
            (Place::BeforeServer, Action::Error { code, text: None, retry_after_s: Some(RETRY_AFTER_S) })
        }
        _ => (Place::BeforeClient, Action::Error { code, text: None, retry_after_s: None }),
    };
    Ok(Rule {
        name: format!("{id}-1"),
        role: Some(role.to_owned()),
        pattern: Pattern::Http(HttpPattern { method: Some("POST".to_owned()), path: Some(path.to_owned()) }),
        k: Occurrence::EVERY,
        place,
        action,
    })
}
