//! Access tokens that must never be let in, made from a good one.
//!
//! Only what an attacker could do is done here: the signing key is never known. Expired and revoked tokens are real ones
//! that the clients kept; they do not come from here.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// What an attacker has: a token of its own and the published keys.
#[derive(Debug, Clone)]
pub struct Forger {
    own_key: SigningKey,
    jwks: Value,
}

/// Ways to forge. Each yields one bearer value, or none where the material is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forgery {
    /// Letters that are no token.
    Garbage,
    /// Right header and claims, signed with the attacker's key.
    ForgedSignature,
    /// `alg: none`, no signature.
    AlgorithmNone,
    /// HS256 with the public key as the secret.
    PublicKeyAsSecret,
    /// Claims changed to another tenant and a far expiry, the old signature kept.
    AlteredClaims,
    /// The attacker's key offered in the header's `jwk`.
    EmbeddedKey,
    /// Attacker's signature, another audience and type: what a token of another service looks like.
    OtherService,
    /// The signature cut off.
    CutSignature,
}

impl Forgery {
    /// All of them, in a fixed order.
    pub const ALL: [Self; 8] = [
        Self::Garbage,
        Self::ForgedSignature,
        Self::AlgorithmNone,
        Self::PublicKeyAsSecret,
        Self::AlteredClaims,
        Self::EmbeddedKey,
        Self::OtherService,
        Self::CutSignature,
    ];

    /// As it stands in the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::ForgedSignature => "wrong_key",
            Self::AlgorithmNone => "alg_none",
            Self::PublicKeyAsSecret => "hs256_public_key",
            Self::AlteredClaims => "altered_claims",
            Self::EmbeddedKey => "embedded_key",
            Self::OtherService => "other_service",
            Self::CutSignature => "cut_signature",
        }
    }
}

impl Forger {
    /// An attacker with the key of `key_seed` who has read the JWKS document.
    pub fn new(key_seed: [u8; 32], jwks: Value) -> Self {
        Self { own_key: SigningKey::from_bytes(&key_seed), jwks }
    }

    /// The bearer value of `forgery`, made from `good` and aimed at the tenant `victim`. None where `good` is no JWT
    /// or the JWKS holds no key.
    pub fn forge(&self, forgery: Forgery, good: &str, victim: &str) -> Option<String> {
        let mut parts = good.split('.');
        let (header_part, claims_part, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header_part).ok()?).ok()?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims_part).ok()?).ok()?;
        Some(match forgery {
            Forgery::Garbage => "not.a-token.at~all".replace('~', "-"),
            Forgery::ForgedSignature => self.sign(&header, &claims),
            Forgery::AlgorithmNone => {
                let header = with(&header, "alg", json!("none"));
                format!("{}.{}.", part(&header), part(&claims))
            }
            Forgery::PublicKeyAsSecret => self.sign_with_public_key(&header, &claims)?,
            Forgery::AlteredClaims => {
                let claims = with(&with(&claims, "tid", json!(victim)), "exp", json!(4_102_444_800_u64));
                format!("{header_part}.{}.{signature}", part(&claims))
            }
            Forgery::EmbeddedKey => {
                let x = URL_SAFE_NO_PAD.encode(self.own_key.verifying_key().as_bytes());
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
                self.sign(&with(&header, "jwk", jwk), &claims)
            }
            Forgery::OtherService => {
                let claims = with(&with(&claims, "aud", json!("other-api")), "tid", json!(victim));
                self.sign(&with(&header, "typ", json!("JWT")), &claims)
            }
            Forgery::CutSignature => format!("{header_part}.{claims_part}."),
        })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.own_key.sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }

    /// Works against a verifier that lets the token choose the algorithm.
    fn sign_with_public_key(&self, header: &Value, claims: &Value) -> Option<String> {
        let keys = self.jwks["keys"].as_array()?;
        let key = keys.iter().find(|key| key["kid"] == header["kid"]).or_else(|| keys.first())?;
        let secret = URL_SAFE_NO_PAD.decode(key["x"].as_str()?).ok()?;
        let message = format!("{}.{}", part(&with(header, "alg", json!("HS256"))), part(claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).ok()?;
        mac.update(message.as_bytes());
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
    }
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn with(value: &Value, key: &str, new: Value) -> Value {
    let mut changed = value.clone();
    changed[key] = new;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::Verifier;
    use std::collections::BTreeSet;

    fn good() -> (String, SigningKey, Value) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
        let jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x}]});
        let header = json!({"alg": "EdDSA", "kid": "k1", "typ": "at+jwt"});
        let claims = json!({"tid": "tenant-a", "aud": "forecastle-api", "exp": 1});
        let message = format!("{}.{}", part(&header), part(&claims));
        let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).to_bytes()));
        (token, key, jwks)
    }

    #[test]
    fn no_forgery_verifies_under_the_real_key() {
        let (token, key, jwks) = good();
        let forger = Forger::new([9; 32], jwks);
        let mut forged = BTreeSet::new();
        for forgery in Forgery::ALL {
            let bearer = forger.forge(forgery, &token, "tenant-b").expect("material is there");
            assert_ne!(bearer, token);
            if let Some((message, signature)) = bearer.rsplit_once('.') {
                let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
                let verified = ed25519_dalek::Signature::from_slice(&bytes)
                    .is_ok_and(|signature| key.verifying_key().verify(message.as_bytes(), &signature).is_ok());
                assert!(!verified, "{}", forgery.name());
            }
            forged.insert(bearer);
        }
        assert_eq!(forged.len(), Forgery::ALL.len());
    }

    #[test]
    fn altered_claims_name_the_victim() {
        let (token, _, jwks) = good();
        let bearer = Forger::new([9; 32], jwks).forge(Forgery::AlteredClaims, &token, "tenant-b").expect("forged");
        let claims = URL_SAFE_NO_PAD.decode(bearer.split('.').nth(1).expect("claims")).expect("base64");
        let claims: Value = serde_json::from_slice(&claims).expect("json");
        assert_eq!(claims["tid"], "tenant-b");
    }

    #[test]
    fn without_published_keys_there_is_no_public_key_to_misuse() {
        let (token, _, _) = good();
        let forger = Forger::new([9; 32], json!({"keys": []}));
        assert_eq!(forger.forge(Forgery::PublicKeyAsSecret, &token, "b"), None);
    }
}
