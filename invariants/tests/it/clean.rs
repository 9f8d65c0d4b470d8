//! A clean run under faults raises no alarm, and a run that shows nothing never passes.

use nogo_invariants::specimen::Specimen;
use nogo_invariants::verdict::Circumstances;
use nogo_invariants::{Answer, Launch, Results, Verdict, floors, judge, laws, report};

pub fn verdicts(specimen: &Specimen) -> Vec<Verdict> {
    judge(specimen.evidence(), &laws::all(), floors::ANY)
}

pub fn results(specimen: &Specimen) -> Results {
    Results::of(&specimen.evidence(), verdicts(specimen), laws::SMOKE, &Circumstances::default())
}

/// Ids of the laws with this answer.
pub fn with(verdicts: &[Verdict], answer: Answer) -> Vec<&str> {
    verdicts.iter().filter(|verdict| verdict.answer == answer).map(|verdict| verdict.law.as_str()).collect()
}

#[test]
fn a_clean_run_with_crashes_refusals_and_lost_answers_is_go() {
    let results = results(&Specimen::clean());
    assert_eq!(results.verdict, Launch::Go, "{}", report::text(&results));
    assert_eq!(results.exit_code, 0);
    assert!(results.reasons.is_empty());
}

#[test]
fn every_law_has_the_exposure_that_its_floors_ask_for() {
    for verdict in verdicts(&Specimen::clean()) {
        assert!(!verdict.exposure.is_empty(), "{} counted nothing", verdict.law);
        assert!(verdict.exposure.values().any(|count| count.total > 0), "{} counted nothing", verdict.law);
    }
}

#[test]
fn a_run_without_load_is_insufficient_and_no_law_but_the_faults_passes() {
    let results = results(&Specimen::vacuous());
    assert_eq!(results.verdict, Launch::InsufficientEvidence);
    assert_eq!(results.exit_code, 3);
    assert_eq!(with(&results.laws, Answer::Violated), Vec::<&str>::new());
    assert_eq!(with(&results.laws, Answer::Valid), ["faults.landed"]);
}

#[test]
fn a_small_run_is_far_below_the_smoke_suites_floors() {
    let specimen = Specimen::clean();
    let verdicts = judge(specimen.evidence(), &laws::all(), floors::SMOKE);
    assert!(with(&verdicts, Answer::Unknown).contains(&"tenancy.isolation"));
    assert_eq!(with(&verdicts, Answer::Violated), Vec::<&str>::new());
}

#[test]
fn same_evidence_gives_the_same_bytes() {
    let (a, b) = (results(&Specimen::clean()), results(&Specimen::clean()));
    assert_eq!(a.to_json().expect("json"), b.to_json().expect("json"));
    assert_eq!(report::markdown(&a), report::markdown(&b));
}

#[test]
fn every_line_of_the_record_reads_back_as_it_was_written() {
    for event in Specimen::clean().history {
        let line = serde_json::to_string(&event).expect("json");
        let back: nogo_invariants::Event = serde_json::from_str(&line).expect("event");
        assert_eq!(back, event);
    }
}

#[test]
fn a_record_that_breaks_its_own_law_leaves_every_law_unknown() {
    let mut specimen = Specimen::clean();
    specimen.history.remove(40);
    let verdicts = verdicts(&specimen);
    assert_eq!(with(&verdicts, Answer::Unknown).len(), verdicts.len());
    assert!(verdicts[0].reasons[0].contains("line 40"));
}
