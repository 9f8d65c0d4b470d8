//! Whether a message is the payment provider's: HMAC-SHA256 over `id.timestamp.body`, as the Standard
//! Webhooks specification has it. Pure: no clock, no database, nothing is read from the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Duration, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Written before each secret's base64.
const SECRET_PREFIX: &str = "whsec_";
/// Fewest bytes of a secret.
const SECRET_BYTES_MIN: usize = 24;
/// Most secrets in force at once: the one in use and the one that follows it.
const SECRETS_MAX: usize = 2;
/// Most signatures looked at in one message.
const SIGNATURES_MAX: usize = 8;
/// Longest event id, characters.
const ID_LENGTH_MAX: usize = 200;

/// The secrets the provider may sign with: one, or two while they are being exchanged. No `Debug`.
#[derive(Clone)]
pub struct WebhookSecrets {
    keys: Vec<Hmac<Sha256>>,
}

/// The setting does not hold one or two secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("webhook secrets must be one or two of whsec_<base64 of at least 24 bytes>, separated by a comma")]
pub struct BadWebhookSecrets;

/// What came with a message beside its body, as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedHeaders<'a> {
    /// `webhook-id`: the event's id, the same each time it is sent.
    pub id: &'a str,
    /// `webhook-timestamp`: seconds since 1970.
    pub timestamp: &'a str,
    /// `webhook-signature`: `v1,<base64>`, several separated by spaces.
    pub signature: &'a str,
}

/// The message is not the provider's, or too old, or from the future. Which of them is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not signed by the provider")]
pub struct Forged;

impl WebhookSecrets {
    /// Reads the setting: `whsec_<base64>[,whsec_<base64>]`.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn parse(text: &str) -> Result<Self, BadWebhookSecrets> {
        let keys: Option<Vec<_>> = text.split(',').map(|secret| key(secret.trim())).collect();
        match keys {
            Some(keys) if (1..=SECRETS_MAX).contains(&keys.len()) => Ok(Self { keys }),
            _ => Err(BadWebhookSecrets),
        }
    }

    /// Checks a message; when it was signed. The comparison takes as long for a wrong signature as for
    /// a right one. A time more than `tolerance` from `now`, either way, is refused.
    ///
    /// # Errors
    /// [`Forged`] for whatever does not hold.
    pub fn verify(
        &self,
        headers: &SignedHeaders<'_>,
        body: &[u8],
        now: DateTime<Utc>,
        tolerance: Duration,
    ) -> Result<DateTime<Utc>, Forged> {
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if headers.id.is_empty() || headers.id.len() > ID_LENGTH_MAX || !printable(headers.id) {
            return Err(Forged);
        }
        // One text form for each time: what is signed is what is compared.
        let seconds: i64 = headers.timestamp.parse().map_err(|_| Forged)?;
        let sent_at = DateTime::from_timestamp(seconds, 0).ok_or(Forged)?;
        if seconds.to_string() != headers.timestamp || (now - sent_at).abs() > tolerance {
            return Err(Forged);
        }
        let signatures: Vec<Vec<u8>> = headers
            .signature
            .split(' ')
            .take(SIGNATURES_MAX)
            .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
            .collect();
        let mut holds = false;
        for key in &self.keys {
            let mac = key.clone().chain_update(signed_part(headers)).chain_update(body);
            for signature in &signatures {
                holds |= mac.clone().verify_slice(signature).is_ok();
            }
        }
        if holds { Ok(sent_at) } else { Err(Forged) }
    }

    /// The value of `webhook-signature` with the first secret, for whoever sends.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let timestamp = timestamp_s.to_string();
        let headers = SignedHeaders { id, timestamp: &timestamp, signature: "" };
        let mac = self.keys[0].clone().chain_update(signed_part(&headers)).chain_update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

fn key(secret: &str) -> Option<Hmac<Sha256>> {
    let bytes = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    (bytes.len() >= SECRET_BYTES_MIN).then(|| Hmac::new_from_slice(&bytes).expect("HMAC takes a key of any length"))
}

fn signed_part(headers: &SignedHeaders<'_>) -> String {
    format!("{}.{}.", headers.id, headers.timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn check(secrets: &str, id: &str, timestamp: &str, signature: &str, body: &[u8], now: i64) -> bool {
        let headers = SignedHeaders { id, timestamp, signature };
        let secrets = WebhookSecrets::parse(secrets).unwrap();
        secrets.verify(&headers, body, at(now), Duration::minutes(5)).is_ok()
    }

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIME: &str = "1614265330";
    /// From the Standard Webhooks specification.
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn the_specifications_own_example_holds() {
        assert!(check(SECRET, ID, TIME, SIGNATURE, BODY, 1_614_265_330));
        assert_eq!(WebhookSecrets::parse(SECRET).unwrap().sign(ID, 1_614_265_330, BODY), SIGNATURE);
    }

    #[test]
    fn five_minutes_either_way_and_not_a_second_more() {
        for (now, holds) in [(300, true), (-300, true), (301, false), (-301, false)] {
            assert_eq!(check(SECRET, ID, TIME, SIGNATURE, BODY, 1_614_265_330 + now), holds, "{now}");
        }
    }

    #[test]
    fn any_change_of_id_time_body_or_secret_is_noticed() {
        let now = 1_614_265_330;
        assert!(!check(SECRET, "msg_other", TIME, SIGNATURE, BODY, now));
        assert!(!check(SECRET, ID, "1614265331", SIGNATURE, BODY, now));
        assert!(!check(SECRET, ID, "01614265330", SIGNATURE, BODY, now));
        assert!(!check(SECRET, ID, "+1614265330", SIGNATURE, BODY, now));
        assert!(!check(SECRET, ID, TIME, SIGNATURE, br#"{"test": 2432232315}"#, now));
        assert!(!check(OTHER, ID, TIME, SIGNATURE, BODY, now));
    }

    #[test]
    fn text_that_is_no_signature_is_refused() {
        let bare = SIGNATURE.strip_prefix("v1,").unwrap();
        for signature in ["", "v1,", "v1", bare, "v2,x", "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "v1,!!"] {
            assert!(!check(SECRET, ID, TIME, signature, BODY, 1_614_265_330), "{signature}");
        }
        assert!(!check(SECRET, "", TIME, SIGNATURE, BODY, 1_614_265_330));
        for timestamp in ["", "x", "9223372036854775807", "-99999999999999"] {
            assert!(!check(SECRET, ID, timestamp, SIGNATURE, BODY, 1_614_265_330), "{timestamp}");
        }
    }

    #[test]
    fn either_of_two_secrets_and_either_of_two_signatures_will_do() {
        let now = 1_614_265_330;
        assert!(check(&format!("{OTHER},{SECRET}"), ID, TIME, SIGNATURE, BODY, now));
        assert!(check(&format!("{SECRET}, {OTHER}"), ID, TIME, SIGNATURE, BODY, now));
        let both = format!("{} {SIGNATURE}", WebhookSecrets::parse(OTHER).unwrap().sign(ID, now, BODY));
        assert!(check(SECRET, ID, TIME, &both, BODY, now));
    }

    #[test]
    fn only_one_or_two_long_secrets_are_taken() {
        let three = [SECRET, SECRET, SECRET].join(",");
        for bad in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &three, &format!("{SECRET},")] {
            assert!(WebhookSecrets::parse(bad).is_err(), "{bad}");
        }
    }
}
