//! From the raw record to the verdict and its files. Offline: reads one run folder and nothing else.

use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nogo_invariants::checker::judge;
use nogo_invariants::evidence::{Evidence, Manifest as Facts};
use nogo_invariants::final_state::FinalState;
use nogo_invariants::history::Event;
use nogo_invariants::results::Results;
use nogo_invariants::verdict::Circumstances;
use nogo_invariants::{floors, laws, report};
use sha2::{Digest as _, Sha256};

use crate::exit_code::EndsWith;
use crate::report::{junit, page};
use crate::run_directory::{Manifest, RunDirectory, SEALED_FILES, file_sha256, pretty_json};
use nogo_faults::catalogue;

/// How the suite of a sweep's case begins; its story's name follows.
pub const SWEEP_OF: &str = "sweep/";

/// Lines of witnesses kept beside the verdict, per law.
const EVIDENCE_MAX: usize = 50;

/// The raw record of a run, as read from its folder.
#[derive(Debug)]
pub struct Record {
    /// What the run was.
    pub facts: Facts,
    /// What happened.
    pub history: Vec<Event>,
    /// What was left.
    pub final_state: FinalState,
    /// Whatever makes the record as a whole inconclusive.
    pub around: Circumstances,
}

impl Record {
    /// Reads a run's record and checks it against the manifest's digests.
    ///
    /// A file that is missing, damaged or changed makes the run inconclusive; it is not an error.
    ///
    /// # Errors
    /// A usage error when the folder's manifest cannot be read at all.
    pub fn read(run: &RunDirectory) -> Result<Record> {
        let manifest = run.manifest().map_err(|error| EndsWith::usage(format!("{error:#}")))?;
        let mut around = Circumstances::default();
        for name in SEALED_FILES {
            let found = file_sha256(&run.file(name)).ok();
            match (manifest.files.get(*name), found) {
                (Some(sealed), Some(found)) if *sealed == found => {}
                (Some(_), Some(_)) => {
                    around.inconclusive.push(format!("{name} was changed after the run: its digest differs"))
                }
                (Some(_), None) => around.inconclusive.push(format!("{name} is missing")),
                (None, _) => around.inconclusive.push(format!("{name} was never sealed")),
            }
        }
        if !manifest.aborted_because.is_empty() {
            around.inconclusive.push(format!("the run was broken off: {}", manifest.aborted_because));
        }
        let (history, history_sha256) = read_history(run, &mut around);
        let final_state = read_final_state(run, &mut around);
        let facts = facts(&manifest, history_sha256);
        Ok(Record { facts, history, final_state, around })
    }

    /// Judges the record by every law of its suite.
    pub fn judge(&self) -> Results {
        let evidence = Evidence { manifest: &self.facts, history: &self.history, final_state: &self.final_state };
        let story = self.facts.suite.strip_prefix(SWEEP_OF).and_then(laws::of_story);
        if let Some(laws) = story {
            // One client and one fault: no floors, the story's own law says whether there was enough to see.
            let required: Vec<&str> = laws.iter().map(|law| law.law()).collect();
            return Results::of(&evidence, judge(evidence, &laws, &[]), &required, &self.around);
        }
        let verdicts = judge(evidence, &laws::all(), floors::SMOKE);
        Results::of(&evidence, verdicts, laws::SMOKE, &self.around)
    }
}

/// Writes everything that is derived from the record.
///
/// # Errors
/// When a file cannot be written.
pub fn publish(run: &RunDirectory, record: &Record, results: &Results) -> Result<()> {
    run.write("results.json", results.to_json().context("express the results")?.as_bytes())?;
    run.write("checks.json", &pretty_json(&results.laws)?)?;
    run.write("summary.md", report::markdown(results).as_bytes())?;
    let took = Duration::from_nanos(record.history.last().map_or(0, Event::time_ns));
    run.write("junit.xml", junit::render(&record.facts, &results.laws, took)?.as_bytes())?;
    let because = match results.reasons.split_first() {
        None => "Every required law held, with enough chances to fail.".to_owned(),
        Some((first, [])) => first.clone(),
        Some((first, more)) => format!("{first}, and {} more", more.len()),
    };
    let html = page::render(&page::Page {
        manifest: &record.facts,
        launch: results.verdict,
        because: &because,
        verdicts: &results.laws,
        history: &record.history,
        latency_budget_ms: record.facts.settings.latency_p95_ms_max as f64,
    });
    run.write("report.html", html.as_bytes())?;
    write_evidence(run, record, results)
}

/// The lines behind each violation, as files of their own, so that nobody has to search the history.
fn write_evidence(run: &RunDirectory, record: &Record, results: &Results) -> Result<()> {
    for law in &results.laws {
        for (index, violation) in law.violations.iter().take(EVIDENCE_MAX).enumerate() {
            let lines: Vec<&Event> = violation
                .witness
                .iter()
                .filter_map(|line| usize::try_from(*line).ok().and_then(|line| record.history.get(line)))
                .collect();
            let evidence = serde_json::json!({"law": law.law, "violation": violation, "lines": lines});
            let path = run.file("evidence").join(format!("{}-{}.json", law.law, index + 1));
            std::fs::write(&path, pretty_json(&evidence)?).with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(())
}

/// What the laws read of a manifest.
fn facts(manifest: &Manifest, history_sha256: String) -> Facts {
    Facts {
        run_id: manifest.run_id.clone(),
        seed: manifest.seed.to_string(),
        suite: manifest.suite.clone(),
        engine: manifest.engine.clone(),
        commit: manifest.commit.clone(),
        dirty: manifest.dirty,
        lock_sha256: manifest.lock_sha256.clone(),
        history_sha256,
        images: manifest.servers.clone(),
        faults_requested: manifest
            .faults_requested
            .iter()
            .map(|name| catalogue::find(name).map_or(name.clone(), |row| row.kind.to_owned()))
            .collect(),
        partial: !manifest.complete,
        settings: manifest.settings.clone(),
    }
}

fn read_history(run: &RunDirectory, around: &mut Circumstances) -> (Vec<Event>, String) {
    let (text, damage) = match read_compressed(run, "history.ndjson.zst") {
        Ok(read) => read,
        Err(error) => {
            around.inconclusive.push(format!("{error:#}"));
            return (Vec::new(), String::new());
        }
    };
    around.inconclusive.extend(damage);
    let digest = hex::encode(Sha256::digest(&text));
    let mut events = Vec::new();
    for (number, line) in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        match serde_json::from_slice(line) {
            Ok(event) => events.push(event),
            Err(error) => {
                around.inconclusive.push(format!("line {number} of the history is not an event: {error}"));
                break;
            }
        }
    }
    (events, digest)
}

/// The events of a history that is still being written; what is not yet whole is left out.
pub fn read_history_so_far(run: &RunDirectory) -> Vec<Event> {
    read_history(run, &mut Circumstances::default()).0
}

fn read_final_state(run: &RunDirectory, around: &mut Circumstances) -> FinalState {
    let read = read_compressed(run, "final_state.json.zst")
        .and_then(|(text, _)| serde_json::from_slice(&text).context("understand final_state.json.zst"));
    match read {
        Ok(state) => state,
        Err(error) => {
            around.inconclusive.push(format!("{error:#}"));
            FinalState::default()
        }
    }
}

/// The bytes of a compressed file as far as they can be read, and what is wrong with the rest.
fn read_compressed(run: &RunDirectory, name: &str) -> Result<(Vec<u8>, Option<String>)> {
    let path = run.file(name);
    let file = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut decoder = zstd::Decoder::new(file).with_context(|| format!("decompress {}", path.display()))?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Ok((bytes, None)),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) => {
                // Cut off in the middle: the last whole line ends the record.
                let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                bytes.truncate(whole);
                return Ok((bytes, Some(format!("{name} ends early: {error}"))));
            }
        }
    }
}
