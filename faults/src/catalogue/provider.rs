//! What is done to the payment provider's answers to the biller, and to its events on their way to the APIs.
//!
//! Nobody waits for a bill or for an event: the load goes on as if nothing were. What counts is that the provider's book
//! and the system's books agree at the end, which the billing law judges.

use super::FaultRow;
use super::parameters::{Parameter, Takes};
use super::wire::{Given, KTH, READ_ON_THE_WIRE, RULE_LIVE, TIMES};
use crate::fault::Tolerance;
use crate::protocol::{Action, HttpPattern, Pattern, Place};

const BOTH: &[&str] = &["docker", "process"];
const BILLERS: &[&str] = &["billers-provider"];
const WEBHOOKS: &[&str] = &["provider-webhooks"];

// Measured on a machine that others built on: 96 to 99 % of the load succeeded and nothing paused for longer than 70 ms; the
// biller was through within 3 s, and within 11 s where the load itself had more under way than it may.
const NOBODY_WAITS: Tolerance = Tolerance { goodput_ratio_min: 0.90, outage_ms_max: 1_500, recover_ms_max: 20_000 };

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[
    FaultRow {
        name: "provider-request-lost",
        kind: "provider_request_lost",
        targets: BILLERS,
        what: "the biller's k-th charge never reaches the provider, and its connection ends; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "a biller runs, and the proxies saw its charge and the end of the connection",
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
    FaultRow {
        name: "provider-answer-lost",
        kind: "provider_answer_lost",
        targets: BILLERS,
        what: "the provider makes the biller's k-th charge, and the answer is lost; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: READ_ON_THE_WIRE,
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
    FaultRow {
        name: "provider-error",
        kind: "provider_error",
        targets: BILLERS,
        what: "the provider makes the biller's k-th charge, and a status of 500 is answered; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: READ_ON_THE_WIRE,
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
    FaultRow {
        name: "provider-busy",
        kind: "provider_busy",
        targets: BILLERS,
        what: "the biller's k-th charge never reaches the provider, and 429 is answered; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "a biller runs, and the proxies answered its charge",
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
    FaultRow {
        name: "provider-slow-body",
        kind: "provider_slow_body",
        targets: BILLERS,
        what: "the answer to the biller's k-th charge comes a byte every 50 ms; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: READ_ON_THE_WIRE,
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
    FaultRow {
        name: "provider-reset",
        kind: "provider_reset",
        targets: BILLERS,
        what: "the provider makes the biller's k-th charge, and the connection is reset; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: READ_ON_THE_WIRE,
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
    FaultRow {
        name: "webhook-twice",
        kind: "webhook_twice",
        targets: WEBHOOKS,
        what: "the provider's k-th event comes twice, one right behind the other; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "the APIs' own counters: more events than were sent",
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
    FaultRow {
        name: "webhook-late",
        kind: "webhook_late",
        targets: WEBHOOKS,
        what: "the provider's k-th event comes late by late_ms; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "the proxies measured how late it was handed on, and the provider was answered that late",
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
    FaultRow {
        name: "webhook-reordered",
        kind: "webhook_reordered",
        targets: WEBHOOKS,
        what: "the provider's k-th event is overtaken by those that were sent after it",
        control_proof: RULE_LIVE,
        effect_proof: "an event that was sent later was answered earlier",
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
    FaultRow {
        name: "webhook-forged",
        kind: "webhook_forged",
        targets: WEBHOOKS,
        what: "a digit of the provider's k-th event is changed on the way, under the old signature; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "the APIs' own counters: more events whose signature is not the provider's",
        engines: BOTH,
        tolerance: NOBODY_WAITS,
    },
];

const METHOD: Parameter = Parameter {
    name: "method",
    what: "charges (POST) or questions after one (GET)",
    takes: Takes::Word(&["POST", "GET"]),
};
const RETRY_AFTER: Parameter = Parameter {
    name: "retry_after_s",
    what: "when the provider asks to be asked again, seconds",
    takes: Takes::Whole { min: 0, max: 60, default: 1 },
};
// More than a biller makes of the charges it has in hand, so that one has none of its tries.
const ALL_TRIES: Parameter = Parameter { takes: Takes::Whole { min: 1, max: 100, default: 12 }, ..TIMES };
const OVERTAKEN_BY: Parameter = Parameter {
    name: "late_ms",
    what: "how late, milliseconds",
    takes: Takes::Whole { min: 1, max: 60_000, default: 1_500 },
};
// The biller finds out by itself in the meantime.
const EVENT_LATE: Parameter = Parameter { takes: Takes::Whole { min: 1, max: 60_000, default: 3_000 }, ..OVERTAKEN_BY };
const OVERTAKEN: Parameter = Parameter { takes: Takes::Whole { min: 1, max: 100, default: 1 }, ..TIMES };

/// What a schedule may say of a row of this family.
pub(super) fn parameters(row: &FaultRow) -> &'static [Parameter] {
    match row.name {
        "provider-busy" => &[KTH, ALL_TRIES, METHOD, RETRY_AFTER],
        "provider-request-lost" => &[KTH, ALL_TRIES, METHOD],
        "webhook-twice" | "webhook-forged" => &[KTH, TIMES],
        "webhook-late" => &[KTH, TIMES, EVENT_LATE],
        "webhook-reordered" => &[KTH, OVERTAKEN, OVERTAKEN_BY],
        _ => &[KTH, TIMES, METHOD],
    }
}

pub(super) fn pattern(given: &Given<'_>) -> Pattern {
    let method = given.text("method").unwrap_or_else(|| "POST".to_owned());
    Pattern::Http(HttpPattern { method: Some(method), path: None })
}

pub(super) fn what_happens(given: &Given<'_>) -> (Place, Action) {
    let error = |code: &str, retry_after_s| Action::Error { code: code.to_owned(), text: None, retry_after_s };
    match given.row.name {
        "provider-request-lost" => (Place::BeforeServer, Action::Cut),
        "provider-answer-lost" => (Place::BeforeClient, Action::Cut),
        "provider-error" => (Place::BeforeClient, error("500", None)),
        "provider-busy" => (Place::BeforeServer, error("429", Some(given.whole("retry_after_s")))),
        "provider-slow-body" => (Place::BeforeClient, Action::Slow { bytes: 1, every_ms: 50 }),
        "provider-reset" => (Place::BeforeClient, Action::Reset),
        "webhook-twice" => (Place::BeforeServer, Action::Twice),
        "webhook-forged" => (Place::BeforeServer, Action::Forge),
        _ => (Place::BeforeServer, Action::Late { ms: given.whole("late_ms") }),
    }
}
