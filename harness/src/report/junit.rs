//! `junit.xml`: one case per law, so that any CI shows which law did not hold.
//!
//! Violated is a failure, unknown an error: neither is a pass, and the two are not the same.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nogo_invariants::evidence::Manifest;
use nogo_invariants::verdict::{Answer, Verdict};
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

/// The document.
///
/// # Errors
/// When a text cannot be expressed in XML.
pub fn render(manifest: &Manifest, verdicts: &[Verdict], took: Duration) -> Result<String> {
    let mut report = Report::new("nogo");
    let mut suite = TestSuite::new(manifest.suite.as_str());
    for (name, value) in [("run", &manifest.run_id), ("seed", &manifest.seed), ("engine", &manifest.engine)] {
        suite.add_property(Property::new(name, value.as_str()));
    }
    suite.set_time(took);
    for verdict in verdicts {
        suite.add_test_case(case(manifest, verdict));
    }
    report.add_test_suite(suite);
    report.to_string().context("write the laws as JUnit XML")
}

fn case(manifest: &Manifest, verdict: &Verdict) -> TestCase {
    let status = match verdict.answer {
        Answer::Valid => TestCaseStatus::success(),
        Answer::Unknown => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
            status.set_message("unknown").set_description(verdict.reasons.join("\n"));
            status
        }
        Answer::Violated => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            let blocks: Vec<String> = verdict
                .violations
                .iter()
                .map(|violation| {
                    format!(
                        "{} ({}x)\nexpected {}\nactual {}\nagain nogo replay {}",
                        violation.what, violation.count, violation.expected, violation.actual, manifest.run_id
                    )
                })
                .collect();
            status
                .set_message(format!("{} violations", verdict.violations_total()))
                .set_description(blocks.join("\n\n"));
            status
        }
    };
    let mut case = TestCase::new(verdict.law.as_str(), status);
    case.set_classname(format!("nogo.{}", manifest.suite));
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_an_error_and_not_a_pass() {
        let verdict = Verdict::unknown("a.law", "what", "nothing was seen".to_owned());
        let manifest = Manifest { suite: "smoke".to_owned(), ..Manifest::default() };
        let xml = render(&manifest, &[verdict], Duration::from_secs(1)).unwrap();
        assert!(xml.contains("errors=\"1\"") && xml.contains("nothing was seen"), "{xml}");
    }
}
