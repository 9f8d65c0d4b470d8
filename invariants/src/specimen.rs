//! A small run made in memory in which every law holds: what tests tamper with.
//!
//! It has what a clean run under faults has: a worker's crash with a job tried twice and one given
//! up after three, Redis lost, refusals with Retry-After, a lost answer that was resolved by its
//! key, an edit that may have happened, a session logged out, a full quota. Expected amounts come
//! from [`crate::model`]: this shows that laws notice, not that the oracles are right.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::evidence::{Evidence, Manifest, Settings};
use crate::final_state::*;
use crate::history::*;
use crate::model::{self, Expected, LineKind, TenantFacts};

const MS: u64 = 1_000_000;

/// Wall clock at the start: 2026-09-21T14:13:20Z.
const STARTED_UNIX_US: i64 = 1_790_000_000_000_000;

/// How long an operation takes, milliseconds.
const TAKES_MS: u64 = 20;

/// Evidence that is owned, so that a test can change it.
#[derive(Debug, Clone)]
pub struct Specimen {
    /// What the run was.
    pub manifest: Manifest,
    /// What happened; call [`Specimen::renumber`] after adding or taking lines.
    pub history: Vec<Event>,
    /// What was left.
    pub final_state: FinalState,
    next_op: u64,
}

/// The tenants' labels.
pub const LABELS: [&str; 3] = ["T0001", "T0002", "T0003"];

/// A made-up id that looks like one of the system's.
pub fn id(kind: u32, number: u64) -> String {
    format!("{kind:08x}-0000-7000-8000-{number:012x}")
}

impl Specimen {
    /// The evidence, as laws read it.
    pub fn evidence(&self) -> Evidence<'_> {
        Evidence { manifest: &self.manifest, history: &self.history, final_state: &self.final_state }
    }

    /// Sorts the lines by time, keeping the order of equals, and numbers them.
    pub fn renumber(&mut self) {
        self.history.sort_by_key(Event::time_ns);
        for (i, event) in (0..).zip(&mut self.history) {
            event.set_index(i);
        }
    }

    /// A run without load: header and phases only, and no rows.
    pub fn vacuous() -> Self {
        let mut specimen = Self::empty();
        specimen.phases();
        specimen.renumber();
        specimen
    }

    /// The whole clean run.
    pub fn clean() -> Self {
        let mut specimen = Self::empty();
        specimen.phases();
        specimen.processes();
        specimen.faults();
        specimen.tenants();
        specimen.steady_load();
        specimen.edits();
        specimen.forecasts();
        specimen.sessions_end();
        specimen.bill();
        specimen.outputs();
        specimen.renumber();
        specimen
    }

    fn empty() -> Self {
        let header = Header {
            i: 0,
            t_ns: 0,
            format: FORMAT_VERSION,
            run_id: "specimen".to_owned(),
            seed: "5eed".to_owned(),
            suite: "smoke".to_owned(),
            engine: "process".to_owned(),
            started_unix_us: STARTED_UNIX_US,
        };
        let settings = Settings { error_samples_min: 20, latency_samples_min: 20, ..Settings::default() };
        let manifest = Manifest {
            run_id: header.run_id.clone(),
            seed: header.seed.clone(),
            suite: header.suite.clone(),
            engine: header.engine.clone(),
            settings,
            ..Manifest::default()
        };
        Self {
            manifest,
            history: vec![Event::Header(header)],
            final_state: FinalState { rows_read: true, ..FinalState::default() },
            next_op: 1,
        }
    }

    fn phases(&mut self) {
        let bounds = [0, 1_000, 4_000, 5_000, 15_000, 45_000, 50_000, 55_000, 60_000];
        for (phase, edges) in Phase::ALL.into_iter().zip(bounds.windows(2)) {
            for (edge, at_ms) in [(Edge::Start, edges[0]), (Edge::End, edges[1])] {
                let t_ns = (at_ms + u64::from(edge == Edge::Start)) * MS;
                self.history.push(Event::Phase(PhaseEvent { i: 0, t_ns, phase, edge, offered_per_s: 0 }));
            }
        }
    }

    fn processes(&mut self) {
        let mut say = |at_ms: u64, name: &str, event, code, signal| {
            let (name, t_ns) = (name.to_owned(), at_ms * MS);
            self.history.push(Event::Process(ProcessEvent { i: 0, t_ns, name, event, planned: true, code, signal }));
        };
        for name in ["api-1", "worker-1", "worker-2"] {
            say(100, name, ProcessChange::Started, None, None);
            say(200, name, ProcessChange::Ready, None, None);
            say(59_500, name, ProcessChange::Exited, Some(0), None);
        }
        say(20_000, "worker-1", ProcessChange::Killed, None, Some(9));
        say(25_000, "worker-1", ProcessChange::Started, None, None);
        say(25_500, "worker-1", ProcessChange::Ready, None, None);
        say(56_500, "biller-1", ProcessChange::Exited, Some(5), None);
        say(57_500, "biller-1", ProcessChange::Exited, Some(0), None);
    }

    fn faults(&mut self) {
        for (id, kind, target, from_ms) in
            [("F1", "worker_crash", "worker-1", 20_000), ("F2", "redis_loss", "redis", 30_000)]
        {
            self.manifest.faults_requested.push(kind.to_owned());
            let states = [
                (FaultState::Planned, 1_000),
                (FaultState::Requested, from_ms - 10),
                (FaultState::Installed, from_ms),
                (FaultState::Observed, from_ms + 300),
                (FaultState::Removed, from_ms + 5_000),
                (FaultState::Recovered, from_ms + 6_000),
            ];
            for (state, at_ms) in states {
                let kinds: &[ProofKind] = match state {
                    FaultState::Observed => &[ProofKind::Control, ProofKind::Effect],
                    FaultState::Recovered => &[ProofKind::Recovery],
                    _ => &[],
                };
                let proof = |kind: &ProofKind| Proof {
                    kind: *kind,
                    source: "waitpid".to_owned(),
                    what: "seen".to_owned(),
                    holds: true,
                };
                self.history.push(Event::Fault(FaultEvent {
                    i: 0,
                    t_ns: at_ms * MS,
                    id: id.to_owned(),
                    kind: kind.to_owned(),
                    target: target.to_owned(),
                    state,
                    proofs: kinds.iter().map(proof).collect(),
                    goodput_floor_percent: (state == FaultState::Planned).then_some(50),
                    reads_floor_percent: None,
                    refusal_wait_ms_min: None,
                    outage_ms_max: (state == FaultState::Planned).then_some(1_500),
                    recover_ms_max: (state == FaultState::Planned).then_some(15_000),
                    detail: None,
                }));
            }
        }
    }

    /// Adds an operation with its end, and gives its number. `end.status` decides how it ended.
    pub fn ask(&mut self, at_ms: u64, f: F, tenant: &str, args: Args, end: Completion) -> u64 {
        let op = self.next_op;
        self.next_op += 1;
        let imitated = args.imitates.unwrap_or(f);
        let phase = Phase::ALL
            .into_iter()
            .zip([1_000, 4_000, 5_000, 15_000, 45_000, 50_000, 55_000, 60_001])
            .find(|(_, until_ms)| at_ms < *until_ms)
            .map_or(Phase::Final, |(phase, _)| phase);
        let owned = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        self.history.push(Event::Invoke(Invoke {
            i: 0,
            t_ns: at_ms * MS,
            op,
            process: format!("client-{tenant}"),
            f,
            route: route(imitated).to_owned(),
            tenant: owned(tenant),
            session: if f == F::AuthProbe { None } else { owned(tenant).map(|tenant| format!("{tenant}/s1")) },
            token_op: None,
            instance: Some("api-1".to_owned()),
            phase,
            intended_ns: at_ms * MS,
            args,
        }));
        let end = Completion { op, t_ns: (at_ms + TAKES_MS) * MS, latency_us: TAKES_MS * 1_000, ..end };
        self.history.push(match end.status {
            Some(200..300) => Event::Ok(end),
            Some(400..500) => Event::Fail(end),
            _ if f.is_write() => Event::Info(end),
            _ => Event::Fail(end),
        });
        op
    }

    fn tenants(&mut self) {
        let plans = [("STARTER", "USD"), ("PRO", "EUR"), ("FREE", "JPY")];
        for (n, (label, (plan, currency))) in (1..).zip(LABELS.into_iter().zip(plans)) {
            let tenant_id = id(1, n);
            let answer = Answer {
                tenant_id: Some(tenant_id.clone()),
                user_id: Some(id(2, n)),
                session: Some(format!("{label}/s1")),
                expires_in_s: Some(300),
                ..Answer::default()
            };
            self.ask(1_100 + n * 100, F::Signup, label, Args::default(), yes(201, answer, Some(label)));
            self.final_state.tenants.push(TenantRow {
                label: label.to_owned(),
                tenant_id: tenant_id.clone(),
                plan: plan.to_owned(),
                currency: currency.to_owned(),
                zone: "Europe/Warsaw".to_owned(),
                tax_rate_ppm: 230_000,
                signed_up_us: unix_us(1_100 + n * 100),
                payment_token: (plan != "FREE").then(|| format!("tok-{label}")),
                payment_declines: false,
            });
            self.final_state.users.push(UserRow {
                tenant_id: tenant_id.clone(),
                user_id: id(2, n),
                role: "owner".to_owned(),
            });
            let created = scenario(n, 1);
            let args = Args { key: Some(format!("create-{label}")), ..Args::default() };
            self.ask(2_000 + n * 100, F::ScenarioCreate, label, args, yes(201, created, Some(label)));
            self.final_state.scenarios.push(ScenarioRow {
                tenant_id,
                scenario_id: id(3, n),
                version: 1,
                owners_found: vec![label.to_owned()],
            });
        }
    }

    /// Reads by everybody, attempts on others' objects and probes, before, during and after faults.
    fn steady_load(&mut self) {
        for at_ms in (5_050..57_000).step_by(500) {
            for (n, label) in (1..).zip(LABELS) {
                let me = Answer { tenant_id: Some(id(1, n)), user_id: Some(id(2, n)), ..Answer::default() };
                let honest = self.ask(at_ms + n, F::Me, label, Args::default(), yes(200, me, Some(label)));
                let attack = ["none", "garbage", "expired", "wrong_key"][(at_ms / 500 % 4) as usize];
                let probe = Args {
                    imitates: Some(F::Me),
                    attack: Some(attack.to_owned()),
                    twin: Some(honest),
                    ..Args::default()
                };
                self.ask(at_ms + n + 30, F::AuthProbe, "", probe, no(401));
            }
            let shown = Answer {
                dashboard: Some(DashboardAnswer { scenarios: 1, forecasts: BTreeMap::new() }),
                ..Answer::default()
            };
            self.ask(at_ms + 60, F::Dashboard, LABELS[2], Args::default(), yes(200, shown, Some(LABELS[2])));
            let theirs = Args { id: Some(id(3, 3)), ..Args::default() };
            let owner =
                self.ask(at_ms + 90, F::ScenarioRead, LABELS[2], theirs, yes(200, scenario(3, 1), Some(LABELS[2])));
            let absent = Args { imitates: Some(F::ScenarioRead), id: Some(id(3, 999)), ..Args::default() };
            let absent = self.ask(at_ms + 120, F::Absent, LABELS[0], absent, no(404));
            let foreign = Args {
                imitates: Some(F::ScenarioRead),
                id: Some(id(3, 3)),
                owner: Some(LABELS[2].to_owned()),
                owner_op: Some(owner),
                twin: Some(absent),
                ..Args::default()
            };
            self.ask(at_ms + 150, F::Foreign, LABELS[0], foreign, no(404));
        }
        // 100 now for 110 a year later, at four rates: worth 10 less what waiting costs.
        for (at_ms, rate, value) in [
            (7_700, "0", "10.000000000000"),
            (13_700, "0.1", "0.000000000000"),
            (20_400, "0.25", "-12.000000000000"),
            (36_700, "1", "-45.000000000000"),
        ] {
            let args = Args {
                calculator: Some("npv".to_owned()),
                input: Some(serde_json::json!({"rate": rate, "flows": ["-100", "110"]})),
                ..Args::default()
            };
            let answer = Answer { calculation: Some(serde_json::json!({ "value": value })), ..Answer::default() };
            self.ask(at_ms, F::Calculate, LABELS[0], args, yes(200, answer, None));
        }
        // While Redis is away the limiter's floor and the pool refuse, and say when to come back.
        for (at_ms, f, status) in [(31_100, F::Login, 429), (31_200, F::Usage, 503), (31_300, F::Plan, 503)] {
            self.ask(at_ms, f, LABELS[1], Args::default(), Completion { retry_after: true, ..no(status) });
        }
    }

    fn edits(&mut self) {
        // T0001: an edit acknowledged, another one refused for its version, and reads after it.
        let edit = Args { id: Some(id(3, 1)), if_version: Some(1), ..Args::default() };
        self.ask(12_000, F::ScenarioEdit, LABELS[0], edit.clone(), yes(200, scenario(1, 2), Some(LABELS[0])));
        self.ask(12_100, F::ScenarioEdit, LABELS[0], edit, no(412));
        for (at_ms, version) in [(11_000, 1), (12_005, 1), (12_500, 2), (32_000, 2)] {
            let args = Args { id: Some(id(3, 1)), ..Args::default() };
            self.ask(at_ms, F::ScenarioRead, LABELS[0], args, yes(200, scenario(1, version), Some(LABELS[0])));
        }
        self.final_state.scenarios[0].version = 2;
        // T0002: an edit whose answer was lost; it happened.
        let edit = Args { id: Some(id(3, 2)), if_version: Some(1), ..Args::default() };
        let lost = Completion { status: None, error: Some("timeout".to_owned()), ..Completion::default() };
        self.ask(22_000, F::ScenarioEdit, LABELS[1], edit, lost);
        let args = Args { id: Some(id(3, 2)), ..Args::default() };
        self.ask(23_000, F::ScenarioRead, LABELS[1], args, yes(200, scenario(2, 2), Some(LABELS[1])));
        self.final_state.scenarios[1].version = 2;
    }

    fn forecasts(&mut self) {
        // (tenant, asked at, attempts): all succeed at the last attempt, but those with three.
        let plan = [
            (1, 6_200, 1),
            (1, 14_200, 1),
            (1, 20_200, 2),
            (1, 40_200, 1),
            (2, 7_200, 1),
            (2, 19_800, 3),
            (3, 8_200, 1),
            (3, 9_200, 1),
            (3, 10_200, 1),
            (3, 30_200, 1),
            (3, 31_400, 1),
        ];
        for (number, (tenant, at_ms, attempts)) in (1..).zip(plan) {
            let key = format!("forecast-{number}");
            let args = Args { key: Some(key), scenario_id: Some(id(3, tenant)), ..Args::default() };
            let label = LABELS[tenant as usize - 1];
            let queued = ForecastAnswer { state: "queued".to_owned(), ..ForecastAnswer::default() };
            let answer = forecast_answer(number, tenant, queued);
            self.ask(at_ms, F::ForecastRequest, label, args, yes(202, answer, Some(label)));
            self.compute(number, tenant, at_ms, attempts);
        }
        // A full quota, refused; a lost answer, and the same key again: one effect.
        let args =
            |key: &str, tenant| Args { key: Some(key.to_owned()), scenario_id: Some(id(3, tenant)), ..Args::default() };
        self.ask(41_000, F::ForecastRequest, LABELS[2], args("forecast-full", 3), no(402));
        let lost = Completion { error: Some("reset".to_owned()), ..Completion::default() };
        self.ask(33_100, F::ForecastRequest, LABELS[1], args("forecast-lost", 2), lost);
        let queued = ForecastAnswer { state: "queued".to_owned(), ..ForecastAnswer::default() };
        let again = yes(202, forecast_answer(12, 2, queued), Some(LABELS[1]));
        let again = Completion { replayed: true, ..again };
        self.ask(34_200, F::ForecastRequest, LABELS[1], args("forecast-lost", 2), again);
        self.compute(12, 2, 33_100, 1);
        self.quota_periods();
    }

    /// The rows of a forecast, and two reads once it has ended.
    fn compute(&mut self, number: u64, tenant: u64, at_ms: u64, attempts: u64) {
        let input = input(tenant);
        let result = match model::forecast_as(&input, "1") {
            Ok(Expected::Result(result)) => result,
            _ => Value::Null,
        };
        let hash = model::result_hash("1", &input, &result).unwrap_or_default();
        let (tenant_id, gives_up) = (id(1, tenant), attempts == 3);
        let ended_ms = at_ms + 30 + attempts * 800;
        let state = if gives_up { "failed" } else { "succeeded" };
        let code = gives_up.then(|| "attempts_exhausted".to_owned());
        self.final_state.forecasts.push(ForecastRow {
            tenant_id: tenant_id.clone(),
            forecast_id: id(4, number),
            scenario_id: id(3, tenant),
            scenario_version: if tenant == 1 && at_ms > 12_000 { 2 } else { 1 },
            requested_by: id(2, tenant),
            state: state.to_owned(),
            engine_version: (!gives_up).then(|| "1".to_owned()),
            input: Some(input.clone()),
            result: (!gives_up).then(|| result.clone()),
            result_hash: (!gives_up).then(|| hash.clone()),
            error_code: code.clone(),
            quota_state: if gives_up { "released" } else { "consumed" }.to_owned(),
            quota_period: 0,
            requested_us: unix_us(at_ms + 10),
            started_us: Some(unix_us(at_ms + 100)),
            finished_us: Some(unix_us(ended_ms)),
            owners_found: vec![LABELS[tenant as usize - 1].to_owned()],
        });
        self.final_state.jobs.push(JobRow {
            tenant_id: tenant_id.clone(),
            job_id: id(5, number),
            subject_id: id(4, number),
            state: if gives_up { "dead" } else { "succeeded" }.to_owned(),
            attempts,
            fence: (number * 10 + attempts) as i64,
            seq: number as i64,
            enqueued_us: unix_us(at_ms + 10),
            finished_us: Some(unix_us(ended_ms)),
            last_error_code: code.clone(),
        });
        for attempt in 1..=attempts {
            let is_last = attempt == attempts;
            let outcome = if is_last && !gives_up { "succeeded" } else { "lease_lost" };
            self.final_state.job_attempts.push(JobAttemptRow {
                tenant_id: tenant_id.clone(),
                job_id: id(5, number),
                attempt,
                fence: (number * 10 + attempt) as i64,
                worker: format!("worker-{}", 1 + (number + attempt) % 2),
                claimed_us: unix_us(at_ms + 50 + (attempt - 1) * 800),
                ended_us: Some(unix_us(at_ms + 30 + attempt * 800)),
                outcome: Some(outcome.to_owned()),
            });
        }
        if !gives_up {
            self.final_state.usage_events.push(UsageEventRow {
                tenant_id,
                usage_event_id: id(6, number),
                forecast_id: id(4, number),
                occurred_us: unix_us(ended_ms),
                invoice_id: None,
            });
        }
        let content_sha256 = crate::forecast::content_sha256(&input, &result).ok();
        for (read, in_full) in [(1, true), (2, false)] {
            let shown = ForecastAnswer {
                state: state.to_owned(),
                error_code: code.clone(),
                engine_version: (!gives_up).then(|| "1".to_owned()),
                result_hash: (!gives_up).then(|| hash.clone()),
                content_sha256: content_sha256.clone().filter(|_| !gives_up),
                input: in_full.then(|| input.clone()),
                result: (in_full && !gives_up).then(|| result.clone()),
                ..ForecastAnswer::default()
            };
            let label = LABELS[tenant as usize - 1];
            let args = Args { id: Some(id(4, number)), ..Args::default() };
            let answer = forecast_answer(number, tenant, shown);
            self.ask(ended_ms + read * 100, F::ForecastRead, label, args, yes(200, answer, Some(label)));
        }
    }

    fn quota_periods(&mut self) {
        for tenant in 1..=3 {
            let tenant_id = id(1, tenant);
            let held = |row: &&ForecastRow| row.tenant_id == tenant_id && row.quota_state == "consumed";
            let taken = self.final_state.forecasts.iter().filter(held).count() as i64;
            self.final_state.quota_periods.push(QuotaPeriodRow { tenant_id, period_index: 0, taken });
        }
    }

    /// A second session of T0002 is logged out, and refused from then on.
    fn sessions_end(&mut self) {
        let me = Answer { tenant_id: Some(id(1, 2)), user_id: Some(id(2, 2)), ..Answer::default() };
        let mut ops = vec![self.ask(37_000, F::Me, LABELS[1], Args::default(), yes(200, me, Some(LABELS[1])))];
        let logout = self.ask(38_000, F::Logout, LABELS[1], Args::default(), yes(204, Answer::default(), None));
        ops.push(logout);
        ops.push(self.ask(40_000, F::Me, LABELS[1], Args::default(), no(401)));
        for event in &mut self.history {
            if let Event::Invoke(invoke) = event
                && ops.contains(&invoke.op)
            {
                invoke.session = Some("T0002/s2".to_owned());
            }
        }
    }

    /// Two periods: the first biller's run met a lost answer and left a payment open, the second
    /// one settled it.
    fn bill(&mut self) {
        let as_of_us = unix_us(40 * 86_400_000);
        self.final_state.billing_runs = vec![
            BillingRun { as_of_us, exit_code: Some(5), killed_on_purpose: false },
            BillingRun { as_of_us, exit_code: Some(0), killed_on_purpose: false },
        ];
        let (Ok(as_of), tenants) = (jiff::Timestamp::from_microsecond(as_of_us), self.final_state.tenants.clone())
        else {
            return;
        };
        for tenant in tenants {
            let (Some(plan), Ok(signup)) =
                (model::Plan::named(&tenant.plan), jiff::Timestamp::from_microsecond(tenant.signed_up_us))
            else {
                continue;
            };
            let mine = |row: &&UsageEventRow| row.tenant_id == tenant.tenant_id;
            let stamps = self.final_state.usage_events.iter().filter(mine).map(|row| row.occurred_us);
            let usage = stamps
                .filter_map(|at| jiff::Timestamp::from_microsecond(at).ok())
                .map(|at| model::UsageEvent { at, committed_at: None })
                .collect();
            let facts = TenantFacts {
                zone: tenant.zone.clone(),
                signup,
                currency: tenant.currency.clone(),
                tax_rate_ppm: tenant.tax_rate_ppm,
                plans: vec![(signup, plan)],
                usage,
            };
            for expected in model::expected_invoices(&facts, as_of).unwrap_or_default() {
                self.invoice(&tenant, &expected);
            }
        }
        self.final_state.provider.requests_seen = self.final_state.provider.charges.len() as u64 + 1;
        self.final_state.provider.answers_lost = 1;
    }

    fn invoice(&mut self, tenant: &TenantRow, expected: &model::ExpectedInvoice) {
        let state = &mut self.final_state;
        let number = state.invoices.len() as u64 + 1;
        let invoice_id = id(7, number);
        let line = |(line_no, line): (i64, &model::ExpectedLine)| InvoiceLineRow {
            line_no,
            kind: if line.kind == LineKind::Base { "base" } else { "usage" }.to_owned(),
            quantity: line.quantity as i64,
            unit_price_minor: line.unit_minor,
            amount_minor: line.amount_minor,
            tax_minor: line.tax_minor,
        };
        let lines: Vec<InvoiceLineRow> = (1..).zip(&expected.lines).map(line).collect();
        let is_first = expected.period_index == 0;
        if !is_first {
            for event in state.usage_events.iter_mut().filter(|event| event.tenant_id == tenant.tenant_id) {
                event.invoice_id = Some(invoice_id.clone());
            }
        }
        let (amount, currency) = (expected.total_minor, expected.currency.clone());
        let key = format!("inv-{}-{invoice_id}-invoice", tenant.tenant_id);
        state.provider.charges.push(Charge {
            charge_id: format!("ch-{number}"),
            idempotency_key: key.clone(),
            amount_minor: amount,
            currency: currency.clone(),
            reference: invoice_id.clone(),
            payment_token: tenant.payment_token.clone().unwrap_or_default(),
            charged_t_ns: (56_000 + number) * MS,
        });
        state.payments.push(PaymentRow {
            tenant_id: tenant.tenant_id.clone(),
            payment_id: id(8, number),
            invoice_id: invoice_id.clone(),
            purpose: "invoice".to_owned(),
            idempotency_key: key,
            amount_minor: amount,
            currency: currency.clone(),
            state: "succeeded".to_owned(),
            provider_charge_id: Some(format!("ch-{number}")),
        });
        let net = amount - expected.tax_minor;
        for (n, (kind, reference, account, debit, credit)) in (0..).zip([
            ("invoice_issued", invoice_id.clone(), "accounts_receivable", amount, 0),
            ("invoice_issued", invoice_id.clone(), "revenue", 0, net),
            ("invoice_issued", invoice_id.clone(), "tax_payable", 0, expected.tax_minor),
            ("payment_received", id(8, number), "cash", amount, 0),
            ("payment_received", id(8, number), "accounts_receivable", 0, amount),
        ]) {
            state.ledger_entries.push(LedgerEntryRow {
                tenant_id: tenant.tenant_id.clone(),
                entry_id: id(9, number * 10 + n),
                posting_kind: kind.to_owned(),
                posting_ref: reference,
                account: account.to_owned(),
                currency: currency.clone(),
                debit_minor: debit,
                credit_minor: credit,
            });
        }
        let shown = InvoiceAnswer {
            state: "paid".to_owned(),
            number: Some(i64::from(expected.period_index) + 1),
            period_index: i64::from(expected.period_index),
            currency: currency.clone(),
            tax_minor: expected.tax_minor,
            total_minor: amount,
            lines: lines
                .iter()
                .map(|line| InvoiceLineAnswer {
                    kind: line.kind.clone(),
                    quantity: line.quantity,
                    unit_price_minor: line.unit_price_minor,
                    amount_minor: line.amount_minor,
                    tax_minor: line.tax_minor,
                })
                .collect(),
        };
        state.invoices.push(InvoiceRow {
            tenant_id: tenant.tenant_id.clone(),
            invoice_id: invoice_id.clone(),
            period_index: i64::from(expected.period_index),
            kind: "subscription".to_owned(),
            period_start_us: expected.period_start.as_microsecond(),
            period_end_us: expected.period_end.as_microsecond(),
            currency,
            state: "paid".to_owned(),
            number: Some(i64::from(expected.period_index) + 1),
            tax_minor: expected.tax_minor,
            total_minor: amount,
            lines,
        });
        let args = Args { id: Some(invoice_id.clone()), ..Args::default() };
        let answer = Answer { id: Some(invoice_id), invoice: Some(shown), ..Answer::default() };
        self.ask(58_000 + number * 30, F::InvoiceRead, &tenant.label, args, yes(200, answer, Some(&tenant.label)));
    }

    fn outputs(&mut self) {
        let state = &mut self.final_state;
        state.quiesced = true;
        state.connections = ConnectionHygiene {
            sampled: true,
            connections: 12,
            idle_in_transaction: 0,
            idle_limit_s: 5,
            in_use: [("api-1".to_owned(), 0), ("worker-1".to_owned(), 1)].into(),
        };
        state.replica_reads = [("replica-1".to_owned(), 40), ("replica-2".to_owned(), 38)].into();
        state.leaks = ["log:api-1", "metrics:api-1", "log:worker-1"]
            .map(|place| LeakScan { place: place.to_owned(), bytes: 5_000, ..LeakScan::default() })
            .into();
        state.redis = vec![RedisFinding {
            key_kind: "scenario".to_owned(),
            tenant: Some(LABELS[0].to_owned()),
            owners_found: vec![LABELS[0].to_owned()],
            keys: 1,
        }];
    }
}

fn unix_us(at_ms: u64) -> i64 {
    STARTED_UNIX_US + at_ms as i64 * 1_000
}

fn scenario(number: u64, version: u64) -> Answer {
    Answer {
        id: Some(id(3, number)),
        version: Some(version),
        etag: Some(format!("\"{version}\"")),
        content_sha256: Some(format!("{:064x}", number * 100 + version)),
        ..Answer::default()
    }
}

fn forecast_answer(number: u64, tenant: u64, forecast: ForecastAnswer) -> Answer {
    Answer { id: Some(id(4, number)), scenario_id: Some(id(3, tenant)), forecast: Some(forecast), ..Answer::default() }
}

fn input(tenant: u64) -> Value {
    json!({
        "currency": "USD", "start_month": "2026-01", "horizon_months": 3,
        "opening_cash": "1000", "discount_rate_annual": "0.1", "tax_rate": "0.2",
        "revenue": [{
            "name": format!("line of {tenant}"), "opening_units": "10", "adds_per_month": "1",
            "adds_growth_monthly": "0", "churn_monthly": "0.01", "price": "10.5",
            "price_growth_annual": "0", "collection_lag_months": 1
        }],
        "costs": [{"kind": "fixed", "name": "rent", "amount": "5", "growth_annual": "0"}],
    })
}

/// A 2xx with its answer; `owner`: whose canary it holds.
pub fn yes(status: u16, answer: Answer, owner: Option<&str>) -> Completion {
    let owners_found = owner.map(str::to_owned).into_iter().collect();
    let scan = Scan { bytes: 500, owners_found, tenants_with_data: 3, ..Scan::default() };
    Completion { status: Some(status), value: Some(answer), scan: Some(scan), ..Completion::default() }
}

/// A refusal.
pub fn no(status: u16) -> Completion {
    let digest = Some(format!("{status:064x}"));
    let scan = Scan { bytes: 80, tenants_with_data: 3, ..Scan::default() };
    Completion {
        status: Some(status),
        body_sha256: digest.clone(),
        headers_sha256: digest,
        scan: Some(scan),
        ..Completion::default()
    }
}

fn route(f: F) -> &'static str {
    match f {
        F::Signup => "POST /v1/signup",
        F::Login => "POST /v1/login",
        F::Refresh => "POST /v1/token/refresh",
        F::Logout => "POST /v1/logout",
        F::Me => "GET /v1/me",
        F::ScenarioCreate => "POST /v1/scenarios",
        F::ScenarioRead => "GET /v1/scenarios/{id}",
        F::ScenarioList => "GET /v1/scenarios",
        F::ScenarioEdit => "PUT /v1/scenarios/{id}",
        F::ForecastRequest => "POST /v1/forecasts",
        F::ForecastRead => "GET /v1/forecasts/{id}",
        F::ForecastList => "GET /v1/forecasts",
        F::Dashboard => "GET /v1/dashboard",
        F::Plan => "GET /v1/plan",
        F::Usage => "GET /v1/usage",
        F::InvoiceList => "GET /v1/invoices",
        F::InvoiceRead => "GET /v1/invoices/{id}",
        F::Calculate => "POST /v1/calculators/npv",
        F::Other => "GET /v1/sessions",
        F::Foreign | F::Absent | F::AuthProbe | F::Health => "GET /livez",
    }
}
