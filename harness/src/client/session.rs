//! The tokens of one logical client, and the old ones it keeps for later probes.

use std::time::{Duration, Instant};

use super::wire::SessionAnswer;

/// One pair of tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Operation whose answer gave them.
    pub token_op: u64,
    /// JWT.
    pub access: String,
    /// Opaque.
    pub refresh: String,
    /// When the access token was received.
    pub received: Instant,
    /// Its life as the server told it.
    pub lives: Duration,
}

/// Who a client is signed in as.
#[derive(Debug, Clone)]
pub struct Session {
    /// The tenant's id.
    pub tenant_id: String,
    /// The user's id.
    pub user_id: String,
    /// Its label in the history, e.g. `T0007/s1`.
    pub label: String,
    /// The present tokens.
    pub tokens: Tokens,
}

impl Tokens {
    /// Less than `margin` of the access token's life is left.
    pub fn is_due(&self, margin: Duration) -> bool {
        self.received.elapsed() + margin >= self.lives
    }

    /// The access token surely has expired, a leeway of 5 s included, where no clock that stamps tokens is more than
    /// `clocks_apart` ahead.
    pub fn is_surely_expired(&self, clocks_apart: Duration) -> bool {
        self.received.elapsed() > self.lives + clocks_apart + Duration::from_secs(6)
    }
}

impl Session {
    /// The session that the operation `token_op` opened or carried on under `label`.
    pub fn new(answer: SessionAnswer, label: String, token_op: u64) -> Self {
        Self {
            tenant_id: answer.tenant_id,
            user_id: answer.user_id,
            label,
            tokens: Tokens {
                token_op,
                access: answer.access_token,
                refresh: answer.refresh_token,
                received: Instant::now(),
                lives: Duration::from_secs(answer.expires_in),
            },
        }
    }
}
