//! What the interface knows about mail: how tokens are made, how long they hold, how often they go out.
//!
//! Not for sending: mails go into the outbox, and a process of its own takes them from there.

use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use forecastle_domain::{TokenPurpose, UserId};
use forecastle_store::mail_tokens::{self, MailToken, MailTokenKey};
use forecastle_store::{StoreError, TenantTx};

use crate::error::ApiError;

/// Settings of mails that carry a token.
#[derive(Debug, Clone)]
pub struct MailConfig {
    /// The key tokens are derived under; the sender of mails has the same.
    pub token_key: MailTokenKey,
    /// How long a verification token holds.
    pub verification_ttl: Duration,
    /// How long a reset token holds.
    pub reset_ttl: Duration,
    /// One mail of a purpose goes to a user in each of these; at least a second.
    pub interval: Duration,
    /// Shortest time in which the request for a reset is answered.
    pub reset_answer_floor: Duration,
}

impl MailConfig {
    /// The documented defaults: three days, one hour, one a minute, 250 ms.
    #[must_use]
    pub const fn new(token_key: MailTokenKey) -> Self {
        Self {
            token_key,
            verification_ttl: Duration::from_secs(3 * 24 * 3600),
            reset_ttl: Duration::from_secs(3600),
            interval: Duration::from_secs(60),
            reset_answer_floor: Duration::from_millis(250),
        }
    }

    /// Puts a token's mail into the outbox, unless one went there in this interval.
    pub(crate) async fn issue(
        &self,
        tx: &mut TenantTx,
        user: UserId,
        purpose: TokenPurpose,
    ) -> Result<bool, StoreError> {
        let ttl = match purpose {
            TokenPurpose::EmailVerification => self.verification_ttl,
            TokenPurpose::PasswordReset => self.reset_ttl,
        };
        let interval_ms = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let dedup_key = format!("{purpose} {user} {}", Utc::now().timestamp_millis() / interval_ms);
        mail_tokens::issue(tx, &self.token_key, user, purpose, ttl, &dedup_key).await
    }

    /// 401: nobody's token, or used, or over.
    pub(crate) fn token_refused() -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_token").detail("This link does not hold any more.")
    }
}

/// A token as it came back.
pub(crate) fn read_token(text: &str) -> Result<MailToken, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(MailToken).ok_or_else(MailConfig::token_refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_32_bytes_of_base64url_can_be_a_token() {
        let good = URL_SAFE_NO_PAD.encode([5; 32]);
        assert_eq!(read_token(&good).ok(), Some(MailToken([5; 32])));
        for bad in ["", "abc", &format!("{good}="), &URL_SAFE_NO_PAD.encode([5; 31]), "ä"] {
            assert_eq!(read_token(bad).err().map(|error| error.code()), Some("invalid_token"));
        }
    }
}
