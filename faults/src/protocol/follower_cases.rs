//! A follower under rules, byte by byte and on a clock of the test's own.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    book::{BookLimits, Release, RuleBook},
    follower::{Follower, Passed},
    observer::{Origin, WireEventKind},
    operation::Protocol,
    rule::Rule,
};
use crate::network::Stream::{Downstream, Upstream};

struct Case {
    book: RuleBook,
    follower: Follower,
    start: Instant,
    now: Instant,
}

impl Case {
    fn new(protocol: Protocol, rules: &[Value]) -> Self {
        Self::with_limits(protocol, rules, BookLimits::default())
    }

    fn with_limits(protocol: Protocol, rules: &[Value], limits: BookLimits) -> Self {
        let start = Instant::now();
        let book = RuleBook::new(start, limits);
        for rule in rules {
            let rule: Rule = serde_json::from_value(rule.clone()).expect("a rule");
            book.plan(&rule).expect("plan");
            book.install(&rule.name).expect("install");
        }
        let follower = book.follow(Origin::of_process("api-1"), protocol);
        Self { book, follower, start, now: start }
    }

    fn redis(rules: &[Value]) -> Self {
        Self::new(Protocol::Redis, rules)
    }

    fn client(&mut self, text: &str) {
        self.follower.feed(Upstream, BytesMut::from(text), self.now);
    }

    fn server(&mut self, text: &str) {
        self.follower.feed(Downstream, BytesMut::from(text), self.now);
    }

    fn at_ms(&mut self, ms: u64) {
        self.now = self.start + Duration::from_millis(ms);
    }

    /// What goes on now, and the end if that is it.
    fn passed(&mut self, stream: crate::network::Stream) -> (String, Option<Passed>) {
        let mut text = Vec::new();
        loop {
            match self.follower.next(stream, self.now) {
                Some(Passed::Data(bytes)) => text.extend_from_slice(&bytes),
                end => return (String::from_utf8(text).expect("text"), end),
            }
        }
    }

    fn server_gets(&mut self) -> String {
        self.passed(Upstream).0
    }

    fn client_gets(&mut self) -> String {
        self.passed(Downstream).0
    }

    fn observed(&self, name: &str) -> u64 {
        self.book.record(name).expect("a rule").observed
    }
}

fn rule(name: &str, place: &str, action: Value) -> Value {
    json!({ "name": name, "match": { "redis": { "command": "SET" } }, "k": 1, "where": place, "action": action })
}

const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
const GET: &str = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";

#[test]
fn what_stands_before_a_late_request_is_not_late() {
    let mut case = Case::redis(&[rule("late", "before_server", json!({ "late": { "ms": 100 } }))]);
    case.client(&[GET, SET, GET].concat());
    assert_eq!(case.server_gets(), GET);
    assert_eq!(case.follower.due(), Some(case.start + Duration::from_millis(100)));
    case.server("$-1\r\n");
    assert_eq!(case.client_gets(), "$-1\r\n", "the other direction flows");
    case.at_ms(99);
    assert_eq!(case.server_gets(), "");
    assert_eq!(case.observed("late"), 0);
    case.at_ms(100);
    assert_eq!(case.server_gets(), [SET, GET].concat());
    assert_eq!(case.observed("late"), 1);
}

#[test]
fn a_removed_rule_lets_the_late_go_and_cuts_the_held_and_the_dropped() {
    for (action, expected) in [
        (json!({ "late": { "ms": 60_000 } }), (SET.to_owned(), None)),
        (json!({ "hold": {} }), (String::new(), Some(Passed::Cut))),
        (json!("drop"), (String::new(), Some(Passed::Cut))),
    ] {
        let mut case = Case::redis(&[rule("r", "before_server", action)]);
        case.client(SET);
        assert_eq!(case.passed(Upstream), (String::new(), None));
        case.book.remove("r").expect("remove");
        case.book.remove("r").expect("may be removed twice");
        assert_eq!(case.passed(Upstream), expected);
        let record = case.book.record("r").expect("remembered");
        assert!(record.removed_ns.is_some() && record.observed == 1, "{record:?}");
    }
}

#[test]
fn a_held_connection_reads_nothing_and_goes_on_as_it_is_told() {
    for (release, passes) in [(Release::Pass, true), (Release::Cut, false)] {
        let mut case = Case::redis(&[rule("hold", "before_server", json!({ "hold": {} }))]);
        case.client(SET);
        assert_eq!(case.passed(Upstream), (String::new(), None));
        assert!(!case.follower.has_room(Upstream) && !case.follower.has_room(Downstream));
        assert_eq!(case.follower.due(), None);
        case.at_ms(3_600_000);
        assert_eq!(case.passed(Downstream), (String::new(), None));
        case.book.release("hold", release).expect("release");
        assert_eq!(case.server_gets() == SET, passes);
        assert_eq!(case.follower.has_room(Upstream), passes);
    }
}

#[test]
fn a_hold_before_the_client_still_reads_the_servers_answer() {
    let mut case = Case::redis(&[rule("hold", "before_client", json!({ "hold": { "ms": 50 } }))]);
    case.client(SET);
    assert_eq!(case.server_gets(), SET);
    case.server("+O");
    assert_eq!(case.client_gets(), "");
    assert!(case.follower.has_room(Downstream), "the rest of the answer is wanted");
    assert_eq!(case.observed("hold"), 0);
    case.server("K\r\n");
    assert!(!case.follower.has_room(Downstream));
    assert_eq!((case.observed("hold"), case.book.record("hold").expect("a rule").applied), (1, 1));
    case.at_ms(50);
    assert_eq!(case.client_gets(), "+OK\r\n");
}

#[test]
fn a_rule_that_was_removed_spares_the_answer_it_waited_for() {
    let mut case = Case::redis(&[rule("cut", "before_client", json!("cut"))]);
    case.client(SET);
    assert_eq!(case.book.held("cut"), 1);
    case.book.remove("cut").expect("remove");
    case.server("+OK\r\n");
    assert_eq!(case.passed(Downstream), ("+OK\r\n".into(), None));
    assert_eq!((case.book.held("cut"), case.observed("cut")), (0, 0));
}

#[test]
fn a_dropped_answer_is_lost_with_all_behind_it_but_not_the_end() {
    let mut case = Case::redis(&[rule("drop", "before_client", json!("drop"))]);
    case.client(&[GET, SET, GET].concat());
    case.server("$-1\r\n+OK\r\n$1\r\nv\r\n");
    assert_eq!(case.passed(Downstream), ("$-1\r\n".into(), None));
    case.follower.end(Downstream, case.now);
    assert_eq!(case.passed(Downstream), (String::new(), Some(Passed::Eof)));
}

#[test]
fn an_answer_that_never_comes_is_told_as_unanswered() {
    let mut case = Case::redis(&[rule("cut", "before_client", json!("cut"))]);
    case.client(SET);
    case.server("+");
    case.follower.end(Downstream, case.now);
    let kinds: Vec<WireEventKind> = case.book.events().0.into_iter().map(|event| event.kind).collect();
    let unanswered = WireEventKind::Confirmed { outcome: super::Outcome::Unanswered };
    assert_eq!(kinds.last(), Some(&unanswered));
    assert_eq!(case.book.without_effect(), ["cut"]);
}

#[test]
fn the_first_rule_wins_and_the_other_is_told_to_be_overruled() {
    let mut case = Case::redis(&[
        rule("first", "before_client", json!("cut")),
        rule("second", "before_server", json!("cut")),
        json!({ "name": "other", "role": "worker", "match": { "redis": {} }, "k": "every", "where": "before_server",
                "action": "cut" }),
    ]);
    case.client(SET);
    assert_eq!(case.server_gets(), SET);
    case.server("+OK\r\n");
    assert_eq!(case.passed(Downstream), (String::new(), Some(Passed::Cut)));
    let (events, _) = case.book.events();
    let overruled = events.iter().find(|event| event.kind == WireEventKind::Overruled).expect("told");
    assert_eq!(overruled.rule.as_deref(), Some("second"));
    assert_eq!(case.book.without_effect(), ["second", "other"]);
    assert_eq!(case.book.record("other").expect("a rule").matched, 0, "another role's requests are not counted");
}

#[test]
fn every_match_is_hit_where_a_rule_says_so() {
    let mut every = rule("every", "before_server", json!({ "error": { "code": "OOM" } }));
    every["k"] = json!("every");
    let mut case = Case::redis(&[every]);
    for _ in 0..3 {
        case.client(SET);
        assert!(case.client_gets().starts_with("-OOM "));
    }
    assert_eq!(case.server_gets(), "");
    assert_eq!(case.observed("every"), 3);
}

#[test]
fn a_fatal_error_waits_for_the_end_of_the_servers_message() {
    let mut login = b"\0\0\0\x08\0\x03\0\0".to_vec();
    login.extend_from_slice(b"Q\0\0\0\x0dSELECT 1\0");
    let rule = json!({ "name": "fatal", "match": { "postgres": { "statement": "select" } }, "k": 1,
        "where": "before_server", "action": { "error": { "code": "57P01" } } });
    let mut case = Case::new(Protocol::Postgres, &[rule]);
    let now = case.now;
    case.follower.feed(Downstream, BytesMut::from(&b"S\0\0\0\x08a\0"[..]), now);
    case.follower.feed(Upstream, BytesMut::from(login.as_slice()), now);
    assert_eq!(case.client_gets().as_bytes(), b"S\0\0\0\x08a\0", "in the middle of a setting");
    case.follower.feed(Downstream, BytesMut::from(&b"b\0"[..]), now);
    let (rest, end) = case.passed(Downstream);
    assert!(rest.starts_with("b\0E") && rest.contains("C57P01\0"), "{rest:?}");
    assert_eq!(end, Some(Passed::Cut));
    assert_eq!(case.server_gets().as_bytes(), b"\0\0\0\x08\0\x03\0\0", "the query did not leave");
}

#[test]
fn a_slow_body_comes_in_pieces_after_a_head_that_is_not_slow() {
    let rule = json!({ "name": "slow", "match": { "http": {} }, "k": 1, "where": "before_client",
        "action": { "slow": { "bytes": 4, "every_ms": 10 } } });
    let mut case = Case::new(Protocol::Http, &[rule]);
    case.client("GET / HTTP/1.1\r\n\r\n");
    case.server("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdefHTTP/1.1 ");
    assert_eq!(case.client_gets(), "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n");
    for (ms, piece) in [(9, ""), (10, "abcd"), (19, ""), (20, "ef")] {
        case.at_ms(ms);
        assert_eq!(case.client_gets(), piece, "after {ms} ms");
    }
    assert_eq!(case.observed("slow"), 1);
}

fn tampering(action: &str) -> Value {
    json!({ "name": action, "match": { "http": { "path": "/hook" } }, "k": 1, "where": "before_server", "action": action })
}

const HOOK: &str = "POST /hook HTTP/1.1\r\nhost: 1\r\ncontent-length: 9\r\n\r\n{\"id\":19}";
const OTHER: &str = "GET /other HTTP/1.1\r\nhost: 1\r\n\r\n";

#[test]
fn a_request_goes_twice_and_its_second_answer_goes_nowhere() {
    for cut in 1..HOOK.len() {
        let mut case = Case::new(Protocol::Http, &[tampering("twice")]);
        case.client(&HOOK[..cut]);
        case.client(&[&HOOK[cut..], OTHER].concat());
        assert_eq!(case.server_gets(), [HOOK, HOOK, OTHER].concat(), "cut at {cut}");
        let answer = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
        case.server(&[answer("200 OK"), answer("204 No").replace("\r\n\r\nok", "\r\n\r\n"), answer("404 No")].concat());
        assert_eq!(case.client_gets(), [answer("200 OK"), answer("404 No")].concat());
        let record = case.book.record("twice").expect("a rule");
        assert_eq!((record.matched, record.observed, record.applied), (1, 1, 1));
        case.client(HOOK);
        assert_eq!(case.server_gets(), HOOK, "the rule has had its k");
    }
}

#[test]
fn a_healed_rule_sends_nothing_twice_and_still_keeps_the_second_answer() {
    let mut case = Case::new(Protocol::Http, &[tampering("twice")]);
    case.client(&HOOK[..20]);
    case.book.remove("twice").expect("remove");
    case.client(&HOOK[20..]);
    assert_eq!(case.server_gets(), HOOK);

    let mut case = Case::new(Protocol::Http, &[tampering("twice")]);
    case.client(HOOK);
    case.book.remove("twice").expect("remove");
    case.server("HTTP/1.1 204 No\r\n\r\nHTTP/1.1 204 No\r\n\r\n");
    assert_eq!(case.client_gets(), "HTTP/1.1 204 No\r\n\r\n");
}

#[test]
fn a_forged_request_differs_in_one_digit_of_its_body() {
    for cut in 1..HOOK.len() {
        let mut case = Case::new(Protocol::Http, &[tampering("forge")]);
        case.client(&[OTHER, &HOOK[..cut]].concat());
        case.client(&[&HOOK[cut..], HOOK].concat());
        let forged = HOOK.replace("19", "29");
        assert_eq!(case.server_gets(), [OTHER, &forged, HOOK].concat(), "cut at {cut}");
        assert_eq!(case.observed("forge"), 1);
    }
    let mut case = Case::new(Protocol::Http, &[tampering("forge")]);
    let without = HOOK.replace("19", "no");
    case.client(&[&without, HOOK].concat());
    assert_eq!(case.server_gets(), [&without, HOOK].concat());
    assert_eq!(case.observed("forge"), 0, "nothing was forged, and the record says so");
}

#[test]
fn too_long_a_request_goes_once() {
    let mut case = Case::new(Protocol::Http, &[tampering("twice")]);
    let long = HOOK.replace("length: 9", "length: 300000").replace("19}", &"1".repeat(299_994));
    case.client(&long);
    assert_eq!(case.server_gets(), long);
    assert!(case.book.events().0.iter().any(|event| event.kind == WireEventKind::Overruled));
}

#[test]
fn records_are_bounded_and_say_what_was_lost() {
    let limits = BookLimits { rules_max: 1, events_max: 4, points_max: 2 };
    let mut never = rule("never", "before_server", json!("cut"));
    never["k"] = json!(100);
    let mut case = Case::with_limits(Protocol::Redis, &[never], limits);
    case.book.set_listing(true);
    for _ in 0..10 {
        case.client(SET);
    }
    let (events, events_lost) = case.book.events();
    let (points, points_lost) = case.book.points();
    assert_eq!((events.len(), events_lost), (4, 8), "planned, installed and ten matches");
    assert_eq!((points.len(), points_lost), (2, 8));
    assert_eq!(case.book.record("never").expect("a rule").matched, 10, "the count is exact all the same");
    let another: Rule = serde_json::from_value(rule("another", "before_server", json!("cut"))).expect("a rule");
    case.book.plan(&another).expect_err("full");
}

#[test]
fn a_slow_reader_bounds_what_is_kept() {
    let mut case = Case::redis(&[]);
    let mut fed = 0;
    while case.follower.has_room(Downstream) && fed < 10_000_000 {
        case.server(&"x".repeat(60_000));
        fed += 60_000;
    }
    assert!(fed < 400_000, "{fed}");
    assert_eq!(case.client_gets().len(), fed);
    assert!(case.follower.has_room(Downstream));
}

#[test]
fn a_k_counts_what_its_rule_would_count() {
    let mut case = Case::redis(&[]);
    case.book.set_listing(true);
    case.client("*1\r\n$5\r\nMULTI\r\n");
    case.client(SET);
    case.client("*1\r\n$4\r\nEXEC\r\n");
    case.client(SET);
    let (points, _) = case.book.points();
    let seen: Vec<(String, u64)> = points.iter().map(|point| (point.operation.clone(), point.k)).collect();
    assert_eq!(seen, [("EXEC[SET] k".into(), 1), ("SET k".into(), 2)], "a rule for SET counts the EXEC too");
}

proptest! {
    #[test]
    fn without_a_rule_that_acts_any_bytes_pass_unchanged(
        protocol in prop::sample::select(vec![Protocol::Postgres, Protocol::Redis, Protocol::Http]),
        turns in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..100)), 0..10),
    ) {
        let mut case = Case::new(protocol, &[]);
        case.book.set_listing(true);
        let mut sent = [Vec::new(), Vec::new()];
        let mut passed = [Vec::new(), Vec::new()];
        for (from_client, bytes) in turns {
            let (at, stream) = if from_client { (0, Upstream) } else { (1, Downstream) };
            sent[at].extend_from_slice(&bytes);
            case.follower.feed(stream, BytesMut::from(bytes.as_slice()), case.now);
        }
        for (at, stream) in [(0, Upstream), (1, Downstream)] {
            case.follower.end(stream, case.now);
            loop {
                match case.follower.next(stream, case.now) {
                    Some(Passed::Data(bytes)) => passed[at].extend_from_slice(&bytes),
                    end => {
                        prop_assert_eq!(end, Some(Passed::Eof));
                        break;
                    }
                }
            }
        }
        prop_assert_eq!(passed, sent);
    }
}
