//! What the provider tells about a charge, read from a message whose signature held.

use chrono::{DateTime, Utc};
use forecastle_domain::{InvoiceId, TenantId};
use serde::Deserialize;

/// Longest key of a charge, characters.
const KEY_LENGTH_MAX: usize = 200;
/// Longest id of a charge, characters.
const CHARGE_ID_LENGTH_MAX: usize = 200;

/// What happened to a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The money was taken: `charge.succeeded`.
    Succeeded,
    /// The provider refused: `charge.failed`.
    Failed,
    /// Money was given back: `charge.refunded`, with the sum of all that was.
    Refunded,
}

impl EventKind {
    /// The event's type as it travels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "charge.succeeded",
            Self::Failed => "charge.failed",
            Self::Refunded => "charge.refunded",
        }
    }
}

/// An event about a charge that carries a key of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeEvent {
    /// The event's id, signed; the same each time it is sent.
    pub event_id: String,
    /// When this message was signed.
    pub sent_at: DateTime<Utc>,
    /// What happened.
    pub kind: EventKind,
    /// The provider's id of the charge.
    pub charge_id: String,
    /// Minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
    /// The key it was asked for with.
    pub key: String,
    /// Sum of all that was given back, minor units; 0 but for a refund.
    pub refunded_minor: i64,
    /// Whose charge it is, as its key says.
    pub tenant: TenantId,
    /// Which invoice it pays, as its key says.
    pub invoice: InvoiceId,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Something about a charge that may be ours.
    Charge(Box<ChargeEvent>),
    /// Of a type that is not known here, or about a charge that has no key of ours.
    Irrelevant,
}

/// The body is not an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event of the payment provider")]
pub struct NotAnEvent;

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: serde_json::Value,
}

#[derive(Deserialize)]
struct ChargeBody {
    id: String,
    amount_minor: i64,
    currency: String,
    idempotency_key: String,
    #[serde(default)]
    reference: Option<String>,
    #[serde(default)]
    refunded_minor: i64,
}

/// Reads a body that was signed under `event_id` at `sent_at`.
///
/// # Errors
/// If it is no JSON object with a type, or a charge's event without the charge.
pub fn read(event_id: &str, sent_at: DateTime<Utc>, body: &[u8]) -> Result<Message, NotAnEvent> {
    let envelope: Envelope = serde_json::from_slice(body).map_err(|_| NotAnEvent)?;
    let kinds = [EventKind::Succeeded, EventKind::Failed, EventKind::Refunded];
    let Some(kind) = kinds.into_iter().find(|kind| kind.as_str() == envelope.kind) else {
        return Ok(Message::Irrelevant);
    };
    let charge: ChargeBody = serde_json::from_value(envelope.data).map_err(|_| NotAnEvent)?;
    let Some((tenant, invoice)) = key_parts(&charge.idempotency_key) else { return Ok(Message::Irrelevant) };
    let is_sound = !charge.id.is_empty() && charge.id.len() <= CHARGE_ID_LENGTH_MAX && !charge.id.contains('\0');
    let refers_elsewhere = charge.reference.is_some_and(|reference| reference != invoice.to_string());
    if !is_sound || refers_elsewhere {
        return Ok(Message::Irrelevant);
    }
    Ok(Message::Charge(Box::new(ChargeEvent {
        event_id: event_id.to_owned(),
        sent_at,
        kind,
        charge_id: charge.id,
        amount_minor: charge.amount_minor,
        currency: charge.currency,
        key: charge.idempotency_key,
        refunded_minor: charge.refunded_minor,
        tenant,
        invoice,
    })))
}

/// Tenant and invoice of a key `inv-<tenant>-<invoice>-<purpose>`; `None` for any other text.
fn key_parts(key: &str) -> Option<(TenantId, InvoiceId)> {
    const UUID: usize = 36;
    if !key.is_ascii() || key.len() > KEY_LENGTH_MAX {
        return None;
    }
    let rest = key.strip_prefix("inv-")?;
    let (tenant, rest) = (rest.get(..UUID)?, rest.get(UUID..)?.strip_prefix('-')?);
    let (invoice, purpose) = (rest.get(..UUID)?, rest.get(UUID..)?.strip_prefix('-')?);
    let is_purpose = !purpose.is_empty() && purpose.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_purpose.then_some(())?;
    Some((tenant.parse().ok()?, invoice.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TENANT: &str = "01234567-89ab-7def-8011-223344556677";
    const INVOICE: &str = "11234567-89ab-7def-8011-223344556677";

    fn body(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut body = json!({
            "type": "charge.succeeded", "created_at": "2026-01-01T00:00:00Z",
            "data": {
                "id": "ch_1", "state": "succeeded", "amount_minor": 2900, "currency": "USD",
                "idempotency_key": format!("inv-{TENANT}-{INVOICE}-dunning-1"), "reference": INVOICE,
            },
        });
        change(&mut body);
        body.to_string().into_bytes()
    }

    fn parse(change: impl FnOnce(&mut Value)) -> Result<Message, NotAnEvent> {
        read("evt_1", DateTime::UNIX_EPOCH, &body(change))
    }

    #[test]
    fn a_charge_is_found_by_its_key() {
        let Message::Charge(event) = parse(|_| ()).unwrap() else { panic!("a charge") };
        assert_eq!((event.kind, event.amount_minor), (EventKind::Succeeded, 2900));
        assert_eq!((event.tenant.to_string().as_str(), event.invoice.to_string().as_str()), (TENANT, INVOICE));
    }

    #[test]
    fn unknown_types_and_strange_keys_are_let_pass() {
        let strange = |key: String| parse(|b| b["data"]["idempotency_key"] = key.into());
        assert_eq!(parse(|b| b["type"] = "payout.created".into()), Ok(Message::Irrelevant));
        assert_eq!(parse(|b| b["data"]["reference"] = "another".into()), Ok(Message::Irrelevant));
        for key in [
            String::new(),
            "order-17".to_owned(),
            format!("inv-{TENANT}-{INVOICE}"),
            format!("inv-{TENANT}-{INVOICE}-"),
            format!("inv-{TENANT}-{INVOICE}-a/b"),
            format!("inv-{INVOICE}"),
            format!("inv-{}é", &TENANT[..35]),
            "x".repeat(500),
        ] {
            assert_eq!(strange(key.clone()), Ok(Message::Irrelevant), "{key}");
        }
    }

    #[test]
    fn a_body_that_is_no_event_is_told() {
        assert_eq!(read("e", DateTime::UNIX_EPOCH, b"{"), Err(NotAnEvent));
        assert_eq!(read("e", DateTime::UNIX_EPOCH, b"[]"), Err(NotAnEvent));
        assert_eq!(parse(|b| b["data"] = Value::Null), Err(NotAnEvent));
        assert_eq!(parse(|b| b["data"]["amount_minor"] = "2900".into()), Err(NotAnEvent));
    }
}
