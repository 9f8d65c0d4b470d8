//! What may have happened, or was not seen, is neither held against the system nor counted for it.

use nogo_invariants::history::{Args, Completion, F, FaultState, ProofKind};
use nogo_invariants::specimen::{LABELS, Specimen, id, no, yes};
use nogo_invariants::{Answer, Event, FinalState, Verdict, floors, judge, laws};

use crate::clean::{verdicts, with};

fn law<'a>(verdicts: &'a [Verdict], id: &str) -> &'a Verdict {
    verdicts.iter().find(|verdict| verdict.law == id).expect("the law")
}

fn answer_of(specimen: &Specimen, id: &str) -> Answer {
    law(&verdicts(specimen), id).answer
}

fn assert_clean(mut specimen: Specimen) {
    specimen.renumber();
    let verdicts = verdicts(&specimen);
    for verdict in &verdicts {
        assert!(verdict.violations.is_empty(), "{}: {:?}", verdict.law, verdict.violations);
    }
}

fn lost() -> Completion {
    Completion { error: Some("timeout".to_owned()), ..Completion::default() }
}

#[test]
fn a_request_without_an_answer_may_have_left_a_forecast_or_not() {
    let mut specimen = Specimen::clean();
    let args = Args { key: Some("never-resolved".to_owned()), scenario_id: Some(id(3, 2)), ..Args::default() };
    specimen.ask(36_000, F::ForecastRequest, LABELS[1], args, lost());
    assert_clean(specimen);
}

#[test]
fn a_lost_request_of_a_free_tenant_excuses_a_refusal() {
    let mut specimen = Specimen::clean();
    let tenant = id(1, 3);
    // One forecast less is known of, its answer lost.
    let first = specimen.final_state.forecasts.iter().find(|row| row.tenant_id == tenant).expect("a row").clone();
    let op = specimen.history.iter().find_map(|event| match event {
        Event::Ok(end) if end.value.as_ref().is_some_and(|v| v.id.as_deref() == Some(&first.forecast_id)) => {
            Some(end.op)
        }
        _ => None,
    });
    for event in &mut specimen.history {
        if let Event::Ok(end) = event
            && Some(end.op) == op
        {
            *event = Event::Info(Completion { i: end.i, t_ns: end.t_ns, op: end.op, ..lost() });
        }
    }
    assert_clean(specimen);
}

#[test]
fn a_lost_edit_may_be_seen_or_not() {
    for seen in [1, 2] {
        let mut specimen = Specimen::clean();
        let edit = Args { id: Some(id(3, 3)), if_version: Some(1), ..Args::default() };
        specimen.ask(53_000, F::ScenarioEdit, LABELS[2], edit, lost());
        specimen.final_state.scenarios[2].version = seen;
        assert_clean(specimen);
    }
}

#[test]
fn reads_that_overlap_a_write_may_see_either_version() {
    let mut specimen = Specimen::clean();
    // The edit of T0001 lasts from 12.000 to 12.020 s.
    for (at_ms, version) in [(11_990, 2), (12_010, 1), (12_015, 2)] {
        let args = Args { id: Some(id(3, 1)), ..Args::default() };
        let answer = nogo_invariants::history::Answer {
            id: Some(id(3, 1)),
            version: Some(version),
            ..nogo_invariants::history::Answer::default()
        };
        specimen.ask(at_ms, F::ScenarioRead, LABELS[0], args, yes(200, answer, Some(LABELS[0])));
    }
    assert_clean(specimen);
}

#[test]
fn probes_answered_with_a_refusal_or_nothing_are_not_counted() {
    let clean = Specimen::clean();
    let probes = |specimen: &Specimen| law(&verdicts(specimen), "auth.fails_closed").exposure["probes"].total;
    let before = probes(&clean);
    let mut specimen = clean;
    for (n, end) in [no(429), no(503), lost()].into_iter().enumerate() {
        let probe = Args { imitates: Some(F::Me), attack: Some("none".to_owned()), twin: Some(7), ..Args::default() };
        specimen.ask(36_000 + n as u64 * 50, F::AuthProbe, "", probe, Completion { retry_after: true, ..end });
    }
    // One without an honest twin is not counted either.
    let alone = Args { imitates: Some(F::Me), attack: Some("none".to_owned()), ..Args::default() };
    specimen.ask(36_500, F::AuthProbe, "", alone, no(401));
    specimen.renumber();
    assert_eq!(probes(&specimen), before);
}

#[test]
fn a_probe_whose_logout_was_never_acknowledged_proves_nothing() {
    let mut specimen = Specimen::clean();
    let logout = specimen.ask(46_000, F::Logout, LABELS[0], Args::default(), lost());
    let probe =
        Args { imitates: Some(F::Me), attack: Some("revoked".to_owned()), depends_on: Some(logout), ..Args::default() };
    specimen.ask(49_000, F::AuthProbe, "", probe, yes(200, Default::default(), None));
    assert_clean(specimen);
}

#[test]
fn a_session_may_still_work_within_the_bound_after_its_logout() {
    let mut specimen = Specimen::clean();
    let logout = specimen.ask(54_000, F::Logout, LABELS[0], Args::default(), yes(204, Default::default(), None));
    let within =
        specimen.ask(54_500, F::Plan, LABELS[0], Args::default(), yes(200, Default::default(), Some(LABELS[0])));
    for event in &mut specimen.history {
        if let Event::Invoke(invoke) = event
            && [logout, within].contains(&invoke.op)
        {
            invoke.session = Some("T0001/s9".to_owned());
        }
    }
    assert_clean(specimen);
}

#[test]
fn a_biller_that_never_came_to_its_end_leaves_what_is_missing_unknown() {
    let mut specimen = Specimen::clean();
    for run in &mut specimen.final_state.billing_runs {
        run.exit_code = None;
    }
    specimen.final_state.provider.charges.clear();
    for invoice in &mut specimen.final_state.invoices {
        invoice.state = "issued".to_owned();
    }
    specimen.final_state.payments.clear();
    specimen.final_state.ledger_entries.retain(|entry| entry.posting_kind == "invoice_issued");
    specimen.history.retain(|event| !matches!(event, Event::Invoke(i) if i.f == F::InvoiceRead));
    let known: Vec<u64> = specimen
        .history
        .iter()
        .filter_map(|event| match event {
            Event::Invoke(invoke) => Some(invoke.op),
            _ => None,
        })
        .collect();
    specimen.history.retain(|event| match event {
        Event::Ok(end) | Event::Fail(end) | Event::Info(end) => known.contains(&end.op),
        _ => true,
    });
    specimen.renumber();
    assert_eq!(answer_of(&specimen, "billing.exactly_once"), Answer::Unknown);
}

#[test]
fn a_declined_card_is_not_a_missed_charge() {
    let mut specimen = Specimen::clean();
    specimen.final_state.tenants[0].payment_declines = true;
    let mine: Vec<String> = specimen
        .final_state
        .invoices
        .iter_mut()
        .filter(|invoice| invoice.tenant_id == id(1, 1))
        .map(|invoice| {
            invoice.state = "issued".to_owned();
            invoice.invoice_id.clone()
        })
        .collect();
    specimen.final_state.provider.charges.retain(|charge| !mine.contains(&charge.reference));
    for payment in specimen.final_state.payments.iter_mut().filter(|payment| mine.contains(&payment.invoice_id)) {
        (payment.state, payment.provider_charge_id) = ("failed".to_owned(), None);
        specimen.final_state.ledger_entries.retain(|entry| entry.posting_ref != payment.payment_id);
    }
    // Tried again under another key, then written off: two balanced lines beside the issue's own posting.
    let state = &mut specimen.final_state;
    let mut again =
        state.payments.iter().find(|payment| mine.contains(&payment.invoice_id)).expect("a payment").clone();
    (again.payment_id, again.idempotency_key) = (id(8, 99), "the next step's".to_owned());
    let mut lines: Vec<_> = state.ledger_entries.iter().filter(|e| e.posting_ref == mine[0]).take(2).cloned().collect();
    assert_eq!(lines.len(), 2, "an issued invoice has a debit and a credit at least");
    for line in &mut lines {
        line.posting_kind = "written_off".to_owned();
        (line.debit_minor, line.credit_minor) = (line.credit_minor.min(1), line.debit_minor.min(1));
    }
    state.payments.push(again);
    state.ledger_entries.extend(lines);
    assert_clean(specimen);
}

#[test]
fn a_fault_without_proof_of_effect_makes_the_run_inconclusive() {
    for (state, kind) in [
        (FaultState::Observed, ProofKind::Effect),
        (FaultState::Observed, ProofKind::Control),
        (FaultState::Recovered, ProofKind::Recovery),
    ] {
        let mut specimen = Specimen::clean();
        for event in &mut specimen.history {
            if let Event::Fault(event) = event
                && event.state == state
            {
                event.proofs.iter_mut().filter(|proof| proof.kind == kind).for_each(|proof| proof.holds = false);
            }
        }
        let verdicts = verdicts(&specimen);
        assert_eq!(with(&verdicts, Answer::Unknown), ["faults.landed"], "{state:?} {kind:?}");
    }
}

#[test]
fn a_fault_that_was_requested_and_never_came_is_not_passed() {
    let mut specimen = Specimen::clean();
    specimen.manifest.faults_requested.push("pool_exhaustion".to_owned());
    assert_eq!(answer_of(&specimen, "faults.landed"), Answer::Unknown);
    specimen.manifest.faults_requested.clear();
    specimen.history.retain(|event| !matches!(event, Event::Fault(_)));
    specimen.renumber();
    assert_eq!(answer_of(&specimen, "faults.landed"), Answer::Valid);
}

#[test]
fn a_fault_window_without_chances_leaves_its_law_unknown() {
    let mut specimen = Specimen::clean();
    let shut = 30_000_000_000..35_100_000_000u64;
    let gone: Vec<u64> = specimen
        .history
        .iter()
        .filter_map(|event| match event {
            Event::Invoke(invoke) if invoke.f == F::AuthProbe && shut.contains(&invoke.t_ns) => Some(invoke.op),
            _ => None,
        })
        .collect();
    specimen.history.retain(|event| match event {
        Event::Invoke(invoke) => !gone.contains(&invoke.op),
        Event::Ok(end) | Event::Fail(end) | Event::Info(end) => !gone.contains(&end.op),
        _ => true,
    });
    specimen.renumber();
    let verdicts = judge(specimen.evidence(), &laws::all(), floors::SMOKE);
    let auth = law(&verdicts, "auth.fails_closed");
    assert!(auth.reasons.iter().any(|reason| reason.contains("fault/redis_loss")), "{:?}", auth.reasons);
    assert!(!auth.reasons.iter().any(|reason| reason.contains("fault/worker_crash")), "{:?}", auth.reasons);

    // A fault under which almost everything is refused by declaration is judged by its goodput alone.
    for (percent, is_asked) in [(floors::SERVED_PERCENT_MIN, true), (floors::SERVED_PERCENT_MIN - 1, false)] {
        for event in &mut specimen.history {
            if let Event::Fault(fault) = event
                && fault.kind == "redis_loss"
            {
                fault.goodput_floor_percent = fault.goodput_floor_percent.map(|_| percent);
            }
        }
        let verdicts = judge(specimen.evidence(), &laws::all(), floors::SMOKE);
        let mut reasons = law(&verdicts, "auth.fails_closed").reasons.iter();
        assert_eq!(reasons.any(|reason| reason.contains("fault/redis_loss")), is_asked, "{percent} %");
    }
}

#[test]
fn load_far_below_what_was_offered_is_inconclusive() {
    let mut specimen = Specimen::clean();
    for event in &mut specimen.history {
        if let Event::Phase(phase) = event {
            phase.offered_per_s = 500;
        }
    }
    assert_eq!(answer_of(&specimen, "load.offered"), Answer::Unknown);
}

#[test]
fn outputs_that_were_not_searched_are_unknown() {
    let mut specimen = Specimen::clean();
    specimen.final_state.leaks.clear();
    specimen.final_state.connections.sampled = false;
    assert_eq!(answer_of(&specimen, "privacy.no_pii"), Answer::Unknown);
    assert_eq!(answer_of(&specimen, "store.connection_hygiene"), Answer::Unknown);
}

#[test]
fn a_claim_out_of_turn_under_held_locks_is_excused() {
    let mut specimen = Specimen::clean();
    // Asked for at 20.2 s, claimed 12 s later than it was, after one that was asked for at 30.2 s.
    let attempt = &mut specimen.final_state.job_attempts[2];
    attempt.claimed_us += 12_000_000;
    attempt.ended_us = attempt.ended_us.map(|at| at + 12_000_000);
    assert_eq!(answer_of(&specimen, "queue.completed_once"), Answer::Violated);
    specimen.manifest.settings.lock_holding_faults = vec!["worker_crash".to_owned()];
    assert_eq!(answer_of(&specimen, "queue.completed_once"), Answer::Valid);
}

#[test]
fn a_lease_that_is_lost_under_a_fault_which_takes_none_is_not_excused() {
    let mut specimen = Specimen::clean();
    specimen.manifest.settings.lease_keeping_faults = vec!["redis_loss".to_owned()];
    assert_clean(specimen.clone());
    specimen.manifest.settings.lease_keeping_faults = vec!["worker_crash".to_owned()];
    assert_eq!(answer_of(&specimen, "queue.completed_once"), Answer::Violated);
    assert_eq!(answer_of(&specimen, "queue.no_lost_jobs"), Answer::Violated, "out of attempts under it");
}

#[test]
fn a_fault_that_was_never_seen_to_be_over_says_nothing_where_no_time_was_declared_or_the_run_was_cut_short() {
    let never_over = |specimen: &mut Specimen| {
        for event in &mut specimen.history {
            if let Event::Fault(fault) = event
                && fault.state == FaultState::Recovered
            {
                fault.state = FaultState::Observed;
            }
        }
    };
    let mut declared = Specimen::clean();
    never_over(&mut declared);
    assert_eq!(answer_of(&declared, "faults.landed"), Answer::Violated);
    let mut undeclared = declared.clone();
    for event in &mut undeclared.history {
        if let Event::Fault(fault) = event {
            fault.recover_ms_max = None;
        }
    }
    assert_eq!(answer_of(&undeclared, "faults.landed"), Answer::Unknown);
    declared.manifest.partial = true;
    assert_eq!(answer_of(&declared, "faults.landed"), Answer::Unknown);
}

#[test]
fn a_checker_that_panics_is_unknown() {
    struct Broken;
    impl nogo_invariants::Checker for Broken {
        fn law(&self) -> &'static str {
            "broken.law"
        }
        fn what(&self) -> &'static str {
            "panics"
        }
        fn check(&self, _: &nogo_invariants::Case<'_>) -> nogo_invariants::Finding {
            panic!("broken on purpose")
        }
    }
    let specimen = Specimen::clean();
    let verdicts = judge(specimen.evidence(), &[Box::new(Broken)], floors::ANY);
    assert_eq!(verdicts[0].answer, Answer::Unknown);
    assert_eq!(verdicts[0].reasons, ["the checker panicked"]);
}

#[test]
fn a_client_that_hangs_up_is_nobodys_error() {
    let mut specimen = Specimen::clean();
    for at_ms in (6_000..14_000).step_by(200) {
        let gone = Completion { error: Some("hung_up".to_owned()), ..Completion::default() };
        specimen.ask(at_ms, F::ScenarioList, LABELS[0], Args::default(), gone);
    }
    assert_clean(specimen);
}

#[test]
fn rows_that_were_never_read_are_unknown_and_never_lost() {
    let mut specimen = Specimen::clean();
    specimen.final_state = FinalState::default();
    let verdicts = verdicts(&specimen);
    for verdict in &verdicts {
        assert_ne!(verdict.answer, Answer::Violated, "{}: {:?}", verdict.law, verdict.violations);
    }
    let lost = law(&verdicts, "queue.no_lost_jobs");
    assert_eq!(lost.answer, Answer::Unknown);
    assert_eq!(lost.reasons, ["the rows left behind were never read"]);
}

#[test]
fn two_faults_at_once_suspend_liveness_and_never_safety() {
    let refused = nogo_invariants::tampers::ALL.iter().find(|tamper| tamper.shape == "goodput_below_its_floor");
    let wrong = nogo_invariants::tampers::ALL.iter().find(|tamper| tamper.shape == "amount_differs_from_the_oracle");
    let mut specimen = Specimen::clean();
    (refused.expect("a harm").apply)(&mut specimen);
    (wrong.expect("a harm").apply)(&mut specimen);
    // The worker's crash now stands until after Redis was lost.
    for event in &mut specimen.history {
        if let Event::Fault(fault) = event
            && fault.id == "F1"
            && matches!(fault.state, FaultState::Removed | FaultState::Recovered)
        {
            fault.t_ns += 8_000_000_000;
        }
    }
    specimen.renumber();
    let verdicts = verdicts(&specimen);
    let landed = law(&verdicts, "faults.landed");
    assert_eq!(landed.answer, Answer::Valid, "{landed:?}");
    assert_eq!(law(&verdicts, "forecast.correctness").answer, Answer::Violated);
}

/// Redis is lost from 30 to 35 s, and this much is promised of that time: a wait of 400 ms for who is refused, and a share
/// of the reads. Of these, every `one_in`-th is refused after `waited_ms`.
fn refused_reads(reads_percent_min: u64, one_in: usize, waited_ms: u64) -> Verdict {
    let mut specimen = Specimen::clean();
    let mut reads = Vec::new();
    for event in &mut specimen.history {
        match event {
            Event::Fault(fault) if fault.id == "F2" && fault.state == FaultState::Planned => {
                fault.reads_floor_percent = Some(reads_percent_min);
                fault.refusal_wait_ms_min = Some(400);
            }
            Event::Invoke(sent) if sent.f.is_read() && (30_000_000_000..34_000_000_000).contains(&sent.t_ns) => {
                reads.push((sent.op, sent.t_ns));
            }
            _ => {}
        }
    }
    let refused: Vec<_> = reads.iter().step_by(one_in).collect();
    assert!(reads.len() >= 40 && refused.len() >= 4, "{} of {}", refused.len(), reads.len());
    for event in &mut specimen.history {
        if let Event::Ok(end) = event
            && let Some((_, sent_ns)) = refused.iter().find(|(op, _)| *op == end.op)
        {
            let (i, op, t_ns) = (end.i, end.op, sent_ns + waited_ms * 1_000_000);
            *event = Event::Fail(Completion { i, op, t_ns, retry_after: true, ..no(503) });
        }
    }
    specimen.renumber();
    law(&verdicts(&specimen), "faults.landed").clone()
}

#[test]
fn a_promise_of_reads_and_of_waits_is_kept_or_named() {
    let named = |verdict: Verdict| verdict.violations.iter().map(|breach| breach.shape.clone()).collect::<Vec<_>>();
    assert_eq!(named(refused_reads(80, 10, 800)), [""; 0]);
    assert_eq!(named(refused_reads(80, 10, 20)), ["refused_without_waiting"]);
    assert_eq!(named(refused_reads(80, 4, 800)), ["reads_below_their_floor"]);
}

#[test]
fn what_succeeds_long_after_it_was_due_is_no_goodput() {
    for (late_ms, expected) in [(2_500, Answer::Valid), (3_500, Answer::Violated)] {
        let mut specimen = Specimen::clean();
        // Redis is lost from 30 to 35 s, and what was due then was asked for only once there was room.
        for event in &mut specimen.history {
            if let Event::Invoke(sent) = event
                && (30_000_000_000..40_000_000_000).contains(&sent.t_ns)
            {
                sent.intended_ns = sent.t_ns - late_ms * 1_000_000;
            }
        }
        let landed = law(&verdicts(&specimen), "faults.landed").clone();
        assert_eq!(landed.answer, expected, "{late_ms} ms: {landed:?}");
    }
}
