//! One recorded exchange: invoke, send, read, search, classify, complete.
//!
//! Everything that a client, a probe or a final read asks of the system passes through [`Driver::call`], so nothing is
//! asked without being recorded.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nogo_invariants::Canaries;
use nogo_invariants::history::{Args, Completion, F, Invoke, Phase, Scan};

use super::answers;
use crate::client::{Answer, Api, Exchange, LostReason, Outcome, Request, classify};
use crate::recorder::Recorder;

/// What all clients of a run share.
#[derive(Debug)]
pub struct Driver {
    recorder: Recorder,
    apis: Vec<Api>,
    canaries: Arc<Canaries>,
    tenants_with_data: AtomicU64,
    /// Forecast contents that the record already holds in full.
    contents_kept: Mutex<HashSet<(String, String)>>,
    request_timeout: Duration,
}

/// A request with what the record must know about it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The request; its time-out is the driver's unless it hangs up.
    pub request: Request,
    /// What it asks for.
    pub f: F,
    /// The logical client.
    pub process: String,
    /// Label of the tenant that asks.
    pub tenant: Option<String>,
    /// Label of the session whose token is used.
    pub session: Option<String>,
    /// Operation that gave the token.
    pub token_op: Option<u64>,
    /// Index of the API instance, reduced to their number.
    pub instance: usize,
    /// Number of the operation, where it was needed before.
    pub op: Option<u64>,
    /// When the plan wanted it sent; now, where there is no plan.
    pub intended_ns: Option<u64>,
    /// Arguments of the vocabulary.
    pub args: Args,
    /// Label of the session that a 2xx opens or carries on.
    pub opens_session: Option<String>,
    /// Whether it belongs to the load whose figures are tallied.
    pub counts: bool,
}

/// What came of a call.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its number in the history.
    pub op: u64,
    /// The exchange.
    pub exchange: Exchange,
    /// What may be concluded.
    pub outcome: Outcome,
}

impl Done {
    /// The answer, if it was a 2xx.
    pub fn success(&self) -> Option<&Answer> {
        self.exchange.success()
    }

    /// The status, if an answer came.
    pub fn status(&self) -> Option<u16> {
        self.exchange.answer().map(|answer| answer.status)
    }
}

impl Call {
    /// A call of `process` without tenant, session or arguments.
    pub fn new(f: F, process: &str, request: Request) -> Self {
        Self {
            request,
            f,
            process: process.to_owned(),
            tenant: None,
            session: None,
            token_op: None,
            instance: 0,
            op: None,
            intended_ns: None,
            args: Args::default(),
            opens_session: None,
            counts: false,
        }
    }
}

impl Driver {
    /// A driver of `apis` (at least one) that records with `recorder` and searches answers for `canaries`.
    pub fn new(recorder: Recorder, apis: Vec<Api>, canaries: Arc<Canaries>, request_timeout: Duration) -> Self {
        assert!(!apis.is_empty(), "a driver needs an API instance");
        Self {
            recorder,
            apis,
            canaries,
            tenants_with_data: AtomicU64::new(0),
            contents_kept: Mutex::default(),
            request_timeout,
        }
    }

    /// The recorder.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Number of API instances.
    pub fn instances(&self) -> usize {
        self.apis.len()
    }

    /// The run's marks.
    pub fn canaries(&self) -> &Canaries {
        &self.canaries
    }

    /// One more tenant holds data in the system.
    pub fn tenant_has_data(&self) {
        self.tenants_with_data.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends `call` once and records both ends of it.
    pub async fn call(&self, call: Call) -> Done {
        let meant = call.instance % self.apis.len();
        let clock = self.recorder.clock();
        let op = call.op.unwrap_or_else(|| self.recorder.next_op());
        let intended_ns = call.intended_ns.unwrap_or_else(|| clock.now_ns());
        let mut request = call.request;
        if !request.hangs_up {
            request.timeout = self.request_timeout;
        }
        let (f, imitates) = (call.f, call.args.imitates);
        self.recorder.invoke(Invoke {
            i: 0,
            t_ns: 0,
            op,
            process: call.process,
            f,
            route: format!("{} {}", request.method, request.route),
            tenant: call.tenant,
            session: call.session,
            token_op: call.token_op,
            instance: Some(self.apis[meant].name.clone()),
            phase: Phase::Provision,
            intended_ns,
            args: call.args,
        });
        let tenants_with_data = self.tenants_with_data.load(Ordering::Relaxed);
        let (exchange, taken_by) = self.send(meant, &request).await;
        let latency_us = clock.now_ns().saturating_sub(intended_ns) / 1_000;
        let outcome = classify(&exchange, f.is_write());
        let taken_by = (taken_by != meant).then(|| self.apis[taken_by].name.clone());
        let mut completion = Completion { op, latency_us, taken_by, ..Completion::default() };
        match &exchange {
            Exchange::Lost(reason) => completion.error = Some(reason.name().to_owned()),
            Exchange::Answered(answer) => {
                self.describe(&mut completion, imitates.unwrap_or(f), answer, tenants_with_data);
                if let Some(value) = &mut completion.value {
                    value.session = call.opens_session;
                }
            }
        }
        self.recorder.complete(outcome, completion, call.counts);
        Done { op, exchange, outcome }
    }

    /// Sends to the instance that is meant or, as whatever distributes requests does, to the next that takes the
    /// connection. What was once sent is never sent again here.
    async fn send(&self, meant: usize, request: &Request) -> (Exchange, usize) {
        for step in 0..self.apis.len() {
            let instance = (meant + step) % self.apis.len();
            let exchange = self.apis[instance].send(request).await;
            if !matches!(exchange, Exchange::Lost(LostReason::NotConnected)) {
                return (exchange, instance);
            }
        }
        (Exchange::Lost(LostReason::NotConnected), meant)
    }

    fn describe(&self, completion: &mut Completion, shape: F, answer: &Answer, tenants_with_data: u64) {
        completion.status = Some(answer.status);
        completion.retry_after = answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok());
        completion.replayed = answer.header("idempotency-replayed") == Some("true");
        completion.code = answer.problem_code();
        completion.body_sha256 = Some(answers::sha256_hex(&answer.body));
        let headers: String =
            answer.comparable_headers().iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        completion.headers_sha256 = Some(answers::sha256_hex(headers.as_bytes()));
        completion.scan = Some(self.scan(answer, tenants_with_data));
        if answer.is_success() {
            let mut value = answers::recorded(shape, answer);
            self.leave_out_known_content(&mut value);
            completion.value = Some(value);
        }
    }

    /// Every byte of headers and body.
    fn scan(&self, answer: &Answer, tenants_with_data: u64) -> Scan {
        let mut bytes: Vec<u8> = Vec::with_capacity(answer.body.len() + 512);
        for (name, value) in &answer.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b':');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(&answer.body);
        self.canaries.search(&bytes).into_scan(bytes.len() as u64, tenants_with_data)
    }

    fn leave_out_known_content(&self, value: &mut nogo_invariants::history::Answer) {
        let (Some(id), Some(forecast)) = (&value.id, &mut value.forecast) else { return };
        let Some(digest) = &forecast.content_sha256 else { return };
        let is_new = self.contents_kept.lock().expect("contents lock").insert((id.clone(), digest.clone()));
        if !is_new {
            forecast.input = None;
            forecast.result = None;
        }
    }
}

/// A request that was surely never sent may be sent again without a second effect.
pub(super) fn was_never_sent(done: &Done) -> bool {
    matches!(done.exchange, Exchange::Lost(LostReason::NotConnected))
}
