//! What a sweep came to: the listing, each case with its verdict, and all of them together; as data and as a table.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use nogo_invariants::results::Results;
use nogo_invariants::verdict::{Answer, Launch};
use serde::{Deserialize, Serialize};

use super::plan::{PointFault, Story, SweepPoint, SweepSettings};
use crate::exit_code::ExitCode;
use crate::judgement::Record;
use crate::run_directory::RunDirectory;

/// File of a run's folder that makes it a sweep's.
pub const SWEEP_FILE: &str = "sweep.json";
/// Version of that file's layout.
pub(super) const SCHEMA: u32 = 1;
/// Longest operation shown in a table, characters.
const SHOWN_MAX: usize = 72;

/// One case: a point, a fault, and what the laws say of its record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// Number of the point.
    pub point: usize,
    /// Its name.
    pub name: String,
    /// What was done there.
    pub fault: PointFault,
    /// Folder of the record, below the sweep's.
    pub folder: String,
    /// Whether the fault came about.
    pub landed: bool,
    /// What the laws say.
    pub verdict: Launch,
    /// Laws that were violated.
    pub violated: Vec<String>,
    /// Why it is not a pass, in sentences.
    pub reasons: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// A whole sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepResults {
    /// Version of this layout.
    pub schema: u32,
    /// The run's id.
    pub run_id: String,
    /// The story.
    pub story: Story,
    /// How it was set.
    pub settings: SweepSettings,
    /// `docker` or `process`.
    pub engine: String,
    /// Commit of the working tree.
    pub commit: String,
    /// Whether the tree differed from it.
    pub dirty: bool,
    /// Digest of the system's binary.
    pub system_sha256: String,
    /// All points, in order.
    pub points: Vec<SweepPoint>,
    /// Every case that was run, in order.
    pub cases: Vec<CaseResult>,
    /// Points and faults that were asked for and not run, as where the sweep was cut short.
    pub not_run: Vec<String>,
    /// All together.
    pub verdict: Launch,
    /// Seconds for everything.
    pub seconds: f64,
}

impl CaseResult {
    /// What a case's results and its landing make of it.
    pub(super) fn of(point: &SweepPoint, fault: PointFault, folder: String, landed: bool, results: &Results) -> Self {
        let violated = results.laws.iter().filter(|law| law.answer == Answer::Violated);
        let mut reasons: Vec<String> = Vec::new();
        for law in results.laws.iter().filter(|law| law.answer == Answer::Violated) {
            reasons.extend(law.violations.iter().map(|found| {
                format!(
                    "{} {}: {} (expected {}, found {})",
                    law.law, found.shape, found.what, found.expected, found.actual
                )
            }));
        }
        if reasons.is_empty() && results.verdict != Launch::Go {
            reasons.extend(results.reasons.iter().cloned());
        }
        // A law that was broken is broken, wherever the fault was; a pass without the fault is none.
        let verdict = match results.verdict {
            Launch::Go if !landed => Launch::InsufficientEvidence,
            verdict => verdict,
        };
        Self {
            point: point.number,
            name: point.name.clone(),
            fault,
            folder,
            landed,
            verdict,
            violated: violated.map(|law| law.law.clone()).collect(),
            reasons,
            seconds: 0.0,
        }
    }

    /// As it stands in the table's cell.
    fn word(&self) -> &'static str {
        match (self.verdict, self.landed) {
            (Launch::Go, _) => "held",
            (Launch::NoGo, _) => "VIOLATED",
            (_, false) => "not landed",
            _ => "unclear",
        }
    }
}

/// The verdict of all cases together: broken, then unclear, then held. Without a case nothing was shown.
pub(super) fn together(cases: &[CaseResult], not_run: &[String]) -> Launch {
    let any = |verdict| cases.iter().any(|case| case.verdict == verdict);
    if any(Launch::HarnessBroke) {
        Launch::HarnessBroke
    } else if any(Launch::NoGo) {
        Launch::NoGo
    } else if cases.is_empty() || !not_run.is_empty() || cases.iter().any(|case| case.verdict != Launch::Go) {
        Launch::InsufficientEvidence
    } else {
        Launch::Go
    }
}

impl SweepResults {
    /// Reads a stored sweep; none where the folder is of another kind of run.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub fn read(run: &RunDirectory) -> Result<Option<Self>> {
        let path = run.file(SWEEP_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&text).map(Some).with_context(|| format!("understand {}", path.display()))
    }

    /// The exit code that the verdict stands for.
    #[must_use]
    pub fn exit(&self) -> ExitCode {
        ExitCode::from_number(self.verdict.exit_code()).unwrap_or(ExitCode::HarnessBroke)
    }

    /// The points as a list.
    #[must_use]
    pub fn listing(&self) -> String {
        let mut text = format!("story {}: {} points\n", self.story.name(), self.points.len());
        for point in &self.points {
            let again = if point.recurs { " (comes by itself; the first is visited)" } else { "" };
            let _ = writeln!(
                text,
                "{:>3}  {:<7} {}{again}\n     {}",
                point.number, point.role, point.name, point.operation
            );
        }
        text
    }

    /// Points and faults with their verdicts, as Markdown that reads on a terminal too; then what is not a pass, by name.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "# {}: sweep of the story {}\n\n{} points, {} cases, {:.0} s; seed {}, lease {} ms, engine {}, run {}\n\n",
            self.verdict.name(),
            self.story.name(),
            self.points.len(),
            self.cases.len(),
            self.seconds,
            self.settings.seed,
            self.settings.lease_ms,
            self.engine,
            self.run_id
        );
        let faults: Vec<PointFault> =
            PointFault::ALL.into_iter().filter(|fault| self.cases.iter().any(|case| case.fault == *fault)).collect();
        let heads: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
        let _ = writeln!(text, "| point | role | what | {} |", heads.join(" | "));
        let _ = writeln!(text, "|---|---|---|{}", "---|".repeat(faults.len()));
        for point in &self.points {
            let cell = |fault: &PointFault| {
                let case = self.cases.iter().find(|case| case.point == point.number && case.fault == *fault);
                case.map_or("not run", CaseResult::word)
            };
            let cells: Vec<&str> = faults.iter().map(cell).collect();
            if cells.iter().any(|cell| *cell != "not run") {
                let what = shown(&point.operation);
                let _ = writeln!(text, "| {} | {} | {what} | {} |", point.number, point.role, cells.join(" | "));
            }
        }
        for case in self.cases.iter().filter(|case| case.verdict != Launch::Go) {
            let _ = writeln!(text, "\n{} {} at point {} ({}):", case.word(), case.fault.name(), case.point, case.name);
            for reason in &case.reasons {
                let _ = writeln!(text, "- {reason}");
            }
            let _ = writeln!(
                text,
                "- again: nogo sweep {} --point {} --fault {} --seed {}; record: {}",
                self.story.name(),
                case.point,
                case.fault.name(),
                self.settings.seed,
                case.folder
            );
        }
        match self.not_run.as_slice() {
            [] => {}
            [only] => drop(writeln!(text, "\nnot run: {only}")),
            [first, more @ ..] => drop(writeln!(text, "\nnot run: {first}, and {} more", more.len())),
        }
        text
    }
}

/// Short enough for a cell, and no sign that would end it.
fn shown(operation: &str) -> String {
    let whole: String = operation.chars().take(SHOWN_MAX).map(|sign| if sign == '|' { '/' } else { sign }).collect();
    if operation.chars().count() > SHOWN_MAX { format!("{whole}…") } else { whole }
}

/// Judges every case of a stored sweep again from its record alone.
///
/// # Errors
/// If a case's folder cannot be read at all.
pub fn judge_again(run: &RunDirectory, stored: &SweepResults) -> Result<SweepResults> {
    let mut again = stored.clone();
    for case in &mut again.cases {
        let folder = run.file(&case.folder);
        let directory = RunDirectory::find(run.root(), &folder.to_string_lossy())?;
        let results = Record::read(&directory)?.judge();
        let point = stored.points.iter().find(|point| point.number == case.point);
        let point = point.with_context(|| format!("find point {} in the listing", case.point))?;
        let judged = CaseResult::of(point, case.fault, case.folder.clone(), case.landed, &results);
        *case = CaseResult { seconds: case.seconds, ..judged };
    }
    again.verdict = together(&again.cases, &again.not_run);
    Ok(again)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nogo_faults::{HttpPattern, Pattern, Protocol};
    use nogo_invariants::evidence::{Evidence, Manifest};
    use nogo_invariants::final_state::FinalState;
    use nogo_invariants::verdict::{Circumstances, Verdict, Violation};

    fn point() -> SweepPoint {
        SweepPoint {
            number: 3,
            name: "api/http/GET /|x#1".into(),
            role: "api".into(),
            protocol: Protocol::Http,
            operation: "GET /|x".into(),
            pattern: Pattern::Http(HttpPattern::default()),
            k: 1,
            recurs: false,
        }
    }

    fn results(answer: Answer) -> Results {
        let violation = Violation {
            fingerprint: String::new(),
            shape: "charged_twice".into(),
            count: 1,
            what: "T0001 was charged twice".into(),
            expected: "1".into(),
            actual: "2".into(),
            witness: Vec::new(),
            t_ns: None,
            phase: None,
            fault: None,
            tenants: Vec::new(),
        };
        let mut law = Verdict::unknown("story.forecast", "once", "nothing was asked".into());
        law.answer = answer;
        if answer != Answer::Unknown {
            law.reasons.clear();
        }
        if answer == Answer::Violated {
            law.violations.push(violation);
        }
        let (manifest, state) = (Manifest::default(), FinalState::default());
        let evidence = Evidence { manifest: &manifest, history: &[], final_state: &state };
        Results::of(&evidence, vec![law], &["story.forecast"], &Circumstances::default())
    }

    fn case(answer: Answer, landed: bool) -> CaseResult {
        CaseResult::of(&point(), PointFault::LostAfter, "cases/003-lost-after".into(), landed, &results(answer))
    }

    fn swept(cases: Vec<CaseResult>, not_run: Vec<String>) -> SweepResults {
        SweepResults {
            schema: SCHEMA,
            run_id: "r".into(),
            story: Story::Forecast,
            settings: SweepSettings { seed: 1, lease_ms: 800 },
            engine: "process".into(),
            commit: String::new(),
            dirty: false,
            system_sha256: String::new(),
            points: vec![point()],
            verdict: together(&cases, &not_run),
            cases,
            not_run,
            seconds: 1.0,
        }
    }

    #[test]
    fn a_fault_that_did_not_land_is_no_pass_and_is_told_by_name() {
        let results = swept(vec![case(Answer::Valid, true), case(Answer::Valid, false)], Vec::new());
        assert_eq!((results.verdict, results.exit()), (Launch::InsufficientEvidence, ExitCode::Inconclusive));
        let table = results.table();
        assert!(table.contains("not landed lost-after at point 3 (api/http/GET /|x#1)"), "{table}");
        assert!(table.contains("nogo sweep forecast --point 3 --fault lost-after --seed 1"), "{table}");
    }

    #[test]
    fn a_broken_law_counts_more_than_a_fault_that_did_not_land() {
        let cases = vec![case(Answer::Valid, false), case(Answer::Violated, true), case(Answer::Valid, true)];
        let results = swept(cases, vec!["stop at point 3".into()]);
        assert_eq!((results.verdict, results.exit()), (Launch::NoGo, ExitCode::Violated));
        let broken = &results.cases[1];
        assert_eq!(broken.violated, ["story.forecast"]);
        assert!(broken.reasons[0].contains("charged_twice: T0001 was charged twice (expected 1, found 2)"));
        assert!(results.table().contains("VIOLATED lost-after at point 3"));
    }

    #[test]
    fn what_was_not_shown_or_not_run_is_not_held_and_all_of_it_held_is() {
        assert_eq!(swept(vec![case(Answer::Unknown, true)], Vec::new()).exit(), ExitCode::Inconclusive);
        assert_eq!(
            swept(vec![case(Answer::Valid, true)], vec!["kill at point 3".into()]).exit(),
            ExitCode::Inconclusive
        );
        assert_eq!(swept(Vec::new(), Vec::new()).exit(), ExitCode::Inconclusive, "no case shows nothing");
        let held = swept(vec![case(Answer::Valid, true)], Vec::new());
        assert_eq!(held.exit(), ExitCode::Held);
        assert!(held.table().contains("| 3 | api | GET //x | held |"), "{}", held.table());
    }

    #[test]
    fn a_sweep_reads_as_it_was_written() {
        let results = swept(vec![case(Answer::Violated, true)], vec!["stop at point 3".into()]);
        let text = serde_json::to_string(&results).unwrap();
        assert_eq!(serde_json::from_str::<SweepResults>(&text).unwrap(), results);
    }
}
