//! A proxy whose connections follow a protocol under the rules of a book.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use nogo_faults::{
    Action, BookLimits, Occurrence, Origin, Pattern, Place, Protocol, ProxySpec, Rule, RuleBook, RuleRecord,
    ToxidHandle, ToxidServer, WireEventKind,
};

use crate::echo_rig::LOOPBACK;

pub const LIMIT: Duration = Duration::from_secs(10);

/// A link of the process `worker-1`.
pub struct WireRig {
    pub book: RuleBook,
    pub listen: SocketAddr,
    /// Of the proxy server.
    pub api: SocketAddr,
    _server: ToxidHandle,
}

impl WireRig {
    pub async fn start(upstream: SocketAddr, protocol: Protocol) -> Self {
        let server = ToxidServer::start(1, LOOPBACK).await.expect("start");
        let book = RuleBook::new(Instant::now(), BookLimits::default());
        let spec = ProxySpec { name: "link".into(), listen: LOOPBACK.to_string(), upstream: upstream.to_string() };
        let inspectors = book.inspectors(Origin::of_process("worker-1"), protocol);
        let view = server.create_proxy(&spec, Some(inspectors)).await.expect("create");
        let listen = view.listen.parse().expect("address");
        Self { book, listen, api: server.api_addr(), _server: server }
    }

    /// Plans and installs a rule for the k-th match.
    pub fn rule(&self, name: &str, pattern: Pattern, k: u64, place: Place, action: Action) {
        let role = Some("worker".into());
        self.install(Rule { name: name.into(), role, pattern, k: Occurrence::Kth(k), place, action });
    }

    pub fn install(&self, rule: Rule) {
        self.book.plan(&rule).expect("plan");
        self.book.install(&rule.name).expect("install");
    }

    pub fn record(&self, name: &str) -> RuleRecord {
        self.book.record(name).expect("a rule")
    }

    /// What happened to a rule, in order.
    pub fn story(&self, name: &str) -> Vec<WireEventKind> {
        let (events, lost) = self.book.events();
        assert_eq!(lost, 0);
        events.into_iter().filter(|event| event.rule.as_deref() == Some(name)).map(|event| event.kind).collect()
    }

    /// Why connections were not followed to their end; empty where all were.
    pub fn untracked(&self) -> Vec<String> {
        let reason = |kind| match kind {
            WireEventKind::Untracked { reason } => Some(reason),
            _ => None,
        };
        self.book.events().0.into_iter().filter_map(|event| reason(event.kind)).collect()
    }
}
