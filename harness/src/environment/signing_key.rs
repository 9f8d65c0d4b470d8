//! A signing key for access tokens, made for one run.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// An Ed25519 key by its seed.
#[derive(Clone)]
pub struct SigningKey {
    /// Key id, as it stands in the token's header.
    pub kid: String,
    /// The 32 bytes that the key pair is derived from.
    pub seed: [u8; 32],
}

impl SigningKey {
    /// A random key.
    #[must_use]
    pub fn generate() -> Self {
        Self { kid: format!("k{}", hex::encode(rand::random::<[u8; 4]>())), seed: rand::random() }
    }

    /// `kid:seed`, the seed in base64url without padding: the form of `--signing-keys`.
    #[must_use]
    pub fn setting(&self) -> String {
        format!("{}:{}", self.kid, URL_SAFE_NO_PAD.encode(self.seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_differ_and_hold_43_digits() {
        let (first, second) = (SigningKey::generate(), SigningKey::generate());
        assert_ne!(first.setting(), second.setting());
        assert_eq!(first.setting().split_once(':').unwrap().1.len(), 43);
    }
}
