//! Each fault of a sink: whatever its victim tells that sink is hurt, nothing else is, on no other link; and it is over when
//! healed. The sinks are the run's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use axum::http::StatusCode;
use nogo_faults::{BookLimits, ParamValue, RuleBook, Step, Target, WireFault, catalogue};
use nogo_harness::environment::links::Links;
use nogo_harness::environment::topology::{ALERTS, ANALYTICS, ERRORS};
use nogo_harness::sinks::{Language, Sink};

use crate::environment_store_faults::{SOON, TOLERANCE, fault_goes_through};

/// The sinks, and the links of their victims and of a worker to them.
struct Rig {
    links: Links,
    book: RuleBook,
    sinks: BTreeMap<&'static str, Sink>,
    client: reqwest::Client,
    folder: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let book = RuleBook::new(Instant::now(), BookLimits::default());
        let links = Links::start(1, Some(book.clone())).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut sinks = BTreeMap::new();
        for (name, language) in [(ERRORS, Language::Envelope), (ANALYTICS, Language::Batch), (ALERTS, Language::Notice)]
        {
            sinks.insert(name, Sink::start(language, &folder.path().join(name)).await.unwrap());
        }
        let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().unwrap();
        Self { links, book, sinks, client, folder }
    }

    /// The fault of a schedule's line on `target`.
    fn fault(&self, name: &str, target: &str, code: Option<&str>) -> WireFault {
        // A book forgets no name.
        let id = format!("t{}", self.book.records().len());
        let row = catalogue::find(name).expect("a row");
        let params = code.map(|code| ("code".to_owned(), ParamValue::Text(code.to_owned()))).into_iter().collect();
        let step =
            Step { fault: name.to_owned(), target: target.to_owned(), at_ms: 0, when: None, duration_ms: 1, params };
        let rules = catalogue::rules_of(&step, &id).unwrap();
        let api = self.links.client().api_addr();
        let targets = self.links.list().into_iter().map(|link| Target::Proxy { api, name: link.name }).collect();
        WireFault::new(row.name, self.book.clone(), rules, targets, TOLERANCE, 5_000).unwrap()
    }

    /// Tells a sink something by way of a link, as the system does.
    async fn tell(&self, by: SocketAddr, sink: &str) -> reqwest::Result<(StatusCode, bool)> {
        let id = format!("{:032x}", rand::random::<u128>());
        let (path, body) = if sink == ALERTS {
            let notice = format!(r#"{{"id":"queue_age:worker-1:{id}","alert":"queue_age","state":"firing"}}"#);
            (catalogue::sink_path(ALERTS).unwrap(), notice)
        } else if sink == ERRORS {
            let payload = format!("{{\"event_id\":\"{id}\",\"logentry\":{{\"formatted\":\"failed\"}}}}");
            let length = payload.len();
            let head = format!("{{\"event_id\":\"{id}\"}}\n{{\"type\":\"event\",\"length\":{length}}}");
            ("/api/1/envelope/", format!("{head}\n{payload}\n"))
        } else {
            (catalogue::sink_path(ANALYTICS).unwrap(), r#"{"events":[{"event":"logged_in"}]}"#.to_owned())
        };
        let answer = self.client.post(format!("http://{by}{path}")).body(body).send().await?;
        Ok((answer.status(), answer.headers().contains_key("retry-after")))
    }

    async fn is_told(&self, by: SocketAddr, sink: &str) {
        let before = self.sinks[sink].book().counts().events;
        assert_eq!(self.tell(by, sink).await.unwrap(), (StatusCode::OK, false), "{sink}");
        assert_eq!(self.sinks[sink].book().counts().events, before + 1, "{sink}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_its_victim_tells_one_sink_is_hurt_and_nothing_else() {
    let rig = Rig::start().await;
    let at = [rig.links.client().api_addr()];
    let of_victims = [("api-1", ERRORS), ("api-1", ANALYTICS), ("alert-1", ALERTS)];
    let of_others = [("worker-1", ERRORS), ("worker-1", ANALYTICS), ("worker-1", ALERTS)];
    let all = [of_victims, of_others].concat();
    let mut ways = BTreeMap::new();
    for &(process, sink) in &all {
        ways.insert((process, sink), rig.links.open(process, sink, rig.sinks[sink].address()).await.unwrap());
    }
    let by = |process, sink| ways[&(process, sink)];
    let is_well = async || {
        for &(process, sink) in &all {
            rig.is_told(by(process, sink), sink).await;
        }
    };
    for ((victim, hurt), target) in of_victims.into_iter().zip(["apis-errors", "apis-analytics", "alert-1-alerts"]) {
        for (name, code, arrives) in [
            ("sink-reset", None, false),
            ("sink-blackhole", None, false),
            ("sink-error", None, true),
            ("sink-error", Some("429"), false),
        ] {
            let bites = async || {
                let events = || rig.sinks[hurt].book().counts().events;
                for _ in 0..3 {
                    let before = events();
                    let met = rig.tell(by(victim, hurt), hurt).await;
                    match (name, code, &met) {
                        ("sink-reset", _, Err(error)) => assert!(!error.is_timeout(), "{error:?}"),
                        ("sink-blackhole", _, Err(error)) => assert!(error.is_timeout(), "{error:?}"),
                        ("sink-error", None, Ok(answer)) => {
                            assert_eq!(*answer, (StatusCode::INTERNAL_SERVER_ERROR, false));
                        }
                        ("sink-error", Some(_), Ok(answer)) => {
                            assert_eq!(*answer, (StatusCode::TOO_MANY_REQUESTS, true));
                        }
                        _ => panic!("{name} at {target}: {met:?}"),
                    }
                    assert_eq!(events() - before, u64::from(arrives), "{name} at {target}");
                }
                for &(process, sink) in all.iter().filter(|link| **link != (victim, hurt)) {
                    rig.is_told(by(process, sink), sink).await;
                }
            };
            fault_goes_through(rig.fault(name, target, code), &at, bites, &is_well).await;
        }
    }
    for (name, sink) in &rig.sinks {
        let counts = sink.book().counts();
        assert_eq!((counts.unreadable, counts.repeated), (0, 0), "{name}");
        let kept = std::fs::metadata(rig.folder.path().join(name)).unwrap().len();
        assert_eq!(kept, counts.bytes + counts.requests, "{name}: every body is kept, each with its end");
        sink.stop().await;
    }
    rig.links.close().await.unwrap();
}
