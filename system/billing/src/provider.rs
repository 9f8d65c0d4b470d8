//! The payment provider's HTTP interface, as a client. Every answer is one of four: charged, declined,
//! refused, unclear; a time-out is unclear, never a no.

use std::time::Duration;

use forecastle_store::payments::Payment;
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};

/// A client of one provider. Cheap to clone.
#[derive(Clone)]
pub struct Provider {
    client: Client,
    charges: Url,
}

/// The provider's address cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("provider address is not valid")]
pub struct BadProviderAddress;

/// What came of asking for a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChargeAnswer {
    /// The money was taken, now or by an earlier request with this key.
    Charged { provider_charge_id: String },
    /// A clear no; nothing was taken.
    Declined,
    /// The request itself was refused, as for a token that is none. A no where the provider holds no charge
    /// for the key either; it may hold one by an earlier request.
    Refused,
    /// No answer, or none that can be trusted: it may have been taken.
    Unclear,
}

/// What came of looking a key up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LookUp {
    /// The provider holds this charge for the key.
    Found { provider_charge_id: String },
    /// It holds none; a request on its way may still arrive.
    Absent,
    /// No answer that can be trusted.
    Unclear,
}

#[derive(Serialize)]
struct ChargeRequest<'a> {
    amount_minor: i64,
    currency: &'a str,
    payment_token: &'a str,
    reference: String,
}

#[derive(Deserialize)]
struct ChargeBody {
    id: String,
    state: String,
    amount_minor: i64,
    currency: String,
    idempotency_key: String,
}

#[derive(Deserialize)]
struct ChargeList {
    items: Vec<ChargeBody>,
}

impl Provider {
    /// A client whose every request ends within `timeout`.
    ///
    /// # Errors
    /// If the address is no URL that a path can be added to.
    pub fn new(base_url: &str, timeout: Duration) -> Result<Self, BadProviderAddress> {
        let base = Url::parse(base_url).map_err(|_| BadProviderAddress)?;
        if base.cannot_be_a_base() {
            return Err(BadProviderAddress);
        }
        let charges = format!("{}/v1/charges", base.as_str().trim_end_matches('/'));
        let client = Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout)
            .no_proxy()
            .build()
            .map_err(|_| BadProviderAddress)?;
        Ok(Self { client, charges: Url::parse(&charges).map_err(|_| BadProviderAddress)? })
    }

    /// Asks for the charge. The key is the payment's own, so asking again takes nothing twice.
    pub(crate) async fn charge(&self, payment: &Payment, token: &str) -> ChargeAnswer {
        let request = ChargeRequest {
            amount_minor: payment.amount_minor,
            currency: payment.currency.as_str(),
            payment_token: token,
            reference: payment.invoice_id.to_string(),
        };
        let sent = self
            .client
            .post(self.charges.clone())
            .header("Idempotency-Key", &payment.idempotency_key)
            .json(&request)
            .send()
            .await;
        let Ok(response) = sent else {
            return ChargeAnswer::Unclear;
        };
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => match response.json::<ChargeBody>().await {
                Ok(body) if body.is_of(payment) => ChargeAnswer::Charged { provider_charge_id: body.id },
                _ => ChargeAnswer::Unclear,
            },
            StatusCode::PAYMENT_REQUIRED => ChargeAnswer::Declined,
            status if is_refusal(status) => {
                tracing::warn!(status = status.as_u16(), "provider refused a charge");
                ChargeAnswer::Refused
            }
            status => {
                tracing::warn!(status = status.as_u16(), "provider gave no clear answer");
                ChargeAnswer::Unclear
            }
        }
    }

    /// Asks what became of the payment's key.
    pub(crate) async fn look_up(&self, payment: &Payment) -> LookUp {
        let mut url = self.charges.clone();
        url.query_pairs_mut().append_pair("idempotency_key", &payment.idempotency_key);
        let Ok(response) = self.client.get(url).send().await else {
            return LookUp::Unclear;
        };
        if response.status() != StatusCode::OK {
            return LookUp::Unclear;
        }
        match response.json::<ChargeList>().await {
            Ok(list) => match list.items.into_iter().next() {
                None => LookUp::Absent,
                Some(body) if body.is_of(payment) => LookUp::Found { provider_charge_id: body.id },
                Some(_) => {
                    tracing::error!("provider holds another charge under this key");
                    LookUp::Unclear
                }
            },
            Err(_) => LookUp::Unclear,
        }
    }
}

/// Whether a status refuses what was asked for. Not those that ask to come again, and not those that refuse
/// us instead of the customer: who we are, the method, the address of a proxy.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 405 | 407 | 408 | 409 | 425 | 429)
}

impl ChargeBody {
    fn is_of(&self, payment: &Payment) -> bool {
        self.state == "succeeded"
            && self.amount_minor == payment.amount_minor
            && self.currency == payment.currency.as_str()
            && self.idempotency_key == payment.idempotency_key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_a_path_keeps_it() {
        let provider = Provider::new("http://127.0.0.1:9/pay/", Duration::from_secs(1)).unwrap();
        assert_eq!(provider.charges.as_str(), "http://127.0.0.1:9/pay/v1/charges");
        assert!(Provider::new("mailto:a@b.c", Duration::from_secs(1)).is_err());
    }

    #[test]
    fn only_what_refuses_the_charge_itself_is_a_refusal() {
        let all = (100..600).filter_map(|code| StatusCode::from_u16(code).ok());
        let refusing: Vec<u16> = all.filter(|status| is_refusal(*status)).map(|status| status.as_u16()).collect();
        assert!([400, 404, 410, 422, 451].iter().all(|code| refusing.contains(code)), "{refusing:?}");
        for code in [200, 302, 401, 403, 405, 407, 408, 409, 425, 429, 500, 503] {
            assert!(!refusing.contains(&code), "{code}");
        }
    }
}
