//! A schedule written by hand: which faults, on whom, when, how often; read from TOML and drawn out with the seed.
//!
//! The file is a plan and not yet a schedule: jitter and victims left open are drawn from the run's stream of faults, so
//! that one seed gives one schedule. What is stored and replayed is what was drawn. `nogo list schedule-schema` prints
//! the JSON Schema of the file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use nogo_faults::{Condition, FaultRow, ParamValue, Schedule, ScheduleError, Step, catalogue};
use nogo_invariants::history::F;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

use crate::exit_code::EndsWith;

/// Windows that one entry may stand for.
const REPEATS_MAX: u32 = 100;

/// A plan of faults within one stretch of load.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleFile {
    /// Length of the load, milliseconds, the undisturbed time before the first fault included.
    pub load_ms: u64,
    /// The faults, in any order; windows may overlap where they hurt different targets.
    #[serde(default, rename = "fault")]
    #[schemars(with = "Vec<Entry>")]
    pub faults: Vec<Spanned<Entry>>,
}

/// One fault, once or several times.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name; `nogo list faults` prints them.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// Its victim, such as `worker-1`. Left out: drawn from the fault's possible victims, for each window anew.
    #[schemars(with = "Option<String>")]
    pub target: Option<Spanned<String>>,
    /// Start, milliseconds after the start of the load; with `when` the earliest.
    pub at_ms: u64,
    /// Wait for the k-th operation of a kind before it begins.
    #[schemars(with = "Option<When>")]
    pub when: Option<Spanned<When>>,
    /// From install to heal, milliseconds.
    pub duration_ms: u64,
    /// The start moves later by up to this, drawn from the seed, milliseconds.
    #[serde(default)]
    pub jitter_ms: u64,
    /// How many windows, 1 to 100.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 100))]
    pub count: u32,
    /// From one start to the next where `count` is above 1, milliseconds.
    pub every_ms: Option<u64>,
    /// Parameters of the fault, by name with the unit last.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub params: BTreeMap<String, ParamValue>,
}

/// The k-th operation of a kind since the start of the load.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Kind of operation as the history names it, such as `forecast.request`.
    pub operation: String,
    /// Which one, from 1.
    #[schemars(range(min = 1))]
    pub kth: u64,
}

const fn once() -> u32 {
    1
}

/// The JSON Schema of a schedule file.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(ScheduleFile).to_value()
}

/// Reads `path` and draws the schedule from `stream`.
///
/// # Errors
/// A usage error that names the file and the line: not TOML, an unknown key, a fault or a victim that does not exist,
/// windows that overlap on one victim or do not lie within the load.
pub fn read(path: &Path, stream: [u8; 32]) -> Result<Schedule> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| EndsWith::usage(format!("--schedule {}: {error}", path.display())))?;
    draw(&text, stream).map_err(|wrong| EndsWith::usage(format!("--schedule {}: {wrong}", path.display())).into())
}

/// Draws the schedule that `text` describes.
fn draw(text: &str, stream: [u8; 32]) -> Result<Schedule, String> {
    let file: ScheduleFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let at_line = |offset: usize, wrong: String| format!("line {}: {wrong}", line_of(text, offset));
    let mut rng = ChaCha8Rng::from_seed(stream);
    // Each step with the place of its entry, for errors that only show once all are drawn.
    let mut drawn: Vec<(Step, usize)> = Vec::new();
    for spanned in &file.faults {
        let (entry, place) = (spanned.as_ref(), spanned.span().start);
        let row = row_of(entry).map_err(|wrong| at_line(entry.name.span().start, wrong))?;
        if let Some(target) = &entry.target
            && !row.targets.contains(&target.as_ref().as_str())
        {
            let wrong = format!("{} cannot hurt '{}': it takes {}", row.name, target.as_ref(), row.targets.join(", "));
            return Err(at_line(target.span().start, wrong));
        }
        let when = match &entry.when {
            None => None,
            Some(when) => Some(condition(when.as_ref()).map_err(|wrong| at_line(when.span().start, wrong))?),
        };
        let every_ms = repeats(entry).map_err(|wrong| at_line(place, wrong))?;
        for number in 0..u64::from(entry.count) {
            let jitter_ms = rng.random_range(0..=entry.jitter_ms);
            let target = match &entry.target {
                Some(named) => named.as_ref().clone(),
                None => row.targets[rng.random_range(0..row.targets.len())].to_owned(),
            };
            let at_ms = entry.at_ms.saturating_add(number.saturating_mul(every_ms)).saturating_add(jitter_ms);
            let step = Step {
                fault: row.name.to_owned(),
                target,
                at_ms,
                when: when.clone(),
                duration_ms: entry.duration_ms,
                params: entry.params.clone(),
            };
            drawn.push((step, place));
        }
    }
    drawn.sort_by_key(|(step, _)| step.at_ms);
    let (steps, places): (Vec<Step>, Vec<usize>) = drawn.into_iter().unzip();
    let schedule = Schedule { load_ms: file.load_ms, steps };
    schedule.validate().map_err(|error| {
        let index = match &error {
            ScheduleError::Overlap { index, .. }
            | ScheduleError::OutsideLoad { index, .. }
            | ScheduleError::Order { index } => Some(*index),
            _ => None,
        };
        index.map_or(error.to_string(), |index| at_line(places[index], error.to_string()))
    })?;
    Ok(schedule)
}

fn row_of(entry: &Entry) -> Result<&'static FaultRow, String> {
    catalogue::find(entry.name.as_ref()).ok_or_else(|| {
        let known: Vec<&str> = catalogue::all().map(|row| row.name).collect();
        format!("no fault '{}': there is {}", entry.name.as_ref(), known.join(", "))
    })
}

fn condition(when: &When) -> Result<Condition, String> {
    if F::of_name(&when.operation).is_none() {
        return Err(format!(
            "no kind of operation '{}'; the history names them, e.g. forecast.request",
            when.operation
        ));
    }
    if when.kth == 0 {
        return Err("kth counts from 1".to_owned());
    }
    Ok(Condition { operation: when.operation.clone(), kth: when.kth })
}

/// The distance of an entry's windows.
fn repeats(entry: &Entry) -> Result<u64, String> {
    match (entry.count, entry.every_ms) {
        (0, _) => Err("count is at least 1".to_owned()),
        (1, None) => Ok(0),
        (1, Some(_)) => Err("every_ms needs a count above 1".to_owned()),
        (count, _) if count > REPEATS_MAX => Err(format!("count is at most {REPEATS_MAX}")),
        (_, None) => Err("a count above 1 needs every_ms".to_owned()),
        (_, Some(_)) if entry.when.is_some() => Err("a fault with a condition comes once: leave count out".to_owned()),
        (_, Some(every_ms)) => Ok(every_ms),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"load_ms = 60000

[[fault]]
name = "worker-crash"
at_ms = 10000
duration_ms = 4000
jitter_ms = 2000
count = 3
every_ms = 12000

[[fault]]
name = "redis-loss"
target = "redis"
at_ms = 11000
duration_ms = 5000
when = { operation = "forecast.request", kth = 40 }
"#;

    fn drawn(text: &str) -> Result<Schedule, String> {
        draw(text, [7; 32])
    }

    #[test]
    fn one_seed_gives_one_schedule_and_another_gives_another() {
        let schedule = drawn(PLAN).unwrap();
        assert_eq!(schedule, drawn(PLAN).unwrap());
        assert_ne!(schedule, draw(PLAN, [8; 32]).unwrap());
        let crashes: Vec<&Step> = schedule.steps.iter().filter(|step| step.fault == "worker-crash").collect();
        assert_eq!((crashes.len(), schedule.steps.len()), (3, 4));
        for (step, earliest_ms) in crashes.iter().zip([10_000, 22_000, 34_000]) {
            assert!((earliest_ms..=earliest_ms + 2_000).contains(&step.at_ms), "{step:?}");
            assert!(["worker-1", "worker-2"].contains(&step.target.as_str()));
        }
        let lost = schedule.steps.iter().find(|step| step.fault == "redis-loss").unwrap();
        assert_eq!(lost.when, Some(Condition { operation: "forecast.request".to_owned(), kth: 40 }));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_its_line() {
        for (from, to, line, words) in [
            ("jitter_ms = 2000", "jiter_ms = 2000", 7, "unknown field `jiter_ms`"),
            ("\"worker-crash\"", "\"worker-cash\"", 4, "no fault 'worker-cash'"),
            ("target = \"redis\"", "target = \"worker-1\"", 13, "cannot hurt 'worker-1'"),
            ("forecast.request\"", "forecast.ask\"", 16, "no kind of operation 'forecast.ask'"),
            ("kth = 40", "kth = 0", 16, "counts from 1"),
            ("every_ms = 12000\n", "\n", 3, "needs every_ms"),
            ("count = 3", "count = 101", 3, "at most 100"),
            ("at_ms = 11000", "at_ms = 59000", 11, "does not lie within the load"),
            ("at_ms = 10000", "at_ms = \"soon\"", 5, "invalid type"),
        ] {
            let text = PLAN.replacen(from, to, 1);
            assert_ne!(text, PLAN, "{from}");
            let wrong = drawn(&text).expect_err(to);
            assert!(wrong.contains(&format!("line {line}")) && wrong.contains(words), "{to}: {wrong}");
        }
    }

    #[test]
    fn two_windows_on_one_victim_are_refused() {
        let text = PLAN.replace("name = \"worker-crash\"", "name = \"worker-crash\"\ntarget = \"worker-2\"");
        let near = text.replace("every_ms = 12000", "every_ms = 3000");
        assert!(drawn(&text).is_ok());
        let wrong = drawn(&near).unwrap_err();
        assert!(wrong.contains("hurts worker-2") && wrong.contains("lets go of it"), "{wrong}");
    }

    #[test]
    fn the_schema_knows_every_key_and_no_other() {
        let schema = schema();
        let entry = &schema["$defs"]["Entry"];
        assert_eq!(entry["additionalProperties"], false, "{schema:#}");
        let keys: Vec<&str> = entry["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        for key in ["name", "target", "at_ms", "when", "duration_ms", "jitter_ms", "count", "every_ms", "params"] {
            assert!(keys.contains(&key), "{key} is missing: {keys:?}");
        }
        assert_eq!(schema["$defs"]["When"]["additionalProperties"], false);
    }
}
