//! Access tokens: short-lived JWTs signed with Ed25519, and the public half for others to verify.
//!
//! Law: one algorithm, a known key, the exact type, every claim present and of its type. What the
//! token says about how to verify it (embedded keys, URLs, critical extensions) is refused, not
//! followed. A good token is not yet a session: that is checked apart, on every request.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forecastle_domain::{SessionId, TenantId, UserId};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::verified_tokens::{Verified, VerifiedTokens};

/// Issuer of every access token.
pub const ISSUER: &str = "forecastle";
/// The only audience accepted.
pub const AUDIENCE: &str = "forecastle-api";
/// Clock difference between two instances that is forgiven, seconds.
pub const LEEWAY_S: u64 = 5;
/// Longest lifetime an access token may have, seconds: the setting's own upper bound.
pub const LIFETIME_S_MAX: u64 = 24 * 3600;
/// Media type of an access token (RFC 9068).
const TOKEN_TYPE: &str = "at+jwt";
/// Longest token looked at, bytes; ours have about 450.
const TOKEN_BYTES_MAX: usize = 2048;
/// Keys a set may hold.
const KEYS_MAX: usize = 8;
/// DER that comes before the 32 bytes of an Ed25519 seed in PKCS#8 (RFC 8410).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why a list of signing keys was refused. Never repeats key material.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Empty, or more than eight keys.
    #[error("give one to eight signing keys")]
    Count,
    /// An entry is not `kid:seed`, or the kid is not 1 to 64 of A-Z a-z 0-9 - _ .
    #[error("a signing key is written kid:seed")]
    Shape,
    /// A seed is not 32 bytes of unpadded base64url.
    #[error("a signing key's seed is 32 bytes in base64url without padding")]
    Seed,
    /// Two keys have one kid.
    #[error("two signing keys have the same kid")]
    Duplicate,
}

struct Key {
    kid: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
    public_x: String,
    /// Key of the refresh tokens that follow others while this key signs.
    lineage: [u8; 32],
}

/// The signing keys of an installation; the first signs, all verify, so that keys can rotate.
#[derive(Clone)]
pub struct KeySet {
    keys: Arc<[Key]>,
    verified: Arc<VerifiedTokens>,
}

impl std::fmt::Debug for KeySet {
    /// Names the kids only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.kid)).finish()
    }
}

/// Why a token was refused; told to nobody but a metric, the answer is always the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("access token refused")]
pub struct TokenRefused;

/// What a verified token asserts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Whose data the bearer may touch.
    pub tenant: TenantId,
    /// Who bears it.
    pub user: UserId,
    /// The session it was issued in.
    pub session: SessionId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: Uuid,
    tid: Uuid,
    sid: Uuid,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: Uuid,
}

impl KeySet {
    /// Reads `kid:seed[,kid2:seed2…]`, each seed 32 bytes in unpadded base64url. Entries may stand on lines
    /// of their own, beside empty lines and lines that begin with `#`.
    ///
    /// # Errors
    /// What is wrong with the list.
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        let mut keys: Vec<Key> = Vec::new();
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        for entry in lines.flat_map(|line| line.split(',')).map(str::trim).filter(|entry| !entry.is_empty()) {
            let (kid, seed) = entry.split_once(':').ok_or(KeySetError::Shape)?;
            let kid_is_plain = kid.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if kid.is_empty() || kid.len() > 64 || !kid_is_plain {
                return Err(KeySetError::Shape);
            }
            if keys.iter().any(|key| key.kid == kid) {
                return Err(KeySetError::Duplicate);
            }
            let seed: [u8; 32] =
                URL_SAFE_NO_PAD.decode(seed).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(KeySetError::Seed)?;
            keys.push(Key::from_seed(kid, &seed)?);
        }
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(KeySetError::Count);
        }
        Ok(Self { keys: keys.into(), verified: Arc::new(VerifiedTokens::new()) })
    }

    /// Signs a token for a session, valid from `now_s` (Unix seconds) for `ttl`.
    #[must_use]
    pub fn issue(&self, subject: Subject, now_s: u64, ttl: Duration) -> String {
        let key = &self.keys[0];
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid = Some(key.kid.clone());
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: subject.user.as_uuid(),
            tid: subject.tenant.as_uuid(),
            sid: subject.session.as_uuid(),
            iat: now_s,
            nbf: now_s,
            exp: now_s + ttl.as_secs(),
            jti: Uuid::new_v4(),
        };
        jsonwebtoken::encode(&header, &claims, &key.encoding).expect("a checked Ed25519 key signs")
    }

    /// Verifies a token completely, against this machine's clock; its signature only where this set has not
    /// found it good before.
    ///
    /// # Errors
    /// `TokenRefused`, whatever the reason.
    pub fn verify(&self, token: &str) -> Result<Subject, TokenRefused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefused);
        }
        let (digest, now_s) = (VerifiedTokens::digest(token), jsonwebtoken::get_current_timestamp());
        if let Some(subject) = self.verified.find(&digest, now_s) {
            return Ok(subject);
        }
        let verified = self.verify_in_full(token)?;
        self.verified.remember(digest, verified, now_s);
        Ok(verified.subject)
    }

    fn verify_in_full(&self, token: &str) -> Result<Verified, TokenRefused> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenRefused)?;
        let key = self.key_for(&header)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        let claims =
            jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation).map_err(|_| TokenRefused)?.claims;
        let issued_in_future = claims.iat > jsonwebtoken::get_current_timestamp() + LEEWAY_S;
        if claims.iss != ISSUER || claims.aud != AUDIENCE || issued_in_future || claims.exp <= claims.iat {
            return Err(TokenRefused);
        }
        // Ours never live this long, so one that does is somebody's who got at a key.
        if claims.exp - claims.iat > LIFETIME_S_MAX {
            return Err(TokenRefused);
        }
        let subject = Subject {
            tenant: TenantId::from_uuid(claims.tid),
            user: UserId::from_uuid(claims.sub),
            session: SessionId::from_uuid(claims.sid),
        };
        Ok(Verified { subject, from_s: claims.iat.max(claims.nbf), until_s: claims.exp })
    }

    /// The public keys as a JWK set (RFC 7517), the signing one first.
    #[must_use]
    pub fn public_jwks(&self) -> serde_json::Value {
        let keys: Vec<_> = self
            .keys
            .iter()
            .map(|key| {
                serde_json::json!({
                    "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.kid, "x": key.public_x,
                })
            })
            .collect();
        serde_json::json!({ "keys": keys })
    }

    /// What may follow the refresh token `parent`: under the signing key, then under each other one. The same
    /// on every instance with the same keys, so that two honest refreshes of one token inside the grace are
    /// told the same successor, also where the signing key changed in between.
    pub fn refresh_successors(&self, parent: &[u8; 32]) -> impl Iterator<Item = [u8; 32]> {
        self.keys.iter().map(|key| keyed_digest(&key.lineage, parent))
    }

    fn key_for(&self, header: &Header) -> Result<&Key, TokenRefused> {
        let tells_how_to_verify = header.jku.is_some()
            || header.jwk.is_some()
            || header.x5u.is_some()
            || header.x5c.is_some()
            || header.x5t.is_some()
            || header.x5t_s256.is_some()
            || header.crit.is_some()
            || header.enc.is_some()
            || header.url.is_some()
            || header.nonce.is_some()
            || header.zip.is_some()
            || header.cty.is_some()
            || !header.extras.inner().is_empty();
        if header.alg != Algorithm::EdDSA || header.typ.as_deref() != Some(TOKEN_TYPE) || tells_how_to_verify {
            return Err(TokenRefused);
        }
        let kid = header.kid.as_deref().ok_or(TokenRefused)?;
        self.keys.iter().find(|key| key.kid == kid).ok_or(TokenRefused)
    }
}

impl Key {
    fn from_seed(kid: &str, seed: &[u8; 32]) -> Result<Self, KeySetError> {
        let encoding = EncodingKey::from_ed_der(&[PKCS8_PREFIX.as_slice(), seed].concat());
        let jwk = Jwk::from_encoding_key(&encoding, Algorithm::EdDSA).map_err(|_| KeySetError::Seed)?;
        let AlgorithmParameters::OctetKeyPair(pair) = &jwk.algorithm else { return Err(KeySetError::Seed) };
        let decoding = DecodingKey::from_ed_components(&pair.x).map_err(|_| KeySetError::Seed)?;
        let lineage = keyed_digest(seed, b"forecastle refresh lineage");
        Ok(Self { kid: kid.to_owned(), encoding, decoding, public_x: pair.x.clone(), lineage })
    }
}

fn keyed_digest(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SEED_A: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    const SEED_B: &str = "_wECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

    fn keys() -> KeySet {
        KeySet::parse(&format!("a:{SEED_A}")).unwrap()
    }

    fn subject() -> Subject {
        let id = |n| Uuid::from_u128(n);
        Subject {
            tenant: TenantId::from_uuid(id(1)),
            user: UserId::from_uuid(id(2)),
            session: SessionId::from_uuid(id(3)),
        }
    }

    fn now_s() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn claims() -> Value {
        let now = now_s();
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject().user, "tid": subject().tenant, "sid": subject().session,
            "iat": now, "nbf": now, "exp": now + 300, "jti": Uuid::from_u128(4),
        })
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "kid": "a", "typ": "at+jwt"})
    }

    fn part(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    fn signed(header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let key = &keys().keys[0].encoding.clone();
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn with(mut base: Value, field: &str, value: Value) -> Value {
        base[field] = value;
        base
    }

    fn without(mut base: Value, field: &str) -> Value {
        base.as_object_mut().unwrap().remove(field);
        base
    }

    #[test]
    fn an_issued_token_verifies_to_its_own_subject() {
        let token = keys().issue(subject(), now_s(), Duration::from_secs(300));
        assert_eq!(keys().verify(&token), Ok(subject()));
        assert_eq!(keys().verify(&signed(&header(), &claims())), Ok(subject()));
    }

    #[test]
    fn tokens_signed_before_a_rotation_still_verify_and_the_first_key_signs() {
        let rotated = KeySet::parse(&format!("b:{SEED_B},a:{SEED_A}")).unwrap();
        let old = keys().issue(subject(), now_s(), Duration::from_secs(300));
        assert_eq!(rotated.verify(&old), Ok(subject()));
        let new = rotated.issue(subject(), now_s(), Duration::from_secs(300));
        assert_eq!(keys().verify(&new), Err(TokenRefused), "an instance without the new key refuses it");
        let published = rotated.public_jwks();
        assert_eq!(published["keys"][0]["kid"], "b");
        assert_eq!(published["keys"][1]["kid"], "a");
        assert!(!published.to_string().contains(SEED_A));
    }

    #[test]
    fn a_token_without_signature_or_algorithm_is_refused() {
        let unsigned = format!("{}.{}.", part(&with(header(), "alg", json!("none"))), part(&claims()));
        assert_eq!(keys().verify(&unsigned), Err(TokenRefused));
        let stripped = signed(&header(), &claims());
        let stripped = &stripped[..=stripped.rfind('.').unwrap()];
        assert_eq!(keys().verify(stripped), Err(TokenRefused));
    }

    #[test]
    fn a_token_signed_with_the_public_key_as_a_shared_secret_is_refused() {
        let public = keys().keys[0].public_x.clone();
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid = Some("a".to_owned());
        for secret in [public.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(&public).unwrap()] {
            let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
            assert_eq!(keys().verify(&token), Err(TokenRefused));
        }
    }

    #[test]
    fn every_claim_is_required() {
        for claim in ["iss", "aud", "sub", "tid", "sid", "iat", "nbf", "exp", "jti"] {
            let token = signed(&header(), &without(claims(), claim));
            assert_eq!(keys().verify(&token), Err(TokenRefused), "{claim} missing");
            let token = signed(&header(), &with(claims(), claim, Value::Null));
            assert_eq!(keys().verify(&token), Err(TokenRefused), "{claim} null");
        }
    }

    #[test]
    fn claims_of_another_type_are_refused() {
        let now = now_s();
        for (claim, value) in [
            ("exp", json!("never")),
            ("exp", json!((now + 300).to_string())),
            ("exp", json!(now as f64 + 300.5)),
            ("exp", json!([now + 300])),
            ("nbf", json!("0")),
            ("iat", json!(true)),
            ("iss", json!([ISSUER])),
            ("aud", json!([AUDIENCE])),
            ("sub", json!(7)),
            ("sid", json!("not a uuid")),
            ("admin", json!(true)),
        ] {
            let token = signed(&header(), &with(claims(), claim, value.clone()));
            assert_eq!(keys().verify(&token), Err(TokenRefused), "{claim} = {value}");
        }
    }

    #[test]
    fn times_hold_within_the_leeway_and_not_beyond() {
        let now = now_s();
        let at = |iat: u64, nbf: u64, exp: u64| {
            let timed = with(with(with(claims(), "iat", json!(iat)), "nbf", json!(nbf)), "exp", json!(exp));
            keys().verify(&signed(&header(), &timed))
        };
        assert!(at(now - 60, now - 60, now - LEEWAY_S + 2).is_ok());
        assert!(at(now - 60, now - 60, now - LEEWAY_S - 1).is_err());
        assert!(at(now - 60, now + LEEWAY_S + 5, now + 60).is_err());
        assert!(at(now + LEEWAY_S + 5, now - 60, now + 60).is_err());
    }

    #[test]
    fn another_issuer_audience_type_or_key_is_refused() {
        for claims in [with(claims(), "iss", json!("else")), with(claims(), "aud", json!("else"))] {
            assert_eq!(keys().verify(&signed(&header(), &claims)), Err(TokenRefused));
        }
        for header in [
            with(header(), "typ", json!("JWT")),
            without(header(), "typ"),
            with(header(), "kid", json!("b")),
            without(header(), "kid"),
        ] {
            assert_eq!(keys().verify(&signed(&header, &claims())), Err(TokenRefused), "{header}");
        }
        let foreign = KeySet::parse(&format!("a:{SEED_B}")).unwrap();
        let token = foreign.issue(subject(), now_s(), Duration::from_secs(300));
        assert_eq!(keys().verify(&token), Err(TokenRefused));
    }

    #[test]
    fn headers_that_tell_how_to_verify_are_refused() {
        let own = json!({"kty": "OKP", "crv": "Ed25519", "x": keys().keys[0].public_x});
        for (name, value) in [
            ("jwk", own),
            ("jku", json!("https://example.com/keys")),
            ("x5u", json!("https://example.com/cert")),
            ("x5c", json!(["AAAA"])),
            ("crit", json!(["exp"])),
            ("b64", json!(false)),
            ("cty", json!("JWT")),
        ] {
            let token = signed(&with(header(), name, value), &claims());
            assert_eq!(keys().verify(&token), Err(TokenRefused), "{name}");
        }
    }

    #[test]
    fn rubbish_is_refused_without_a_panic() {
        for token in ["", ".", "..", "a.b.c", "ä.ä.ä", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(keys().verify(token), Err(TokenRefused));
        }
        let token = signed(&header(), &claims());
        for cut in [0, 1, token.len() / 2, token.len() - 1] {
            assert_eq!(keys().verify(&token[..cut]), Err(TokenRefused));
        }
    }

    #[test]
    fn ill_formed_key_lists_are_refused_and_secrets_are_not_shown() {
        let of = |text: &str| KeySet::parse(text).map(|_| ()).unwrap_err();
        assert_eq!(of(""), KeySetError::Count);
        assert_eq!(of("a"), KeySetError::Shape);
        assert_eq!(of(":x"), KeySetError::Shape);
        assert_eq!(of("a:AAAA"), KeySetError::Seed);
        assert_eq!(of(&format!("a:{SEED_A},a:{SEED_B}")), KeySetError::Duplicate);
        assert_eq!(format!("{:?}", keys()), "[\"a\"]");
    }

    #[test]
    fn a_refresh_token_has_the_same_successors_wherever_the_keys_are_the_same() {
        let of = |keys: &KeySet, parent| keys.refresh_successors(&[parent; 32]).collect::<Vec<_>>();
        let before = of(&keys(), 7);
        assert_eq!((before.len(), &before), (1, &of(&keys(), 7)));
        assert_ne!(before, of(&keys(), 8));
        let rotated = of(&KeySet::parse(&format!("b:{SEED_B},a:{SEED_A}")).unwrap(), 7);
        assert_eq!(rotated[1], before[0], "the line of before the rotation is still known");
        assert_ne!(rotated[0], before[0]);
    }

    #[test]
    fn a_key_file_may_hold_comments_and_one_key_on_a_line() {
        let keys = KeySet::parse(&format!("# next\nb:{SEED_B}\n\n# until Friday: c:x\n  a:{SEED_A}\n")).unwrap();
        assert_eq!(format!("{keys:?}"), "[\"b\", \"a\"]");
    }
}
