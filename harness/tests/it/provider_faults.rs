//! Each fault of the payment provider: the k-th request or event is hurt, no other, on no other link; and it is over when
//! healed. The provider is the run's own, with its book; where its events go, signatures are checked as the system does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use nogo_faults::{BookLimits, ParamValue, RuleBook, Step, Target, WireFault, catalogue};
use nogo_harness::environment::links::Links;
use nogo_harness::provider::{Behaviour, Charge, EventSender, Provider, WebhookSecret};
use nogo_harness::randomness::Randomness;
use nogo_harness::recorder::RunClock;
use serde_json::{Value, json};

use crate::environment_store_faults::{SOON, TOLERANCE, fault_goes_through};

/// How late a late event is, milliseconds.
const LATE_MS: i64 = 450;

/// A provider, an API that takes its events, and the links between them and a biller.
struct Rig {
    links: Links,
    book: RuleBook,
    provider: Provider,
    /// Events as they came in, and whether their signature held.
    came: Came,
    secret: WebhookSecret,
    api: SocketAddr,
    client: reqwest::Client,
}

type Came = Arc<Mutex<Vec<(String, bool)>>>;

async fn take(State((secret, came)): State<(WebhookSecret, Came)>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signature = secret.sign(text("webhook-id"), text("webhook-timestamp").parse().unwrap_or_default(), &body);
    let holds = signature.is_ok_and(|signature| signature == text("webhook-signature"));
    came.lock().unwrap().push((text("webhook-id").to_owned(), holds));
    if holds { StatusCode::OK } else { StatusCode::UNAUTHORIZED }
}

impl Rig {
    async fn start() -> Self {
        let book = RuleBook::new(Instant::now(), BookLimits::default());
        let links = Links::start(1, Some(book.clone())).await.unwrap();
        let provider = Provider::start(Randomness::new(1), Behaviour::HONEST, RunClock::start()).await.unwrap();
        let (secret, came) = (WebhookSecret::generate(), Came::default());
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let api = listener.local_addr().unwrap();
        let routes = Router::new().route("/v1/webhooks/payments", post(take)).with_state((secret, Arc::clone(&came)));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().unwrap();
        Self { links, book, provider, came, secret, api, client }
    }

    /// The fault of a schedule's line: the second match, once.
    fn fault(&self, name: &str, params: &[(&str, i64)]) -> WireFault {
        // A book forgets no name.
        let id = format!("t{}", self.book.records().len());
        let row = catalogue::find(name).expect("a row");
        let mut all: BTreeMap<String, ParamValue> =
            params.iter().map(|(name, value)| ((*name).to_owned(), ParamValue::Whole(*value))).collect();
        all.insert("kth".to_owned(), ParamValue::Whole(2));
        all.insert("times".to_owned(), ParamValue::Whole(1));
        let target = row.targets[0].to_owned();
        let step = Step { fault: name.to_owned(), target, at_ms: 0, when: None, duration_ms: 1, params: all };
        let rules = catalogue::rules_of(&step, &id).unwrap();
        let api = self.links.client().api_addr();
        let targets = self.links.list().into_iter().map(|link| Target::Proxy { api, name: link.name }).collect();
        WireFault::new(row.name, self.book.clone(), rules, targets, TOLERANCE, 5_000).unwrap()
    }

    /// Whether the provider has charged under a key.
    fn has(&self, key: &str) -> bool {
        self.provider.book().charges.iter().any(|charge| charge.idempotency_key == key)
    }

    /// Asks for a charge by way of a link; the status and the whole answer.
    async fn charge(&self, by: SocketAddr, key: &str) -> reqwest::Result<(StatusCode, HeaderMap, Value)> {
        let body = json!({ "amount_minor": 5, "currency": "EUR", "payment_token": "tok_1", "reference": "i" });
        let request = self.client.post(format!("http://{by}/v1/charges")).header("idempotency-key", key).json(&body);
        let answer = request.send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok((status, headers, answer.json().await?))
    }

    async fn is_charged(&self, by: SocketAddr, key: &str) {
        let (status, ..) = self.charge(by, key).await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
        assert_eq!((status, self.has(key)), (StatusCode::CREATED, true), "{key}");
    }

    fn told(&self) -> Vec<(String, bool)> {
        std::mem::take(&mut self.came.lock().unwrap())
    }
}

fn is_reset(error: &reqwest::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionReset) {
            return true;
        }
        source = error.source();
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kth_charge_of_a_biller_is_hurt_and_nobody_elses() {
    let rig = Rig::start().await;
    let at = [rig.links.client().api_addr()];
    let address = rig.provider.address();
    let hurt = rig.links.open("biller-1", "provider", address).await.unwrap();
    let spared = rig.links.open("api-1", "provider", address).await.unwrap();
    let number = Mutex::new(0);
    let next = || {
        let mut number = number.lock().unwrap();
        *number += 1;
        format!("key-{number}")
    };
    let is_well = async || {
        for link in [hurt, spared] {
            rig.is_charged(link, &next()).await;
        }
    };

    for (name, is_made) in [
        ("provider-request-lost", false),
        ("provider-answer-lost", true),
        ("provider-error", true),
        ("provider-busy", false),
        ("provider-slow-body", true),
        ("provider-reset", true),
    ] {
        let bites = async || {
            rig.is_charged(hurt, &next()).await;
            rig.is_charged(spared, &next()).await;
            let question = rig.client.get(format!("http://{hurt}/v1/charges?idempotency_key=x")).send().await.unwrap();
            assert_eq!(question.status(), StatusCode::OK, "{name}: a question is no charge");
            let key = next();
            let met = rig.charge(hurt, &key).await;
            match (name, &met) {
                ("provider-error", Ok((status, ..))) => assert_eq!(*status, StatusCode::INTERNAL_SERVER_ERROR),
                ("provider-busy", Ok((status, headers, _))) => {
                    assert_eq!(
                        (*status, &headers["retry-after"]),
                        (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
                    );
                }
                ("provider-slow-body", Err(error)) => assert!(error.is_timeout(), "{error:?}"),
                ("provider-reset", Err(error)) => assert!(is_reset(error), "{error:?}"),
                ("provider-request-lost" | "provider-answer-lost", Err(error)) => {
                    assert!(!error.is_timeout() && !is_reset(error), "{error:?}");
                }
                _ => panic!("{name}: {met:?}"),
            }
            assert_eq!(rig.has(&key), is_made, "{name}");
            rig.is_charged(hurt, &next()).await;
        };
        fault_goes_through(rig.fault(name, &[]), &at, bites, &is_well).await;
    }
    rig.links.close().await.unwrap();
    rig.provider.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_kth_event_is_hurt_and_nobody_elses() {
    let rig = Rig::start().await;
    let at = [rig.links.client().api_addr()];
    let hurt = rig.links.open("provider", "api-1", rig.api).await.unwrap();
    let spared = rig.links.open("biller-1", "api-1", rig.api).await.unwrap();
    let charge = Charge {
        id: "ch_1".to_owned(),
        state: "succeeded".to_owned(),
        amount_minor: 2_900,
        currency: "EUR".to_owned(),
        idempotency_key: "inv-1".to_owned(),
        reference: "1".to_owned(),
        payment_token: "tok_1".to_owned(),
        time_ns: 1,
    };
    let (hurt, spared) = (EventSender::new(rig.secret, hurt).unwrap(), EventSender::new(rig.secret, spared).unwrap());
    let sends = async |sender: &EventSender, id: &str| {
        let began = Instant::now();
        (sender.send(id, &charge).await.unwrap(), began.elapsed() >= Duration::from_millis(LATE_MS.unsigned_abs()))
    };
    let came = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), true)).collect::<Vec<_>>();
    let is_well = async || {
        for sender in [&hurt, &spared] {
            assert_eq!(sends(sender, "well").await, (200, false));
        }
        assert_eq!(rig.told(), came(&["well", "well"]));
    };
    let begin = async || {
        assert_eq!(sends(&hurt, "1").await, (200, false));
        assert_eq!(sends(&spared, "other").await, (200, false), "another's are not counted");
    };

    let bites = async || {
        begin().await;
        assert_eq!(sends(&hurt, "2").await, (200, false));
        assert_eq!(sends(&hurt, "3").await, (200, false));
        assert_eq!(rig.told(), came(&["1", "other", "2", "2", "3"]));
    };
    fault_goes_through(rig.fault("webhook-twice", &[]), &at, bites, &is_well).await;

    let bites = async || {
        begin().await;
        assert_eq!(sends(&hurt, "2").await, (200, true));
        assert_eq!(sends(&hurt, "3").await, (200, false));
        assert_eq!(rig.told(), came(&["1", "other", "2", "3"]));
    };
    fault_goes_through(rig.fault("webhook-late", &[("late_ms", LATE_MS)]), &at, bites, &is_well).await;

    let bites = async || {
        begin().await;
        let later = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            sends(&hurt, "3").await
        };
        assert_eq!(tokio::join!(sends(&hurt, "2"), later), ((200, true), (200, false)));
        assert_eq!(rig.told(), came(&["1", "other", "3", "2"]));
    };
    fault_goes_through(rig.fault("webhook-reordered", &[("late_ms", LATE_MS)]), &at, bites, &is_well).await;

    let bites = async || {
        begin().await;
        assert_eq!(sends(&hurt, "2").await, (401, false));
        assert_eq!(sends(&hurt, "2").await, (200, false), "sent again it is whole");
        let forged = [came(&["1", "other"]), vec![("2".to_owned(), false)], came(&["2"])].concat();
        assert_eq!(rig.told(), forged);
    };
    fault_goes_through(rig.fault("webhook-forged", &[]), &at, bites, &is_well).await;
    rig.links.close().await.unwrap();
    rig.provider.stop().await;
}
