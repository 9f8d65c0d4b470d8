//! Single harms done to a clean run, each with the law that must notice it, and no other.
//!
//! They stand for classes of bugs: what a dropped unique index, a fail-open session check, a stale
//! cache or a lost job leave behind in the evidence. For tests, and to show that laws can fail.

use serde_json::json;

use crate::final_state::{Charge, FinalState, WebhookEventRow};
use crate::history::*;
use crate::specimen::{LABELS, Specimen, id, no, yes};

/// A harm.
#[derive(Clone, Copy)]
pub struct Tamper {
    /// What was done.
    pub name: &'static str,
    /// Laws that must be violated; no other may be.
    pub laws: &'static [&'static str],
    /// A shape that must be among the findings.
    pub shape: &'static str,
    /// Does it to a clean run.
    pub apply: fn(&mut Specimen),
}

const fn tamper(
    name: &'static str,
    laws: &'static [&'static str],
    shape: &'static str,
    apply: fn(&mut Specimen),
) -> Tamper {
    Tamper { name, laws, shape, apply }
}

const CORRECT: &str = "forecast.correctness";
const SAME: &str = "forecast.determinism";
const ISOLATION: &str = "tenancy.isolation";
const BILLING: &str = "billing.exactly_once";
const AUTH: &str = "auth.fails_closed";
const LOST: &str = "queue.no_lost_jobs";
const ONCE: &str = "queue.completed_once";
const WRITES: &str = "store.read_your_writes";

/// All of them, by law.
pub const ALL: &[Tamper] = &[
    tamper("an amount is off by a cent in the row", &[CORRECT, SAME], "amount_differs_from_the_oracle", |s| {
        result(s, 0)["months"][1]["cash"] = json!("1.23");
    }),
    tamper("every amount is off, and the hash says so rightly", &[CORRECT], "amount_differs_from_the_oracle", |s| {
        consistently_wrong(s);
    }),
    tamper("a calculator is off by its last digit", &[CORRECT], "calculator_differs_from_the_oracle", |s| {
        let op = of_kind(s, F::Calculate)[1];
        let answer = end(s, op).value.as_mut().expect("an answer");
        answer.calculation = Some(json!({"value": "0.000000000001"}));
    }),
    tamper("a forecast fails as out of range though it is not", &[CORRECT], "failed_though_in_range", |s| {
        state(s).forecasts[5].error_code = Some("amount_out_of_range".to_owned());
    }),
    tamper("a forecast is computed from an old version", &[CORRECT], "older_version_was_computed", |s| {
        state(s).forecasts[3].scenario_version = 1;
    }),
    tamper("one of four equal forecasts has another hash", &[SAME], "same_input_other_result", |s| {
        state(s).forecasts[3].result_hash = Some("ab".repeat(32));
    }),
    tamper("an answer shows another content than the row", &[SAME], "answer_differs_from_the_stored", |s| {
        let read = nth(s, F::ForecastRead, 3);
        forecast(s, read).content_sha256 = Some("cd".repeat(32));
    }),
    tamper("an answer holds a foreign canary", &[ISOLATION], "answer_holds_foreign_data", |s| {
        let read = nth(s, F::Dashboard, 5);
        end(s, read).scan.get_or_insert_default().owners_found.push(LABELS[0].to_owned());
    }),
    tamper("a list names a foreign object", &[ISOLATION], "answer_names_foreign_object", |s| {
        let read = nth(s, F::Dashboard, 7);
        answer(s, read).items.push(Item { id: id(4, 1), ..Item::default() });
    }),
    tamper("a foreign object is served", &[ISOLATION], "foreign_object_served", |s| {
        let attempt = nth(s, F::Foreign, 9);
        becomes(s, attempt, yes(200, Answer::default(), None));
    }),
    tamper("a foreign id is told from an absent one", &[ISOLATION], "foreign_told_from_absent", |s| {
        let attempt = nth(s, F::Foreign, 9);
        end(s, attempt).body_sha256 = Some("ef".repeat(32));
    }),
    tamper("a foreign id gets another status than an absent one", &[ISOLATION], "foreign_told_from_absent", |s| {
        let attempt = nth(s, F::Foreign, 11);
        end(s, attempt).status = Some(412);
    }),
    tamper("a forecast is made of another tenant's scenario", &[ISOLATION], "row_refers_across_tenants", |s| {
        state(s).forecasts[7].scenario_id = id(3, 2);
    }),
    tamper("a row holds a foreign canary", &[ISOLATION], "row_holds_foreign_data", |s| {
        state(s).scenarios[0].owners_found = vec![LABELS[2].to_owned()];
    }),
    tamper("a cached value holds a foreign canary", &[ISOLATION], "cache_holds_foreign_data", |s| {
        state(s).redis[0].owners_found = vec![LABELS[1].to_owned()];
    }),
    tamper("a usage event is missing", &[BILLING], "usage_missed", |s| {
        state(s).usage_events.remove(0);
    }),
    tamper("a usage event is doubled", &[BILLING], "usage_counted_twice", |s| {
        let event = state(s).usage_events[1].clone();
        state(s).usage_events.push(event);
    }),
    tamper("a failed forecast is counted", &[BILLING], "usage_without_success", |s| {
        let failed = state(s).forecasts[5].clone();
        let mut event = state(s).usage_events[4].clone();
        (event.tenant_id, event.forecast_id, event.usage_event_id) = (failed.tenant_id, failed.forecast_id, id(6, 60));
        event.occurred_us = failed.finished_us.unwrap_or(failed.requested_us);
        state(s).usage_events.push(event);
    }),
    tamper("usage is stamped in another hour", &[BILLING], "usage_stamped_elsewhere", |s| {
        state(s).usage_events[0].occurred_us += 3_600_000_000;
    }),
    tamper("usage hangs on the wrong invoice", &[BILLING], "usage_on_wrong_invoice", |s| {
        state(s).usage_events[0].invoice_id = Some(id(7, 1));
    }),
    tamper("an invoice is missing", &[BILLING], "invoice_missed", |s| {
        state(s).invoices.remove(1);
    }),
    tamper("a period is invoiced twice", &[BILLING], "invoice_doubled", |s| {
        let mut invoice = state(s).invoices[0].clone();
        invoice.invoice_id = id(7, 99);
        state(s).invoices.push(invoice);
    }),
    tamper("a free tenant gets an invoice", &[BILLING], "invoice_not_due", |s| {
        let mut invoice = state(s).invoices[0].clone();
        (invoice.invoice_id, invoice.tenant_id) = (id(7, 98), id(1, 3));
        state(s).invoices.push(invoice);
    }),
    tamper("tax is rounded the other way", &[BILLING], "invoice_total_differs", |s| {
        let invoice = &mut state(s).invoices[0];
        (invoice.tax_minor, invoice.total_minor) = (invoice.tax_minor - 1, invoice.total_minor - 1);
        invoice.lines[0].tax_minor -= 1;
    }),
    tamper("an invoice is never issued", &[BILLING], "invoice_never_issued", |s| {
        let invoice = &mut state(s).invoices[3];
        (invoice.state, invoice.number) = ("draft".to_owned(), None);
    }),
    tamper("a number is skipped", &[BILLING], "numbers_have_gaps", |s| {
        state(s).invoices[1].number = Some(3);
    }),
    tamper("an invoice is charged twice", &[BILLING], "charged_twice", |s| {
        let mut charge = state(s).provider.charges[0].clone();
        (charge.charge_id, charge.idempotency_key) = ("ch-99".to_owned(), "another".to_owned());
        state(s).provider.charges.push(charge);
    }),
    tamper("a forged event of the provider is taken in", &[BILLING], "event_nobody_sent", |s| {
        let (event_id, outcome) = ("evt-1".to_owned(), "mismatch".to_owned());
        let event = WebhookEventRow { tenant_id: id(1, 1), event_id, outcome, ..WebhookEventRow::default() };
        state(s).webhook_events.push(event);
    }),
    tamper("an invoice is never charged", &[BILLING], "charge_missed", |s| {
        state(s).provider.charges.remove(2);
    }),
    tamper("a charge is a hundred times too high", &[BILLING], "charge_amount_differs", |s| {
        state(s).provider.charges[0].amount_minor *= 100;
    }),
    tamper("a charge goes to another card", &[BILLING], "charge_on_other_card", |s| {
        state(s).provider.charges[0].payment_token = "tok-T0002".to_owned();
    }),
    tamper("money is taken for nothing", &[BILLING], "charge_of_nothing", |s| {
        let charge = Charge { reference: id(7, 77), amount_minor: 5, ..Charge::default() };
        state(s).provider.charges.push(charge);
    }),
    tamper("a charge is not written down", &[BILLING], "charge_not_recorded", |s| {
        state(s).payments[0].state = "unknown".to_owned();
    }),
    tamper("a charged card is said to have declined, and is tried again", &[BILLING], "payment_doubled", |s| {
        let mut declined = state(s).payments[0].clone();
        (declined.payment_id, declined.idempotency_key) = (id(8, 99), "another".to_owned());
        (declined.state, declined.provider_charge_id) = ("failed".to_owned(), None);
        state(s).payments.push(declined);
    }),
    tamper("what a good customer owes is forgiven", &[BILLING], "posting_of_nothing", |s| {
        let mut entries = state(s).ledger_entries[..2].to_vec();
        for entry in &mut entries {
            (entry.posting_kind, entry.posting_ref) = ("credit_note".to_owned(), id(9, 99));
            (entry.debit_minor, entry.credit_minor) = (entry.credit_minor.min(1), entry.debit_minor.min(1));
        }
        state(s).ledger_entries.extend(entries);
    }),
    tamper("the ledger does not balance", &[BILLING], "ledger_unbalanced", |s| {
        state(s).ledger_entries[0].debit_minor += 1;
    }),
    tamper("a payment is posted to nothing", &[BILLING], "posting_missed", |s| {
        state(s).ledger_entries.retain(|entry| entry.posting_ref != id(8, 1));
    }),
    tamper("one key made two forecasts", &[BILLING], "one_key_two_forecasts", |s| {
        let replay = last(s, F::ForecastRequest);
        let first = nth(s, F::ForecastRequest, 0);
        for op in [first, replay] {
            invoke(s, op).args.key = Some("forecast-lost".to_owned());
            invoke(s, op).tenant = Some(LABELS[1].to_owned());
        }
        answer(s, first).id = Some(id(4, 5));
        answer(s, first).scenario_id = None;
        end(s, first).scan = None;
    }),
    tamper("a forecast exists that nobody asked for", &[BILLING], "forecast_nobody_asked_for", |s| {
        let lost = nth_where(s, |event| matches!(event, Event::Info(end) if end.error.as_deref() == Some("reset")));
        let replay = last(s, F::ForecastRequest);
        remove(s, lost);
        remove(s, replay);
    }),
    tamper("a sixth forecast of a free tenant succeeds", &[BILLING], "cap_exceeded", |s| {
        let tenant = id(1, 3);
        let row = state(s).forecasts.iter_mut().find(|row| row.tenant_id == tenant);
        let mut row = row.expect("a row").clone();
        row.forecast_id = id(4, 50);
        (row.requested_us, row.finished_us) = (row.requested_us + 1, row.finished_us.map(|at| at + 1));
        let (mut job, mut attempt) = (state(s).jobs[6].clone(), state(s).job_attempts[9].clone());
        (job.job_id, job.subject_id) = (id(5, 50), id(4, 50));
        (job.attempts, attempt.attempt, attempt.job_id) = (1, 1, id(5, 50));
        attempt.outcome = Some("succeeded".to_owned());
        state(s).forecasts.push(row);
        state(s).jobs.push(job);
        state(s).job_attempts.push(attempt);
        let mut usage = state(s).usage_events[5].clone();
        (usage.forecast_id, usage.usage_event_id) = (id(4, 50), id(6, 50));
        usage.tenant_id = tenant;
        state(s).usage_events.push(usage);
    }),
    tamper("a place is given back twice", &[BILLING], "counter_differs_from_places", |s| {
        state(s).quota_periods[1].taken -= 1;
    }),
    tamper("a paying tenant is refused for the quota", &[BILLING], "refused_with_places_free", |s| {
        let refused = nth_where(s, |event| matches!(event, Event::Fail(end) if end.status == Some(402)));
        invoke(s, refused).tenant = Some(LABELS[0].to_owned());
    }),
    tamper("a forged token is let in", &[AUTH], "probe_was_let_in", |s| {
        let probe = nth(s, F::AuthProbe, 40);
        becomes(s, probe, yes(200, Answer::default(), None));
    }),
    tamper("a session works after its logout", &[AUTH], "revoked_session_was_let_in", |s| {
        let logout = nth(s, F::Logout, 0);
        let refused =
            nth_where(s, |event| matches!(event, Event::Invoke(i) if i.f == F::Me && i.t_ns == 40_000_000_000));
        let _ = logout;
        becomes(s, refused, yes(200, Answer::default(), Some(LABELS[1])));
    }),
    tamper("an honest session is refused after heal", &[AUTH], "honest_session_was_refused", |s| {
        let me =
            nth_where(s, |event| matches!(event, Event::Invoke(i) if i.f == F::Dashboard && i.t_ns > 52_000_000_000));
        invoke(s, me).token_op = Some(nth(s, F::Signup, 2));
        becomes(s, me, no(401));
    }),
    tamper("an acknowledged forecast is gone", &[LOST], "acknowledged_forecast_lost", |s| {
        forget_forecast(s, 6);
    }),
    tamper("a job stays in the queue for good", &[LOST], "forecast_never_ended", |s| {
        unfinished(s);
    }),
    tamper("a forecast fails in quiet times", &[LOST], "failed_without_a_fault", |s| {
        state(s).forecasts[5].requested_us -= 10_000_000;
        state(s).forecasts[5].finished_us = Some(state(s).forecasts[5].requested_us + 1_000_000);
    }),
    tamper("a forecast has no job", &[LOST], "forecast_without_its_job", |s| {
        state(s).jobs.remove(4);
    }),
    tamper("a job gets a fourth attempt", &[ONCE], "too_many_attempts", |s| {
        let mut attempt = state(s).job_attempts.iter().rfind(|a| a.job_id == id(5, 6)).expect("attempt").clone();
        (attempt.attempt, attempt.fence) = (4, attempt.fence + 1);
        state(s).job_attempts.push(attempt);
        state(s).jobs[5].attempts = 4;
    }),
    tamper("a stale worker completes a job", &[ONCE], "stale_attempt_completed", |s| {
        let attempts = &mut state(s).job_attempts;
        attempts[2].outcome = Some("succeeded".to_owned());
        attempts[3].outcome = Some("lease_lost".to_owned());
    }),
    tamper("two attempts complete one job", &[ONCE], "completed_twice", |s| {
        state(s).job_attempts[2].outcome = Some("succeeded".to_owned());
    }),
    tamper("a fence goes back", &[ONCE], "fence_went_back", |s| {
        state(s).job_attempts[3].fence = 1;
    }),
    tamper("a lease is lost in quiet times", &[ONCE], "lease_lost_without_a_fault", |s| {
        for attempt in &mut state(s).job_attempts[2..4] {
            attempt.claimed_us -= 10_000_000;
            attempt.ended_us = attempt.ended_us.map(|at| at - 10_000_000);
        }
    }),
    tamper("an older forecast waits behind newer ones", &[ONCE], "claimed_out_of_turn", |s| {
        state(s).job_attempts[0].claimed_us += 3_000_000;
    }),
    tamper("a forecast that had ended runs again", &[ONCE], "ended_forecast_changed", |s| {
        let read = nth(s, F::ForecastRead, 1);
        forecast(s, read).state = "running".to_owned();
    }),
    tamper("a worker dies of itself", &["process.no_unplanned_exit"], "ended_unplanned", |s| {
        for event in &mut s.history {
            if let Event::Process(event) = event
                && event.event == ProcessChange::Killed
            {
                event.planned = false;
            }
        }
    }),
    tamper("a service does not drain", &["process.no_unplanned_exit"], "drain_was_not_clean", |s| {
        for event in &mut s.history {
            if let Event::Process(event) = event
                && event.event == ProcessChange::Exited
                && event.name == "api-1"
            {
                event.code = Some(101);
            }
        }
    }),
    tamper("a cache serves an old version", &[WRITES], "stale_read", |s| {
        let read = nth_where(s, |event| matches!(event, Event::Invoke(i) if i.t_ns == 32_000_000_000));
        (answer(s, read).version, answer(s, read).content_sha256) = (Some(1), None);
    }),
    tamper("an acknowledged edit is lost", &[WRITES], "acknowledged_edit_lost", |s| {
        state(s).scenarios[0].version = 1;
    }),
    tamper("two edits of one version are acknowledged", &[WRITES], "two_edits_of_one_version", |s| {
        let refused = nth(s, F::ScenarioEdit, 1);
        let again = Answer { id: Some(id(3, 1)), version: Some(2), ..Answer::default() };
        becomes(s, refused, yes(200, again, Some(LABELS[0])));
    }),
    tamper("a version has two contents", &[WRITES], "one_version_two_contents", |s| {
        let read = nth_where(s, |event| matches!(event, Event::Invoke(i) if i.t_ns == 32_000_000_000));
        answer(s, read).content_sha256 = Some("ff".repeat(32));
    }),
    tamper("a scenario that was acknowledged is not found", &[WRITES], "acknowledged_scenario_not_found", |s| {
        let read = nth_where(s, |event| matches!(event, Event::Invoke(i) if i.t_ns == 12_500_000_000));
        becomes(s, read, no(404));
    }),
    tamper("a tenant that was acknowledged is gone", &[WRITES], "acknowledged_tenant_lost", |s| {
        let signup = nth(s, F::Signup, 0);
        answer(s, signup).tenant_id = Some(id(1, 70));
        invoke(s, signup).tenant = Some("T0070".to_owned());
        end(s, signup).scan = None;
    }),
    tamper("connections sit in a transaction", &["store.connection_hygiene"], "idle_in_transaction", |s| {
        state(s).connections.idle_in_transaction = 2;
    }),
    tamper("connections are not returned", &["store.connection_hygiene"], "connections_not_returned", |s| {
        state(s).connections.in_use.insert("api-1".to_owned(), 3);
    }),
    tamper("an address is logged", &["privacy.no_pii"], "canary_in_output", |s| {
        state(s).leaks[0].found.insert("email".to_owned(), 1);
        state(s).leaks[0].owners_found.push(LABELS[1].to_owned());
    }),
    tamper("one answer in twenty is a 500", &["slo.errors"], "too_many_errors", |s| {
        for at in (0..90).step_by(3).map(|n| nth(s, F::Dashboard, n)).collect::<Vec<_>>() {
            becomes(s, at, no(500));
        }
    }),
    tamper("a refusal does not say when to come back", &["slo.errors"], "too_many_errors", |s| {
        for event in &mut s.history {
            if let Event::Fail(end) = event
                && end.status == Some(401)
                && (30_000_000_000..35_000_000_000).contains(&end.t_ns)
            {
                end.status = Some(503);
            }
        }
    }),
    tamper("every tenth answer takes five seconds", &["slo.latency"], "p95_too_high", |s| {
        for (n, event) in s.history.iter_mut().enumerate() {
            if let Event::Ok(end) | Event::Fail(end) = event
                && n % 5 == 0
            {
                end.latency_us = 5_000_000;
            }
        }
    }),
    tamper("almost everything is refused under a fault", &["faults.landed"], "goodput_below_its_floor", |s| {
        let within = 30_000_000_000..35_000_000_000u64;
        let mut ops = Vec::new();
        for event in &s.history {
            if let Event::Invoke(invoke) = event
                && within.contains(&invoke.t_ns)
                && matches!(invoke.f, F::Me | F::Dashboard)
            {
                ops.push(invoke.op);
            }
        }
        for op in ops {
            becomes(s, op, Completion { retry_after: true, ..no(503) });
        }
    }),
    tamper("under a fault nothing succeeds for longer than it allows", &["faults.landed"], "outage_too_long", |s| {
        all_are_refused(s, 31_450_000_000..33_050_000_000);
    }),
    // The window ends at 35 s: what lies within it is shorter than the bound.
    tamper("what a fault took away stays away when it is over", &["faults.landed"], "outage_too_long", |s| {
        all_are_refused(s, 33_900_000_000..35_500_000_000);
    }),
    tamper("what a fault hurt is never seen to be well again", &["faults.landed"], "not_recovered_in_time", |s| {
        for event in &mut s.history {
            if let Event::Fault(fault) = event
                && (fault.id.as_str(), fault.state) == ("F2", FaultState::Recovered)
            {
                fault.state = FaultState::Observed;
            }
        }
    }),
];

/// Whatever succeeded within these times is refused.
fn all_are_refused(s: &mut Specimen, within_ns: std::ops::Range<u64>) {
    for n in 0..s.history.len() {
        if let Event::Ok(end) = &s.history[n]
            && within_ns.contains(&end.t_ns)
        {
            let op = end.op;
            becomes(s, op, Completion { retry_after: true, ..no(503) });
        }
    }
}

fn state(s: &mut Specimen) -> &mut FinalState {
    &mut s.final_state
}

fn result(s: &mut Specimen, forecast: usize) -> &mut serde_json::Value {
    s.final_state.forecasts[forecast].result.as_mut().expect("a forecast that succeeded")
}

/// Number of the first operation whose request or end is picked.
fn nth_where(s: &Specimen, pick: impl Fn(&Event) -> bool) -> u64 {
    let picked = s.history.iter().find(|event| pick(event)).expect("such a line");
    match picked {
        Event::Invoke(invoke) => invoke.op,
        Event::Ok(end) | Event::Fail(end) | Event::Info(end) => end.op,
        _ => panic!("no operation"),
    }
}

fn of_kind(s: &Specimen, f: F) -> Vec<u64> {
    let ops = s.history.iter().filter_map(|event| match event {
        Event::Invoke(invoke) if invoke.f == f => Some(invoke.op),
        _ => None,
    });
    ops.collect()
}

fn nth(s: &Specimen, f: F, n: usize) -> u64 {
    of_kind(s, f)[n]
}

fn last(s: &Specimen, f: F) -> u64 {
    let replayed = s.history.iter().find_map(|event| match event {
        Event::Ok(end) if end.replayed => Some(end.op),
        _ => None,
    });
    replayed.unwrap_or_else(|| *of_kind(s, f).last().expect("an operation"))
}

fn invoke(s: &mut Specimen, op: u64) -> &mut Invoke {
    let mut found = s.history.iter_mut().filter_map(|event| match event {
        Event::Invoke(invoke) if invoke.op == op => Some(invoke),
        _ => None,
    });
    found.next().expect("a request")
}

fn end(s: &mut Specimen, op: u64) -> &mut Completion {
    let mut found = s.history.iter_mut().filter_map(|event| match event {
        Event::Ok(end) | Event::Fail(end) | Event::Info(end) if end.op == op => Some(end),
        _ => None,
    });
    found.next().expect("an end")
}

fn answer(s: &mut Specimen, op: u64) -> &mut Answer {
    end(s, op).value.get_or_insert_default()
}

fn forecast(s: &mut Specimen, op: u64) -> &mut ForecastAnswer {
    answer(s, op).forecast.get_or_insert_default()
}

/// Replaces the end of an operation, at the same time.
fn becomes(s: &mut Specimen, op: u64, new: Completion) {
    let old = end(s, op).clone();
    let new = Completion { i: old.i, t_ns: old.t_ns, op, latency_us: old.latency_us, ..new };
    let place = s.history.iter().position(|event| event.index() == old.i).expect("its line");
    s.history[place] = if new.status.is_some_and(|status| status < 300) { Event::Ok(new) } else { Event::Fail(new) };
}

fn remove(s: &mut Specimen, op: u64) {
    s.history.retain(|event| match event {
        Event::Invoke(invoke) => invoke.op != op,
        Event::Ok(end) | Event::Fail(end) | Event::Info(end) => end.op != op,
        _ => true,
    });
    s.renumber();
}

/// All rows and answers of T0001 with one wrong amount, and the right hash over it.
fn consistently_wrong(s: &mut Specimen) {
    let rows = s.final_state.forecasts.iter_mut().filter(|row| row.tenant_id == id(1, 1));
    let mut shown = None;
    for row in rows {
        let (Some(input), Some(result)) = (&row.input, &mut row.result) else {
            continue;
        };
        result["totals"]["revenue"] = json!("1.00");
        row.result_hash = crate::model::result_hash("1", input, result).ok();
        let digest = crate::forecast::content_sha256(input, result).ok();
        shown = Some((digest, row.result_hash.clone(), result.clone()));
    }
    let (digest, hash, result) = shown.expect("a forecast");
    for event in &mut s.history {
        let Event::Ok(Completion { value: Some(Answer { scenario_id, forecast: Some(forecast), .. }), .. }) = event
        else {
            continue;
        };
        if scenario_id.as_deref() == Some(id(3, 1).as_str()) && forecast.state == "succeeded" {
            (forecast.content_sha256, forecast.result_hash) = (digest.clone(), hash.clone());
            forecast.result = forecast.result.take().map(|_| result.clone());
        }
    }
}

/// Takes away every row of a forecast that failed.
fn forget_forecast(s: &mut Specimen, number: u64) {
    let state = &mut s.final_state;
    state.forecasts.retain(|row| row.forecast_id != id(4, number));
    state.jobs.retain(|row| row.subject_id != id(4, number));
    state.job_attempts.retain(|row| row.job_id != id(5, number));
}

/// The forecast that ran out of attempts, as if nobody had ever taken it.
fn unfinished(s: &mut Specimen) {
    s.manifest.settings.terminal_bound_ms = 10_000;
    let state = &mut s.final_state;
    let row = state.forecasts.iter_mut().find(|row| row.forecast_id == id(4, 6)).expect("the row");
    (row.state, row.quota_state) = ("queued".to_owned(), "held".to_owned());
    (row.finished_us, row.error_code) = (None, None);
    state.quota_periods[1].taken += 1;
    let job = state.jobs.iter_mut().find(|row| row.subject_id == id(4, 6)).expect("the job");
    (job.state, job.attempts, job.finished_us) = ("queued".to_owned(), 0, None);
    state.job_attempts.retain(|row| row.job_id != id(5, 6));
    let reads = s.history.iter().filter_map(|event| match event {
        Event::Invoke(invoke) if invoke.f == F::ForecastRead && invoke.args.id == Some(id(4, 6)) => Some(invoke.op),
        _ => None,
    });
    for op in reads.collect::<Vec<_>>() {
        remove(s, op);
    }
}
