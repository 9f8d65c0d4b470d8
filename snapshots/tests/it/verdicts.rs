//! The verdict of a clean, a vacuous and each tampered run, without figures and ids.

use nogo_invariants::specimen::Specimen;
use nogo_invariants::tampers::ALL;
use nogo_invariants::verdict::Circumstances;
use nogo_invariants::{Results, floors, judge, laws, normalise, report};

fn results(specimen: &Specimen) -> Results {
    let verdicts = judge(specimen.evidence(), &laws::all(), floors::ANY);
    Results::of(&specimen.evidence(), verdicts, laws::SMOKE, &Circumstances::default())
}

fn projection(specimen: &Specimen) -> String {
    serde_json::to_string_pretty(&normalise::project(&results(specimen))).expect("json")
}

#[test]
fn a_clean_run() {
    insta::assert_snapshot!("clean", projection(&Specimen::clean()));
}

#[test]
fn a_run_without_load() {
    insta::assert_snapshot!("vacuous", projection(&Specimen::vacuous()));
}

/// Every harm by what it adds to the clean projection: one file, so that a reader sees them side by side.
#[test]
fn every_harm_in_its_own_words() {
    let mut text = String::new();
    for tamper in ALL {
        let mut specimen = Specimen::clean();
        (tamper.apply)(&mut specimen);
        let projection = normalise::project(&results(&specimen));
        text += &format!("{} -> {}\n", tamper.name, projection.verdict);
        for law in projection.laws {
            for found in law.violations {
                text += &format!("  {} {}: {}\n", law.law, found.shape, found.what);
                text +=
                    &format!("    expected {}; found {}; shown by {}\n", found.expected, found.actual, found.witness);
            }
        }
    }
    insta::assert_snapshot!("harms", text);
}

#[test]
fn the_words_of_a_report() {
    let mut specimen = Specimen::clean();
    for tamper in ALL.iter().filter(|tamper| ["charged_twice", "probe_was_let_in"].contains(&tamper.shape)) {
        (tamper.apply)(&mut specimen);
    }
    insta::assert_snapshot!("report", report::markdown(&results(&specimen)));
}

#[test]
fn every_harm_changes_the_snapshot_and_every_two_runs_without_one_agree() {
    let clean = projection(&Specimen::clean());
    let mut later = Specimen::clean();
    later.manifest.seed = "another".to_owned();
    for event in &mut later.history {
        if let nogo_invariants::Event::Ok(end) = event {
            end.latency_us += 777;
        }
    }
    assert_eq!(projection(&later), clean);
    for tamper in ALL {
        let mut specimen = Specimen::clean();
        (tamper.apply)(&mut specimen);
        assert_ne!(projection(&specimen), clean, "{}", tamper.name);
    }
}
