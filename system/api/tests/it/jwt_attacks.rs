//! The known attacks on JSON web tokens, each sent to a real instance, each refused with 401; beside each
//! the honest token, which goes on being let in.
//!
//! The tokens here are put together byte by byte, with the instance's own key where the attack needs a good
//! signature, so that only the thing under attack is wrong with them.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixtures::{Instance, config, text};
use crate::servers::Servers;

/// Seed of the instance's only key; the fixtures configure it under the name `test`.
const SEED: [u8; 32] = [7; 32];
/// The order of Ed25519's group, little-endian: 2^252 + 27742317777372353535851937790883648493.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn part(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn key_of(seed: [u8; 32]) -> EncodingKey {
    let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    EncodingKey::from_ed_der(&[prefix.as_slice(), &seed].concat())
}

fn sign_with(seed: [u8; 32], header: &str, claims: &str) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key_of(seed), Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}")
}

fn sign(header: &Value, claims: &Value) -> String {
    sign_with(SEED, &header.to_string(), &claims.to_string())
}

fn with(base: &Value, field: &str, value: Value) -> Value {
    let mut changed = base.clone();
    changed[field] = value;
    changed
}

fn without(base: &Value, field: &str) -> Value {
    let mut changed = base.clone();
    changed.as_object_mut().unwrap().remove(field);
    changed
}

fn header() -> Value {
    json!({"alg": "EdDSA", "kid": "test", "typ": "at+jwt"})
}

/// An instance, a customer's claims on it, and the public half of its key.
struct Target {
    api: Instance,
    claims: Value,
    public_x: String,
    _servers: Servers,
}

impl Target {
    async fn start() -> Self {
        let servers = Servers::start().await;
        let api = Instance::start(config(&servers)).await;
        let session = api.sign_up("ada", "FREE").await;
        let jwks = api.send(Method::GET, "/.well-known/jwks.json", None, &[], None).await.expect(200).json();
        let public_x = text(&jwks["keys"][0], "x").to_owned();
        let claims = claims_of(&session);
        let target = Self { api, claims, public_x, _servers: servers };
        target.lets_in("the token as issued", text(&session, "access_token")).await;
        target
    }

    /// The honest twin of every attack.
    fn honest(&self) -> String {
        sign(&header(), &self.claims)
    }

    async fn lets_in(&self, what: &str, token: &str) {
        let answer = self.api.get("/v1/me", token).await;
        assert_eq!(answer.status.as_u16(), 200, "{what}: {}", answer.text);
    }

    async fn refuses(&self, what: &str, token: &str) {
        let answer = self.api.get("/v1/me", token).await;
        assert_eq!(answer.code(), (401, "unauthenticated".to_owned()), "{what}: {token}");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{what}");
        self.lets_in(what, &self.honest()).await;
    }

    async fn refuses_all(&self, attacks: impl IntoIterator<Item = (String, String)>) {
        let mut tried = 0;
        for (what, token) in attacks {
            self.refuses(&what, &token).await;
            tried += 1;
        }
        assert!(tried > 0);
    }
}

fn claims_of(session: &Value) -> Value {
    let now = now_s();
    json!({
        "iss": "forecastle", "aud": "forecastle-api", "sub": session["user_id"], "tid": session["tenant_id"],
        "sid": session["session_id"], "iat": now, "nbf": now, "exp": now + 300, "jti": Uuid::from_u128(1),
    })
}

#[tokio::test]
async fn no_algorithm_but_ours_is_taken() {
    let target = Target::start().await;
    let (message, signature) = {
        let honest = target.honest();
        let (message, signature) = honest.rsplit_once('.').unwrap();
        (message.to_owned(), signature.to_owned())
    };
    let claims = message.split('.').nth(1).unwrap().to_owned();
    let mut attacks = vec![
        ("signature left out".to_owned(), format!("{message}.")),
        ("signature and its dot left out".to_owned(), message.clone()),
    ];
    for alg in ["none", "None", "NONE", "nOnE", "", "RS256", "ES256", "PS512", "HS512", "eddsa", "Ed25519"] {
        let head = part(&with(&header(), "alg", json!(alg)).to_string());
        attacks.push((format!("alg {alg:?} unsigned"), format!("{head}.{claims}.")));
        attacks.push((format!("alg {alg:?} with our signature"), format!("{head}.{claims}.{signature}")));
    }
    for alg in [Value::Null, json!(["EdDSA"]), json!(0)] {
        attacks.push((format!("alg {alg}"), sign(&with(&header(), "alg", alg.clone()), &target.claims)));
    }
    attacks.push(("no alg".to_owned(), sign(&without(&header(), "alg"), &target.claims)));
    // The public key is public: who verifies with it as a shared secret lets everybody in.
    let raw = URL_SAFE_NO_PAD.decode(&target.public_x).unwrap();
    let der = [[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0].as_slice(), &raw].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": target.public_x}).to_string();
    for (form, secret) in [
        ("raw", raw),
        ("base64url", target.public_x.clone().into_bytes()),
        ("DER", der),
        ("PEM", pem.into_bytes()),
        ("JWK", jwk.into_bytes()),
        ("empty", Vec::new()),
    ] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let message = format!("{}.{claims}", part(&with(&header(), "alg", json!(algorithm)).to_string()));
            let key = EncodingKey::from_secret(&secret);
            let mac = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
            attacks.push((format!("{algorithm:?} with the public key, {form}"), format!("{message}.{mac}")));
        }
    }
    target.refuses_all(attacks).await;
}

#[tokio::test]
async fn the_key_is_looked_up_by_its_exact_name_and_nowhere_else() {
    let target = Target::start().await;
    let attacker = [9; 32];
    let own_jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "test", "x": target.public_x, "d": part("x")});
    let mut attacks = vec![("no kid".to_owned(), sign(&without(&header(), "kid"), &target.claims))];
    for kid in [
        json!("../../../../dev/null"),
        json!("/dev/null"),
        json!("' UNION SELECT 'AAAA' --"),
        json!("test' OR '1'='1"),
        json!("test\u{0}"),
        json!("TEST"),
        json!("test "),
        json!("https://attacker.example/key"),
        json!("; sleep 5"),
        json!("unknown"),
        json!(""),
        json!("x".repeat(1000)),
        json!(0),
        json!(["test"]),
        json!({"test": 1}),
        Value::Null,
    ] {
        let forged = with(&header(), "kid", kid.clone());
        attacks.push((format!("kid {kid}, our signature"), sign(&forged, &target.claims)));
        let token = sign_with(attacker, &forged.to_string(), &target.claims.to_string());
        attacks.push((format!("kid {kid}, the attacker's signature"), token));
    }
    for (field, value) in [
        ("jwk", own_jwk.clone()),
        ("jku", json!("https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("enc", json!("A256GCM")),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
        ("url", json!("https://attacker.example")),
    ] {
        let forged = with(&header(), field, value.clone());
        // Even with a good signature: what we do not issue we do not take.
        attacks.push((format!("{field} {value}, our signature"), sign(&forged, &target.claims)));
        let token = sign_with(attacker, &forged.to_string(), &target.claims.to_string());
        attacks.push((format!("{field} {value}, the attacker's signature"), token));
    }
    let unencoded = with(&with(&header(), "b64", json!(false)), "crit", json!(["b64"]));
    let message = format!("{}.{}", part(&unencoded.to_string()), target.claims);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key_of(SEED), Algorithm::EdDSA).unwrap();
    let detached = format!("{}..{signature}", part(&unencoded.to_string()));
    attacks.push(("unencoded payload, left out".to_owned(), detached));
    for typ in [json!("JWT"), json!("jwt"), json!("AT+JWT"), json!("application/at+jwt"), json!("refresh"), json!(1)] {
        attacks.push((format!("typ {typ}"), sign(&with(&header(), "typ", typ.clone()), &target.claims)));
    }
    attacks.push(("no typ".to_owned(), sign(&without(&header(), "typ"), &target.claims)));
    target.refuses_all(attacks).await;
}

#[tokio::test]
async fn every_claim_is_there_once_of_its_type_and_within_its_time() {
    let target = Target::start().await;
    let now = now_s();
    let mut attacks = Vec::new();
    for claim in ["iss", "aud", "sub", "tid", "sid", "iat", "nbf", "exp", "jti"] {
        attacks.push((format!("no {claim}"), sign(&header(), &without(&target.claims, claim))));
        attacks.push((format!("{claim} null"), sign(&header(), &with(&target.claims, claim, Value::Null))));
        let text = target.claims.to_string();
        let again = format!("{},\"{claim}\":{}}}", &text[..text.len() - 1], target.claims[claim]);
        attacks.push((format!("{claim} twice"), sign_with(SEED, &header().to_string(), &again)));
        let first = format!("{{\"{claim}\":{},{}", target.claims[claim], &text[1..]);
        attacks.push((format!("{claim} twice, first"), sign_with(SEED, &header().to_string(), &first)));
    }
    for field in ["alg", "kid", "typ"] {
        let text = header().to_string();
        let again = format!("{},\"{field}\":{}}}", &text[..text.len() - 1], header()[field]);
        attacks.push((format!("{field} twice"), sign_with(SEED, &again, &target.claims.to_string())));
    }
    for (claim, value) in [
        ("exp", json!((now + 300).to_string())),
        ("exp", json!("never")),
        ("exp", json!(now as f64 + 300.5)),
        ("exp", json!(1e300)),
        ("exp", json!(-1)),
        ("exp", json!(i64::MIN)),
        ("exp", json!(0)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(true)),
        ("exp", json!([now + 300])),
        ("exp", json!({"at": now + 300})),
        ("exp", json!(now - 60)),
        ("exp", json!(now + 10 * 365 * 24 * 3600)),
        ("nbf", json!(now + 3600)),
        ("nbf", json!(u64::MAX)),
        ("nbf", json!("0")),
        ("nbf", json!(-1)),
        ("iat", json!(now + 3600)),
        ("iat", json!(u64::MAX)),
        ("iat", json!(0.5)),
        ("iat", json!(0)),
        ("iss", json!("attacker")),
        ("iss", json!("Forecastle")),
        ("iss", json!(["forecastle"])),
        ("iss", json!("")),
        ("aud", json!("another-api")),
        ("aud", json!(["forecastle-api"])),
        ("aud", json!(["another-api", "forecastle-api"])),
        ("aud", json!("")),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!(Uuid::nil())),
        ("tid", json!("*")),
        ("tid", json!(Uuid::nil())),
        ("sid", json!(Uuid::nil())),
        ("sid", json!("' OR true --")),
        ("jti", json!(1)),
        ("role", json!("owner")),
        ("admin", json!(true)),
    ] {
        attacks.push((format!("{claim} = {value}"), sign(&header(), &with(&target.claims, claim, value))));
    }
    for (what, exp) in [("too large for 64 bits", "18446744073709551616"), ("too large for a float", "1e999")] {
        let text =
            target.claims.to_string().replace(&format!("\"exp\":{}", target.claims["exp"]), &format!("\"exp\":{exp}"));
        assert!(text.contains(exp));
        attacks.push((format!("exp {what}"), sign_with(SEED, &header().to_string(), &text)));
    }
    for claims in ["", "null", "[]", "\"exp\"", "{", "{}", "\u{feff}{}"] {
        attacks.push((format!("claims {claims:?}"), sign_with(SEED, &header().to_string(), claims)));
    }
    for head in ["", "null", "[]", "{", "{}"] {
        attacks.push((format!("header {head:?}"), sign_with(SEED, head, &target.claims.to_string())));
    }
    target.refuses_all(attacks).await;
}

#[tokio::test]
async fn a_signature_is_taken_in_its_one_form_only() {
    let target = Target::start().await;
    let honest = target.honest();
    let (message, signature) = honest.rsplit_once('.').unwrap();
    let bytes: [u8; 64] = URL_SAFE_NO_PAD.decode(signature).unwrap().try_into().unwrap();
    let mut attacks = Vec::new();
    for length in [0, 1, 31, 32, 63] {
        attacks.push((
            format!("cut to {length} bytes"),
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes[..length])),
        ));
    }
    for cut in 1..=4 {
        attacks.push((format!("{cut} characters cut off"), honest[..honest.len() - cut].to_owned()));
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    attacks.push(("one byte more".to_owned(), format!("{message}.{}", URL_SAFE_NO_PAD.encode(longer))));
    attacks.push(("all zero".to_owned(), format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 64]))));
    // S + L verifies wherever S is not held below the group's order, and is another text for the same token.
    let mut carry = 0;
    let mut malleable = bytes;
    for (byte, order) in malleable[32..].iter_mut().zip(GROUP_ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    attacks.push(("S + L".to_owned(), format!("{message}.{}", URL_SAFE_NO_PAD.encode(malleable))));
    for bit in [0, 7, 255, 256, 300, 511] {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        attacks.push((format!("bit {bit} flipped"), format!("{message}.{}", URL_SAFE_NO_PAD.encode(flipped))));
    }
    // 64 bytes fill 85 characters and 2 bits of the 86th: its other bits say nothing, and must be zero.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.find(signature.chars().last().unwrap()).unwrap();
    assert_eq!(last % 16, 0);
    for unused in [1, 8, 15] {
        let other = &alphabet[last + unused..=last + unused];
        attacks.push((format!("unused bits {unused}"), format!("{}{other}", &honest[..honest.len() - 1])));
    }
    attacks.push(("padded".to_owned(), format!("{honest}==")));
    attacks.push(("standard base64".to_owned(), format!("{message}.{}", STANDARD.encode(bytes))));
    attacks.push(("a fourth part".to_owned(), format!("{honest}.{signature}")));
    attacks.push(("an empty fourth part".to_owned(), format!("{honest}.")));
    let (head, claims) = message.split_once('.').unwrap();
    attacks.push(("header padded".to_owned(), format!("{head}=.{claims}.{signature}")));
    attacks.push(("claims padded".to_owned(), format!("{head}.{claims}=.{signature}")));
    let other = sign(&header(), &with(&target.claims, "jti", json!(Uuid::from_u128(2))));
    let others_signature = other.rsplit_once('.').unwrap().1;
    attacks.push(("another token's signature".to_owned(), format!("{message}.{others_signature}")));
    target.refuses_all(attacks).await;
}

#[tokio::test]
async fn the_header_field_holds_one_token_of_bounded_length_and_nothing_else() {
    let target = Target::start().await;
    let honest = target.honest();
    let ask = async |values: &[String]| {
        let headers: Vec<_> = values.iter().map(|value| ("authorization", value.as_str())).collect();
        target.api.send(Method::GET, "/v1/me", None, &headers, None).await
    };
    for values in [
        vec![],
        vec![String::new()],
        vec![honest.clone()],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![format!("Bearer{honest}")],
        vec![format!("Bearer\t{honest}")],
        vec![format!("Bearer {honest} {honest}")],
        vec![format!("Bearer {honest},{honest}")],
        vec![format!("Bearer {honest}, Bearer {honest}")],
        vec![format!("Bearer {honest};a=b")],
        vec![format!("Bearer \"{honest}\"")],
        vec![format!("Bearer token={honest}")],
        vec![format!("Basic {honest}")],
        vec![format!("DPoP {honest}")],
        vec![format!("Token {honest}")],
        vec![format!("Bearer {}", honest.replace('.', ". "))],
        vec![format!("Bearer {honest}"), format!("Bearer {honest}")],
        vec![format!("Bearer {honest}"), String::new()],
        vec![format!("Bearer {}", "a".repeat(4096))],
        vec![format!("Bearer {honest}{}", "A".repeat(4096))],
    ] {
        assert_eq!(ask(&values).await.code(), (401, "unauthenticated".to_owned()), "{values:?}");
        assert_eq!(ask(&[format!("Bearer {honest}")]).await.status.as_u16(), 200);
    }
    let long = with(&target.claims, "jti", json!("x".repeat(4096)));
    target.refuses("oversized", &sign(&header(), &long)).await;
    for place in [format!("/v1/me?access_token={honest}"), format!("/v1/me?token={honest}")] {
        assert_eq!(target.api.send(Method::GET, &place, None, &[], None).await.code().0, 401);
    }
    let cookie = format!("access_token={honest}");
    assert_eq!(target.api.send(Method::GET, "/v1/me", None, &[("cookie", &cookie)], None).await.code().0, 401);
}

#[tokio::test]
async fn a_token_is_good_for_its_own_session_user_and_tenant_only() {
    let target = Target::start().await;
    let stranger = target.api.sign_up("eve", "FREE").await;
    let theirs = claims_of(&stranger);
    target.lets_in("the stranger itself", &sign(&header(), &theirs)).await;
    let mut attacks = Vec::new();
    for fields in [&["tid"][..], &["sub"], &["sid"], &["tid", "sub"], &["tid", "sid"], &["sub", "sid"]] {
        let mut mixed = target.claims.clone();
        for field in fields {
            mixed[*field] = theirs[*field].clone();
        }
        attacks.push((format!("{fields:?} of another tenant"), sign(&header(), &mixed)));
    }
    attacks.push(("its refresh token".to_owned(), text(&stranger, "refresh_token").to_owned()));
    target.refuses_all(attacks).await;
}
