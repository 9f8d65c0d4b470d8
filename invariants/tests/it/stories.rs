//! The laws of single stories, each held against records that keep it, break it, leave it open, and say nothing.

use nogo_invariants::checker::{Checker, judge};
use nogo_invariants::evidence::{Evidence, Manifest};
use nogo_invariants::final_state::*;
use nogo_invariants::history::*;
use nogo_invariants::laws;
use nogo_invariants::story::*;
use nogo_invariants::verdict::{Answer as Word, Verdict};

const TENANT: &str = "tenant-1";
const LABEL: &str = "T0001";
const INVOICE: &str = "invoice-1";

/// A record in which a story came to its good end.
struct Record {
    history: Vec<Event>,
    state: FinalState,
    ops: u64,
}

impl Record {
    fn new() -> Self {
        let header = Header {
            i: 0,
            t_ns: 0,
            format: FORMAT_VERSION,
            run_id: "case".into(),
            seed: "1".into(),
            suite: "sweep/story".into(),
            engine: "process".into(),
            started_unix_us: 0,
        };
        let tenant = TenantRow {
            label: LABEL.into(),
            tenant_id: TENANT.into(),
            plan: "STARTER".into(),
            currency: "EUR".into(),
            zone: "UTC".into(),
            ..TenantRow::default()
        };
        let state = FinalState { rows_read: true, quiesced: true, tenants: vec![tenant], ..FinalState::default() };
        let mut record = Self { history: vec![Event::Header(header)], state, ops: 0 };
        record.phase(Phase::Load);
        record
    }

    fn phase(&mut self, phase: Phase) {
        let (i, t_ns) = self.next();
        self.history.push(Event::Phase(PhaseEvent { i, t_ns, phase, edge: Edge::Start, offered_per_s: 0 }));
    }

    fn next(&self) -> (u64, u64) {
        let i = self.history.len() as u64;
        (i, i * 1_000_000)
    }

    /// A request of the story, and its end: a status with an answer, or none at all.
    fn ask(&mut self, f: F, route: &str, args: Args, end: Option<(u16, Answer)>) -> &mut Self {
        self.ops += 1;
        let (i, t_ns) = self.next();
        self.history.push(Event::Invoke(Invoke {
            i,
            t_ns,
            op: self.ops,
            process: "client".into(),
            f,
            route: route.into(),
            tenant: Some(LABEL.into()),
            session: None,
            token_op: None,
            instance: None,
            phase: Phase::Load,
            intended_ns: t_ns,
            args,
        }));
        let (i, t_ns) = self.next();
        let mut end_of = Completion { i, t_ns, op: self.ops, ..Completion::default() };
        self.history.push(match end {
            Some((status, answer)) => {
                end_of.status = Some(status);
                end_of.value = Some(answer);
                if status < 300 { Event::Ok(end_of) } else { Event::Fail(end_of) }
            }
            None => {
                end_of.error = Some("reset".into());
                Event::Info(end_of)
            }
        });
        self
    }

    /// An invoice that was paid by one charge.
    fn paid(&mut self, kind: &str) -> &mut Self {
        self.state.invoices.push(InvoiceRow {
            tenant_id: TENANT.into(),
            invoice_id: INVOICE.into(),
            kind: kind.into(),
            currency: "EUR".into(),
            state: "paid".into(),
            total_minor: 2_900,
            ..InvoiceRow::default()
        });
        self.state.payments.push(PaymentRow {
            tenant_id: TENANT.into(),
            payment_id: "payment-1".into(),
            invoice_id: INVOICE.into(),
            amount_minor: 2_900,
            currency: "EUR".into(),
            state: "succeeded".into(),
            ..PaymentRow::default()
        });
        self.charge("key-1");
        self.state.billing_runs.push(BillingRun { as_of_us: 1, exit_code: Some(0), killed_on_purpose: false });
        self
    }

    fn charge(&mut self, key: &str) {
        self.state.provider.charges.push(Charge {
            charge_id: format!("ch-{key}"),
            idempotency_key: key.into(),
            amount_minor: 2_900,
            currency: "EUR".into(),
            reference: INVOICE.into(),
            ..Charge::default()
        });
    }

    fn verdict(&self, law: impl Checker + 'static) -> Verdict {
        let manifest = Manifest::default();
        let evidence = Evidence { manifest: &manifest, history: &self.history, final_state: &self.state };
        let law: Box<dyn Checker> = Box::new(law);
        judge(evidence, &[law], &[]).remove(0)
    }
}

fn shapes(verdict: &Verdict) -> Vec<&str> {
    assert_eq!(verdict.answer == Word::Violated, !verdict.violations.is_empty());
    verdict.violations.iter().map(|violation| violation.shape.as_str()).collect()
}

fn with_id(id: &str) -> Answer {
    Answer { id: Some(id.into()), ..Answer::default() }
}

fn a_forecast() -> Record {
    let mut record = Record::new();
    let args = Args { key: Some("k".into()), ..Args::default() };
    record.ask(F::ForecastRequest, "POST /v1/forecasts", args.clone(), None);
    record.ask(F::ForecastRequest, "POST /v1/forecasts", args, Some((202, with_id("forecast-1"))));
    let forecast = ForecastAnswer { state: "succeeded".into(), ..ForecastAnswer::default() };
    let answer = Answer { forecast: Some(forecast), ..with_id("forecast-1") };
    record.ask(F::ForecastRead, "GET /v1/forecasts/{id}", Args::default(), Some((200, answer)));
    record.state.forecasts.push(ForecastRow {
        tenant_id: TENANT.into(),
        forecast_id: "forecast-1".into(),
        state: "succeeded".into(),
        ..ForecastRow::default()
    });
    record.state.usage_events.push(UsageEventRow {
        tenant_id: TENANT.into(),
        usage_event_id: "usage-1".into(),
        forecast_id: "forecast-1".into(),
        invoice_id: Some(INVOICE.into()),
        ..UsageEventRow::default()
    });
    record.paid("subscription");
    record
}

#[test]
fn a_forecast_whose_first_answer_was_lost_comes_to_its_end_once() {
    let verdict = a_forecast().verdict(ForecastBilled);
    assert_eq!(verdict.answer, Word::Valid, "{verdict:?}");
    assert_eq!(verdict.exposure["ends"].total, 1);
}

#[test]
fn a_forecast_charged_twice_is_named() {
    let mut record = a_forecast();
    record.charge("key-2");
    assert_eq!(shapes(&record.verdict(ForecastBilled)), ["charged_more_than_once"]);
}

#[test]
fn a_forecast_counted_twice_or_never_billed_is_named() {
    let mut twice = a_forecast();
    let event = twice.state.usage_events[0].clone();
    twice.state.usage_events.push(UsageEventRow { usage_event_id: "usage-2".into(), ..event });
    assert_eq!(shapes(&twice.verdict(ForecastBilled)), ["not_counted_once"]);
    let mut never = a_forecast();
    never.state.usage_events[0].invoice_id = None;
    assert_eq!(shapes(&never.verdict(ForecastBilled)), ["never_billed"]);
}

#[test]
fn a_forecast_that_is_never_acknowledged_or_hangs_is_named() {
    let mut record = Record::new();
    record.ask(F::ForecastRequest, "POST /v1/forecasts", Args::default(), None);
    record.paid("subscription");
    assert_eq!(shapes(&record.verdict(ForecastBilled)), ["request_never_acknowledged"]);
    let mut hangs = a_forecast();
    hangs.state.forecasts[0].state = "running".into();
    assert_eq!(shapes(&hangs.verdict(ForecastBilled)), ["did_not_succeed"]);
    let mut gone = a_forecast();
    gone.state.forecasts.clear();
    assert_eq!(shapes(&gone.verdict(ForecastBilled)), ["acknowledged_forecast_gone"]);
}

#[test]
fn books_that_the_last_run_left_open_are_named() {
    let mut record = a_forecast();
    record.state.billing_runs.push(BillingRun { as_of_us: 1, exit_code: Some(5), killed_on_purpose: false });
    assert_eq!(shapes(&record.verdict(ForecastBilled)), ["books_never_settled"]);
    let mut killed = a_forecast();
    killed.state.billing_runs = vec![
        BillingRun { as_of_us: 1, exit_code: None, killed_on_purpose: true },
        BillingRun { as_of_us: 1, exit_code: Some(0), killed_on_purpose: false },
    ];
    assert_eq!(killed.verdict(ForecastBilled).answer, Word::Valid, "a killed run is repeated");
}

#[test]
fn a_billing_run_pays_every_invoice_once_and_leaves_no_old_draft() {
    let mut record = Record::new();
    record.paid("subscription");
    assert_eq!(record.verdict(BillingRunSettled).answer, Word::Valid);
    record.state.provider.charges.clear();
    assert_eq!(shapes(&record.verdict(BillingRunSettled)), ["never_charged"]);
    let mut draft = Record::new();
    draft.paid("subscription");
    draft.state.billing_runs[0].as_of_us = 200_000_000_000;
    let late = InvoiceRow { state: "draft".into(), period_start_us: 1, ..InvoiceRow::default() };
    let fresh = InvoiceRow { state: "draft".into(), period_start_us: 199_000_000_000, ..InvoiceRow::default() };
    draft.state.invoices.extend([late, fresh]);
    let verdict = draft.verdict(BillingRunSettled);
    assert_eq!((shapes(&verdict), verdict.violations[0].count), (vec!["never_issued"], 1));
}

fn token(token: &str, parent: Option<&str>, rotated: bool) -> RefreshTokenRow {
    RefreshTokenRow {
        tenant_id: TENANT.into(),
        token: token.into(),
        parent: parent.map(str::to_owned),
        session_id: "session-1".into(),
        rotated_us: rotated.then_some(1),
    }
}

fn a_refresh() -> Record {
    let mut record = Record::new();
    record.ask(F::Signup, "POST /v1/signup", Args::default(), Some((201, Answer::default())));
    record.ask(F::Refresh, "POST /v1/token/refresh", Args::default(), None);
    record.ask(F::Refresh, "POST /v1/token/refresh", Args::default(), Some((200, Answer::default())));
    record.ask(F::Me, "GET /v1/me", Args::default(), Some((200, Answer::default())));
    let session = SessionRow { tenant_id: TENANT.into(), session_id: "session-1".into(), ..SessionRow::default() };
    record.state.sessions.push(session);
    record.state.refresh_tokens = vec![token("a", None, true), token("b", Some("a"), false)];
    record
}

#[test]
fn a_refresh_leaves_one_living_token() {
    assert_eq!(a_refresh().verdict(RefreshKeepsOneFamily).answer, Word::Valid);
}

#[test]
fn two_lines_from_one_token_are_named_while_their_session_lives() {
    let mut record = a_refresh();
    record.state.refresh_tokens.push(token("c", Some("a"), false));
    let found = record.verdict(RefreshKeepsOneFamily);
    assert_eq!(shapes(&found), ["token_with_two_successors", "two_living_tokens"]);
    record.state.refresh_tokens[2].parent = Some("x".into());
    record.state.sessions[0].revoked_us = Some(1);
    assert_eq!(record.verdict(RefreshKeepsOneFamily).answer, Word::Valid, "a revoked session's tokens are dead");
}

#[test]
fn a_user_who_stays_out_and_a_session_nobody_opened_are_named() {
    let mut out = Record::new();
    out.ask(F::Refresh, "POST /v1/token/refresh", Args::default(), None);
    out.ask(F::Me, "GET /v1/me", Args::default(), Some((401, Answer::default())));
    out.state.refresh_tokens = vec![token("a", None, false)];
    assert_eq!(shapes(&out.verdict(RefreshKeepsOneFamily)), ["no_way_back_in"]);
    let mut another = a_refresh();
    let session = SessionRow { session_id: "session-2".into(), ..another.state.sessions[0].clone() };
    another.state.sessions.push(session);
    assert_eq!(shapes(&another.verdict(RefreshKeepsOneFamily)), ["session_nobody_opened"]);
}

fn an_upgrade() -> Record {
    let mut record = Record::new();
    record.ask(F::Other, UPGRADE_ROUTE, Args::default(), Some((202, Answer::default())));
    record.ask(F::Other, UPGRADE_ROUTE, Args::default(), Some((201, with_id("change-1"))));
    let plan = Answer { plan: Some(UPGRADE_PLAN.into()), ..Answer::default() };
    record.ask(F::Plan, "GET /v1/plan", Args::default(), Some((200, plan)));
    record.state.tenants[0].plan = UPGRADE_PLAN.into();
    record.state.plan_upgrades.push(PlanUpgradeRow {
        tenant_id: TENANT.into(),
        change_id: "change-1".into(),
        to_plan: UPGRADE_PLAN.into(),
        state: "applied".into(),
        invoice_id: Some(INVOICE.into()),
        ..PlanUpgradeRow::default()
    });
    record.paid("proration");
    record
}

#[test]
fn an_upgrade_is_applied_and_prorated_once() {
    let verdict = an_upgrade().verdict(UpgradeAppliedOnce);
    assert_eq!(verdict.answer, Word::Valid, "{verdict:?}");
}

#[test]
fn an_upgrade_that_is_doubled_unpaid_or_forgotten_is_named() {
    let mut doubled = an_upgrade();
    let second = PlanUpgradeRow { change_id: "change-2".into(), ..doubled.state.plan_upgrades[0].clone() };
    doubled.state.plan_upgrades.push(second);
    assert_eq!(shapes(&doubled.verdict(UpgradeAppliedOnce)), ["not_one_upgrade"]);
    let mut prorated_twice = an_upgrade();
    let second = InvoiceRow { invoice_id: "invoice-2".into(), ..prorated_twice.state.invoices[0].clone() };
    prorated_twice.state.invoices.push(second);
    assert_eq!(shapes(&prorated_twice.verdict(UpgradeAppliedOnce)), ["not_prorated_once"]);
    let mut forgotten = an_upgrade();
    forgotten.state.tenants[0].plan = "STARTER".into();
    assert_eq!(shapes(&forgotten.verdict(UpgradeAppliedOnce)), ["plan_not_changed"]);
    let mut charged_twice = an_upgrade();
    charged_twice.charge("key-2");
    assert_eq!(shapes(&charged_twice.verdict(UpgradeAppliedOnce)), ["charged_more_than_once"]);
}

#[test]
fn an_upgrade_that_only_waits_is_not_in_force() {
    let mut record = Record::new();
    record.ask(F::Other, UPGRADE_ROUTE, Args::default(), Some((202, Answer::default())));
    for _ in 0..3 {
        record.ask(F::Other, UPGRADE_ROUTE, Args::default(), Some((409, Answer::default())));
    }
    let verdict = record.verdict(UpgradeAppliedOnce);
    assert_eq!(shapes(&verdict), ["upgrade_never_in_force"]);
    assert_eq!(verdict.violations[0].actual, "202, 409 3 times");
}

fn a_webhook() -> Record {
    let mut record = Record::new();
    let args = Args { key: Some("evt-1".into()), id: Some(INVOICE.into()), ..Args::default() };
    record.ask(F::Other, WEBHOOK_ROUTE, args.clone(), None);
    record.ask(F::Other, WEBHOOK_ROUTE, args, Some((200, Answer::default())));
    record.state.webhook_events.push(WebhookEventRow {
        tenant_id: TENANT.into(),
        event_id: "evt-1".into(),
        kind: "charge.succeeded".into(),
        outcome: "applied".into(),
    });
    record.paid("subscription");
    record.state.ledger_entries.push(LedgerEntryRow {
        tenant_id: TENANT.into(),
        posting_kind: "payment_received".into(),
        posting_ref: "payment-1".into(),
        account: "cash".into(),
        debit_minor: 2_900,
        ..LedgerEntryRow::default()
    });
    record
}

#[test]
fn an_event_that_is_sent_twice_is_taken_in_once() {
    let verdict = a_webhook().verdict(WebhookTakenInOnce);
    assert_eq!(verdict.answer, Word::Valid, "{verdict:?}");
}

#[test]
fn an_event_lost_after_its_acknowledgement_or_posted_twice_is_named() {
    let mut lost = a_webhook();
    lost.state.webhook_events.clear();
    assert_eq!(shapes(&lost.verdict(WebhookTakenInOnce)), ["event_not_kept_once"]);
    let mut twice = a_webhook();
    let entry = twice.state.ledger_entries[0].clone();
    twice.state.ledger_entries.push(entry);
    assert_eq!(shapes(&twice.verdict(WebhookTakenInOnce)), ["payment_not_posted_once"]);
    let mut mismatch = a_webhook();
    mismatch.state.webhook_events[0].outcome = "mismatch".into();
    assert_eq!(shapes(&mismatch.verdict(WebhookTakenInOnce)), ["event_not_applied"]);
    let mut unheard = Record::new();
    unheard.ask(F::Other, WEBHOOK_ROUTE, Args::default(), None);
    unheard.paid("subscription");
    assert_eq!(shapes(&unheard.verdict(WebhookTakenInOnce)), ["event_never_acknowledged"]);
}

#[test]
fn a_story_that_was_never_begun_says_nothing() {
    for story in ["forecast", "billing-run", "refresh", "upgrade", "webhook"] {
        let laws = laws::of_story(story).expect("a story");
        let own = laws.into_iter().next().expect("its own law comes first");
        assert!(own.law().starts_with("story."), "{}", own.law());
        let record = Record::new();
        let manifest = Manifest::default();
        let evidence = Evidence { manifest: &manifest, history: &record.history, final_state: &record.state };
        assert_eq!(judge(evidence, &[own], &[])[0].answer, Word::Unknown, "{story}");
    }
    assert!(laws::of_story("nothing").is_none());
}
