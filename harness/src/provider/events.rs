//! The provider's events about its charges: signed by the Standard Webhooks scheme, and sent until they are taken.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::book::Charge;

/// Where an API takes events in.
const PATH: &str = "/v1/webhooks/payments";
/// Patience with one delivery.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The secret that provider and system share.
#[derive(Debug, Clone, Copy)]
pub struct WebhookSecret([u8; 32]);

impl WebhookSecret {
    /// One drawn afresh.
    #[must_use]
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// As the system is told it.
    #[must_use]
    pub fn setting(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.0))
    }

    /// The signature of the message `id`, sent at `timestamp_s` since 1970.
    ///
    /// # Errors
    /// None in practice: the secret's length is right.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> Result<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).context("take the webhook secret")?;
        mac.update(format!("{id}.{timestamp_s}.").as_bytes());
        mac.update(body);
        Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

/// The event that says that a charge was made.
#[must_use]
pub fn charge_succeeded(charge: &Charge) -> Value {
    json!({
        "type": "charge.succeeded",
        "data": {
            "id": charge.id,
            "amount_minor": charge.amount_minor,
            "currency": charge.currency,
            "idempotency_key": charge.idempotency_key,
            "reference": charge.reference,
        },
    })
}

/// Sends events to one address.
#[derive(Debug, Clone)]
pub struct EventSender {
    client: reqwest::Client,
    secret: WebhookSecret,
    to: SocketAddr,
}

impl EventSender {
    /// To the API, or the link to it, at `to`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(secret: WebhookSecret, to: SocketAddr) -> Result<Self> {
        // Kept open after an answer: an event that comes twice is answered twice.
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_LIMIT).build()?;
        Ok(Self { client, secret, to })
    }

    /// Sends the event `id` about `charge` once; the status it was answered with.
    ///
    /// # Errors
    /// If it is not answered.
    pub async fn send(&self, id: &str, charge: &Charge) -> Result<u16> {
        let body = serde_json::to_vec(&charge_succeeded(charge))?;
        let sent_s = jiff::Timestamp::now().as_second();
        let request = self
            .client
            .post(format!("http://{}{PATH}", self.to))
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", sent_s.to_string())
            .header("webhook-signature", self.secret.sign(id, sent_s, &body)?);
        Ok(request.body(body).send().await.context("deliver an event")?.status().as_u16())
    }
}
