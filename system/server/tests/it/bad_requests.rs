//! Requests that are too much, or no requests at all: each is told what is wrong with it.

use crate::process::{Ground, scenario};
use crate::raw_client::{Raw, Subject};

/// How often each is sent.
const ROUNDS: usize = 10;
/// What all of them may leave behind in the memory of the process, KiB.
const GROWTH_KIB: u64 = 40 << 10;

/// Bytes, what is wrong with them, and the status and code they earn.
type Case = (&'static str, Vec<u8>, u16, &'static str);

fn get(target: &[u8], headers: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nhost: x\r\n", headers, b"\r\n"].concat()
}

fn heads(token: &str) -> Vec<Case> {
    let bearer = format!("authorization: Bearer {token}\r\n");
    let many = (0..10_000).map(|n| format!("x-{n}: {n}\r\n")).collect::<String>();
    let signed = |more: &[u8]| [bearer.as_bytes(), more].concat();
    vec![
        ("10,000 headers", get(b"/v1/me", many.as_bytes()), 431, "headers_too_large"),
        ("101 headers", get(b"/v1/me", "a: b\r\n".repeat(100).as_bytes()), 431, "headers_too_large"),
        (
            "a header of 20 kB",
            get(b"/v1/me", &[b"a: ", &b"x".repeat(20_000)[..], b"\r\n"].concat()),
            431,
            "headers_too_large",
        ),
        (
            "a header of 10 MB",
            get(b"/v1/me", &[b"a: ", &b"x".repeat(10 << 20)[..], b"\r\n"].concat()),
            431,
            "headers_too_large",
        ),
        (
            "a header's name of 1 MB",
            get(b"/v1/me", &[&b"x".repeat(1 << 20)[..], b": a\r\n"].concat()),
            431,
            "headers_too_large",
        ),
        ("a path of 17 kB", get(&[b"/v1/", &b"x".repeat(17_000)[..]].concat(), b""), 431, "headers_too_large"),
        ("a path of 10 MB", get(&b"/x".repeat(5 << 20), b""), 431, "headers_too_large"),
        (
            "a query of 1 MB",
            get(&[b"/v1/scenarios?cursor=", &b"x".repeat(1 << 20)[..]].concat(), &signed(b"")),
            431,
            "headers_too_large",
        ),
        ("a path that is no UTF-8", get(b"/v1/scenarios/\xff\xfe", &signed(b"")), 400, "malformed_request"),
        ("a path whose escapes are no UTF-8", get(b"/v1/scenarios/%ff%fe", &signed(b"")), 404, "not_found"),
        ("a query that is no UTF-8", get(b"/v1/scenarios?limit=\xff", &signed(b"")), 400, "malformed_request"),
        ("a query whose escapes are no UTF-8", get(b"/v1/scenarios?limit=%ff", &signed(b"")), 400, "limit_invalid"),
        (
            "a cursor whose escapes are no UTF-8",
            get(b"/v1/scenarios?cursor=%ff%c3%28", &signed(b"")),
            400,
            "cursor_invalid",
        ),
        ("a token that is no UTF-8", get(b"/v1/me", b"authorization: Bearer \xff\xfe\r\n"), 401, "unauthenticated"),
        ("a scheme that is no UTF-8", get(b"/v1/me", b"authorization: \xc3\x28 x\r\n"), 401, "unauthenticated"),
        ("a control character in a header", get(b"/v1/me", b"a: \x01\r\n"), 400, "malformed_request"),
        ("a header's name that is no name", get(b"/v1/me", b"\xff: a\r\n"), 400, "malformed_request"),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400, "malformed_request"),
        ("two lengths", get(b"/v1/me", b"content-length: 1\r\ncontent-length: 2\r\n"), 400, "malformed_request"),
        ("a length that is none", get(b"/v1/me", b"content-length: -1\r\n"), 400, "malformed_request"),
        (
            "a length beyond counting",
            get(b"/v1/me", b"content-length: 99999999999999999999999\r\n"),
            400,
            "malformed_request",
        ),
        ("an encoding that is not known", get(b"/v1/me", b"transfer-encoding: gzip\r\n"), 400, "malformed_request"),
    ]
}

fn bodies(token: &str) -> Vec<Case> {
    let post = |path: &str, headers: &str, body: &[u8]| {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nidempotency-key: {}\r\n\
             content-length: {length}\r\n{headers}\r\n",
            uuid::Uuid::new_v4(),
        );
        [head.as_bytes(), body].concat()
    };
    let json = "content-type: application/json\r\n";
    let whole = scenario("s").to_string();
    let twice = whole.replacen("\"tax_rate\":", "\"tax_rate\":\"0\",\"tax_rate\":", 1);
    let nested = |open: &str, close: &str| [open.repeat(100_000), close.repeat(100_000)].concat().into_bytes();
    // A gzip stream of 10 MB of zeroes begins so; whatever follows, nobody unpacks it.
    let packed = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xed, 0xc1, 1, 1, 0, 0, 0, 0x80][..]].concat();
    let gzip = format!("{json}content-encoding: gzip\r\n");
    let scenarios = "/v1/scenarios";
    vec![
        ("a body that is no UTF-8", post(scenarios, json, b"{\"name\":\"\xff\xfe\"}"), 400, "malformed_json"),
        ("half a surrogate", post(scenarios, json, br#"{"name":"\ud800"}"#), 400, "malformed_json"),
        ("100,000 arrays in each other", post(scenarios, json, &nested("[", "]")), 400, "malformed_json"),
        ("100,000 objects in each other", post("/v1/login", json, &nested("{\"a\":", "}")), 400, "malformed_json"),
        (
            "100,000 arrays for a calculator",
            post("/v1/calculators/npv", json, &nested("[", "]")),
            400,
            "malformed_json",
        ),
        (
            "half a million numbers",
            post("/v1/login", json, format!("[{}0]", "0,".repeat(500_000)).as_bytes()),
            400,
            "malformed_json",
        ),
        ("a member named twice", post(scenarios, json, twice.as_bytes()), 400, "malformed_json"),
        (
            "a member named twice for a calculator",
            post("/v1/calculators/npv", json, br#"{"rate":"0","rate":"1","cash_flows":["1"]}"#),
            400,
            "malformed_json",
        ),
        (
            "a number beyond counting",
            post("/v1/login", json, br#"{"email":1e400,"password":"x"}"#),
            400,
            "malformed_json",
        ),
        (
            "a number of 100,000 digits",
            post("/v1/login", json, format!("{{\"email\":{}}}", "9".repeat(100_000)).as_bytes()),
            400,
            "malformed_json",
        ),
        (
            "a large number where none belongs",
            post(scenarios, json, whole.replace("\"horizon_months\":3", "\"horizon_months\":1e300").as_bytes()),
            422,
            "invalid",
        ),
        (
            "another media type",
            post(scenarios, "content-type: text/plain\r\n", whole.as_bytes()),
            415,
            "unsupported_media_type",
        ),
        ("no media type", post(scenarios, "", whole.as_bytes()), 415, "unsupported_media_type"),
        (
            "a media type that is no UTF-8",
            post(scenarios, "content-type: application/\u{ff}json\r\n", whole.as_bytes()),
            415,
            "unsupported_media_type",
        ),
        ("a packed body", post(scenarios, &gzip, &packed), 415, "unsupported_content_encoding"),
        ("a packed body that is said to be none", post(scenarios, json, &packed), 400, "malformed_json"),
        ("an empty body", post(scenarios, json, b""), 400, "malformed_json"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_or_no_request_is_told_so_as_a_problem_and_the_next_one_is_served() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &[]).await;
    let cases = [heads(&subject.token), bodies(&subject.token)].concat();
    let mut wrong = Vec::new();
    for round in 0..ROUNDS {
        for (what, bytes, status, code) in &cases {
            let told = Raw::open(&subject.address()).await.ask(bytes).await;
            let heard = told.as_ref().map(|told| (told.status, told.code.as_str()));
            if heard != Some((*status, code)) && round == 0 {
                wrong.push(format!("{what}: {told:?}"));
            }
        }
        subject.honest().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    subject.grew_at_most(GROWTH_KIB, "bad requests, each ten times");
}

#[tokio::test]
async fn a_bad_request_after_a_good_one_on_the_same_connection_takes_nothing_from_it() {
    let ground = Ground::start().await;
    let subject = Subject::start(&ground, &[]).await;
    let mut client = Raw::open(&subject.address()).await;
    let good = get(b"/livez", b"");
    assert_eq!(client.ask(&good).await.expect("an answer").status, 200);
    assert_eq!(client.ask(&good).await.expect("an answer").status, 200);
    let bad = client.ask(b"nothing of the kind\r\n\r\n").await.expect("an answer");
    assert_eq!((bad.status, bad.code.as_str()), (400, "malformed_request"));
    assert_eq!(client.ask(&good).await, None, "then it is closed");
}
