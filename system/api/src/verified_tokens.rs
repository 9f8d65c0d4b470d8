//! Access tokens whose signature was verified a moment ago, so that it is not verified on every request: an
//! Ed25519 verification costs as much as all the rest of an authenticated read.
//!
//! Law: this remembers what verification found, and never decides anything else. A token is known by the
//! SHA-256 of all its bytes; its times are compared on every request; whoever is unknown, expired or not yet
//! valid is verified in full. Each key set has a memory of its own, so a key that is gone takes with it what
//! it had signed. Whether the session stands is not asked here, and is asked on every request.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::tokens::{LEEWAY_S, Subject};

/// Locks that the memory is spread over.
const SHARDS: usize = 16;
/// Tokens remembered behind one lock; a full one first forgets what has expired, then everything.
const TOKENS_PER_SHARD_MAX: usize = 1_024;

/// SHA-256 of a token.
pub(crate) type TokenDigest = [u8; 32];

/// What was verified, and from when to when it holds, Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) subject: Subject,
    /// The later of issue and not-before.
    pub(crate) from_s: u64,
    /// The token's expiry.
    pub(crate) until_s: u64,
}

impl Verified {
    const fn holds_at(&self, now_s: u64) -> bool {
        self.from_s <= now_s + LEEWAY_S && now_s <= self.until_s + LEEWAY_S
    }
}

/// A bounded memory of verified tokens; about 2 MB when full.
pub(crate) struct VerifiedTokens {
    shards: [Mutex<HashMap<TokenDigest, Verified>>; SHARDS],
}

impl VerifiedTokens {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())) }
    }

    /// Names a token.
    pub(crate) fn digest(token: &str) -> TokenDigest {
        Sha256::digest(token.as_bytes()).into()
    }

    /// Whose token it is, if it was verified and its times hold.
    pub(crate) fn find(&self, token: &TokenDigest, now_s: u64) -> Option<Subject> {
        let shard = self.shard(token).lock().unwrap_or_else(PoisonError::into_inner);
        shard.get(token).filter(|verified| verified.holds_at(now_s)).map(|verified| verified.subject)
    }

    /// Remembers a token that was verified in full.
    pub(crate) fn remember(&self, token: TokenDigest, verified: Verified, now_s: u64) {
        let mut shard = self.shard(&token).lock().unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= TOKENS_PER_SHARD_MAX {
            shard.retain(|_, verified| verified.holds_at(now_s));
            if shard.len() >= TOKENS_PER_SHARD_MAX {
                shard.clear();
            }
        }
        shard.insert(token, verified);
    }

    fn shard(&self, token: &TokenDigest) -> &Mutex<HashMap<TokenDigest, Verified>> {
        &self.shards[usize::from(token[0]) % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use forecastle_domain::{SessionId, TenantId, UserId};
    use uuid::Uuid;

    use super::*;

    fn verified(from_s: u64, until_s: u64) -> Verified {
        let id = Uuid::from_u128;
        let subject = Subject {
            tenant: TenantId::from_uuid(id(1)),
            user: UserId::from_uuid(id(2)),
            session: SessionId::from_uuid(id(3)),
        };
        Verified { subject, from_s, until_s }
    }

    #[test]
    fn a_token_is_known_only_within_its_own_times_and_by_all_its_bytes() {
        let memory = VerifiedTokens::new();
        let token = VerifiedTokens::digest("a.b.c");
        assert_eq!(memory.find(&token, 1_000), None);
        memory.remember(token, verified(1_000, 1_300), 1_000);
        assert_eq!(memory.find(&token, 1_000), Some(verified(1_000, 1_300).subject));
        assert_eq!(memory.find(&VerifiedTokens::digest("a.b.d"), 1_000), None);
        assert!(memory.find(&token, 1_300 + LEEWAY_S).is_some());
        assert_eq!(memory.find(&token, 1_301 + LEEWAY_S), None, "expired");
        assert_eq!(memory.find(&token, 999 - LEEWAY_S), None, "a clock that was set back");
    }

    #[test]
    fn the_memory_is_bounded_and_prefers_what_still_holds() {
        let memory = VerifiedTokens::new();
        let first_byte_0 = |n: u32| {
            let mut token = [0; 32];
            token[28..].copy_from_slice(&n.to_be_bytes());
            token
        };
        for n in 0..TOKENS_PER_SHARD_MAX as u32 {
            let until = if n == 7 { 9_999 } else { 1_300 };
            memory.remember(first_byte_0(n), verified(1_000, until), 1_000);
        }
        memory.remember(first_byte_0(u32::MAX), verified(5_000, 9_999), 5_000);
        assert!(memory.find(&first_byte_0(7), 5_000).is_some(), "one that holds is kept");
        assert!(memory.find(&first_byte_0(u32::MAX), 5_000).is_some());
        for n in 0..10 * TOKENS_PER_SHARD_MAX as u32 {
            memory.remember(first_byte_0(n), verified(5_000, 9_999), 5_000);
            assert!(memory.shards[0].lock().unwrap().len() <= TOKENS_PER_SHARD_MAX);
        }
    }
}
