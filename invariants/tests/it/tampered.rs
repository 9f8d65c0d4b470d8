//! Every single harm is noticed by the law that it breaks, and by no other.

use std::collections::BTreeSet;

use nogo_invariants::specimen::Specimen;
use nogo_invariants::tampers::{ALL, Tamper};
use nogo_invariants::{Answer, Event, Launch, report};
use proptest::prelude::*;

use crate::clean::{results, verdicts, with};

fn harmed(tampers: &[&Tamper]) -> Specimen {
    let mut specimen = Specimen::clean();
    for tamper in tampers {
        (tamper.apply)(&mut specimen);
    }
    specimen
}

#[test]
fn each_harm_is_noticed_by_its_law_and_by_no_other() {
    let mut wrong = Vec::new();
    for tamper in ALL {
        let verdicts = verdicts(&harmed(&[tamper]));
        let violated = with(&verdicts, Answer::Violated);
        let shapes: Vec<&str> =
            verdicts.iter().flat_map(|verdict| &verdict.violations).map(|violation| violation.shape.as_str()).collect();
        if violated != tamper.laws || !shapes.contains(&tamper.shape) {
            wrong.push(format!("{}: {violated:?} {shapes:?}", tamper.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_no_go_law_has_harms_of_several_shapes() {
    for (law, least) in [
        ("forecast.correctness", 3),
        ("forecast.determinism", 3),
        ("tenancy.isolation", 6),
        ("billing.exactly_once", 15),
        ("auth.fails_closed", 3),
        ("queue.no_lost_jobs", 3),
        ("queue.completed_once", 6),
        ("store.read_your_writes", 5),
    ] {
        let shapes: BTreeSet<&str> =
            ALL.iter().filter(|tamper| tamper.laws.contains(&law)).map(|tamper| tamper.shape).collect();
        assert!(shapes.len() >= least, "{law}: {shapes:?}");
    }
}

#[test]
fn a_harmed_run_is_no_go_and_says_all_six_things() {
    for tamper in ALL {
        let results = results(&harmed(&[tamper]));
        assert_eq!((results.verdict, results.exit_code), (Launch::NoGo, 1), "{}", tamper.name);
        let text = report::text(&results);
        for label in ["  what   ", "  when   ", "  where  ", "  why    OBSERVED", "  again  nogo replay", "  see    "] {
            assert!(text.contains(label), "{}: {text}", tamper.name);
        }
        let violation = results.laws.iter().find_map(|law| law.violations.first()).expect("a violation");
        assert!(violation.witness.len() <= 6);
        assert!(violation.expected != violation.actual, "{}: {violation:?}", tamper.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn two_harms_hide_neither_of_each_other(a in 0..ALL.len(), b in 0..ALL.len()) {
        prop_assume!(a != b);
        // Harms find their place by number and kind: only rows and only lines never touch.
        let pair = [&ALL[a], &ALL[b]];
        let Ok(specimen) = std::panic::catch_unwind(|| harmed(&pair)) else { return Ok(()); };
        let verdicts = verdicts(&specimen);
        let violated = with(&verdicts, Answer::Violated);
        prop_assert!(!violated.is_empty());
        let expected: BTreeSet<&str> = pair.iter().flat_map(|tamper| tamper.laws).copied().collect();
        let overlap = expected.iter().any(|law| violated.contains(law));
        prop_assert!(overlap, "{} and {}: {violated:?}", pair[0].name, pair[1].name);
    }

    #[test]
    fn renaming_operations_and_reordering_equal_times_changes_nothing(
        salt in 1u64..1_000_000, which in 0..=ALL.len(),
    ) {
        let specimen = ALL.get(which).map_or_else(Specimen::clean, |tamper| harmed(&[tamper]));
        let mut other = specimen.clone();
        let shift = |op: u64| op.wrapping_mul(2 * salt + 1) & 0xffff_ffff;
        for event in &mut other.history {
            match event {
                Event::Invoke(invoke) => {
                    invoke.op = shift(invoke.op);
                    for reference in [
                        &mut invoke.token_op,
                        &mut invoke.args.twin,
                        &mut invoke.args.owner_op,
                        &mut invoke.args.depends_on,
                    ] {
                        *reference = reference.map(shift);
                    }
                }
                Event::Ok(end) | Event::Fail(end) | Event::Info(end) => end.op = shift(end.op),
                _ => {}
            }
        }
        // Rows come in any order.
        other.final_state.forecasts.reverse();
        other.final_state.jobs.reverse();
        other.final_state.invoices.reverse();
        other.final_state.ledger_entries.reverse();
        let shapes = |specimen: &Specimen| {
            let verdicts = verdicts(specimen);
            verdicts
                .iter()
                .map(|verdict| {
                    let shapes: Vec<(String, u64)> =
                        verdict.violations.iter().map(|v| (v.shape.clone(), v.count)).collect();
                    (verdict.law.clone(), verdict.answer, verdict.exposure.clone(), BTreeSet::from_iter(shapes))
                })
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(shapes(&specimen), shapes(&other));
    }
}
