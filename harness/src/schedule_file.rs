//! A schedule written by hand: which faults, on whom, when, how often; read from TOML and drawn out with the seed.
//!
//! The file is a plan and not yet a schedule: jitter and victims left open are drawn from the run's stream of faults, so
//! that one seed gives one schedule. What is stored and replayed is what was drawn. `nogo list schedule-schema` prints
//! the JSON Schema of the file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use nogo_faults::catalogue::{Parameter, Takes};
use nogo_faults::{Condition, FaultRow, ParamValue, Schedule, ScheduleError, Step, catalogue};
use nogo_invariants::history::F;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use toml::Spanned;

use crate::exit_code::EndsWith;
use crate::experiment::Limits;
use crate::nemesis::window_ms_max;

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
    /// From install to heal, milliseconds; a fault may not stand for longer than a minute, its proof included.
    #[schemars(with = "u64")]
    pub duration_ms: Spanned<u64>,
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
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    pub params: Option<Spanned<BTreeMap<String, ParamValue>>>,
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

/// The JSON Schema of a schedule file: names, victims and parameters of each fault as the catalogue has them.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(ScheduleFile).to_value();
    let faults: Vec<Value> = catalogue::all().map(of_fault).collect();
    schema["$defs"]["Entry"]["allOf"] = faults.into();
    let names: Vec<&str> = catalogue::all().map(|row| row.name).collect();
    let entry = &mut schema["$defs"]["Entry"]["properties"];
    entry["name"]["enum"] = names.into();
    entry["duration_ms"]["minimum"] = 1.into();
    entry["duration_ms"]["maximum"] = window_ms_max(&Limits::default()).into();
    schema
}

/// What an entry of that name may say.
fn of_fault(row: &FaultRow) -> Value {
    let parameters: serde_json::Map<String, Value> =
        row.parameters().iter().map(|parameter| (parameter.name.to_owned(), of_parameter(parameter))).collect();
    json!({
        "if": { "properties": { "name": { "const": row.name } } },
        "then": { "properties": {
            "target": { "enum": row.targets },
            "params": { "type": "object", "properties": parameters, "additionalProperties": false },
        } },
    })
}

fn of_parameter(parameter: &Parameter) -> Value {
    let mut schema = match parameter.takes {
        Takes::Whole { min, max, .. } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Takes::Text => json!({ "type": "string", "minLength": 1 }),
        Takes::Word(words) => json!({ "enum": words }),
        Takes::Flag => json!({ "type": "boolean" }),
    };
    schema["description"] = parameter.what.into();
    if let Some(default) = parameter.default_value() {
        schema["default"] = json!(default);
    }
    schema
}

/// Reads `path` and draws the schedule from `stream`.
///
/// # Errors
/// A usage error that names the file and the line: not TOML, an unknown key, a fault or a victim that does not exist,
/// windows that overlap on one victim, do not lie within the load or last too long.
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
        let duration_ms = *entry.duration_ms.as_ref();
        let longest_ms = window_ms_max(&Limits::default());
        if duration_ms > longest_ms {
            let wrong = format!("duration_ms is at most {longest_ms}: no fault may stand for longer");
            return Err(at_line(entry.duration_ms.span().start, wrong));
        }
        let every_ms = repeats(entry).map_err(|wrong| at_line(place, wrong))?;
        let params = entry.params.as_ref().map(|params| params.as_ref().clone()).unwrap_or_default();
        let said_at = entry.params.as_ref().map_or(place, |params| params.span().start);
        row.check_parameters(&params).map_err(|wrong| at_line(said_at, wrong))?;
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
                duration_ms,
                params: params.clone(),
            };
            if row.is_of_rules() {
                catalogue::rules_of(&step, "").map_err(|wrong| at_line(said_at, wrong))?;
            }
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
            ("duration_ms = 5000", "duration_ms = 54001", 15, "duration_ms is at most 54000"),
        ] {
            let text = PLAN.replacen(from, to, 1);
            assert_ne!(text, PLAN, "{from}");
            let wrong = drawn(&text).expect_err(to);
            assert!(wrong.contains(&format!("line {line}")) && wrong.contains(words), "{to}: {wrong}");
        }
    }

    const RULES: &str = r#"load_ms = 60000

[[fault]]
name = "postgres-commit-answer-lost"
target = "workers-postgres"
at_ms = 10000
duration_ms = 8000
params = { kth = 40, times = 1, statement = "SELECT app.complete_jobs" }

[[fault]]
name = "redis-error-reply"
at_ms = 30000
duration_ms = 8000
[fault.params]
command = "SET"
code = "LOADING"
"#;

    #[test]
    fn a_line_may_name_a_statement_or_a_command() {
        let schedule = drawn(RULES).unwrap();
        let rules: Vec<_> = schedule.steps.iter().map(|step| catalogue::rules_of(step, "f").unwrap()).collect();
        assert_eq!((rules[0].len(), rules[1].len()), (1, 20));
        for (from, to, line, words) in [
            ("kth = 40", "k = 40", 8, "no parameter 'k'"),
            ("kth = 40", "kth = 0", 8, "a whole number from 1"),
            ("times = 1", "times = 1000", 8, "from 1 to 100"),
            ("SELECT app.complete_jobs", " ", 8, "says something"),
            ("workers-postgres", "workers-redis", 5, "cannot hurt 'workers-redis'"),
            ("LOADING", "LODING", 14, "one of OOM"),
            ("command = \"SET\"", "command = \"SET x\"", 14, "one word"),
        ] {
            let text = RULES.replacen(from, to, 1);
            assert_ne!(text, RULES, "{from}");
            let wrong = drawn(&text).expect_err(to);
            assert!(wrong.contains(&format!("line {line}:")) && wrong.contains(words), "{to}: {wrong}");
        }
    }

    #[test]
    fn a_parameter_that_a_fault_does_not_have_is_refused() {
        let text = PLAN.replace("count = 3", "params = { kth = 3 }\ncount = 3");
        let wrong = drawn(&text).unwrap_err();
        assert!(wrong.contains("worker-crash has no parameter 'kth': it has none"), "{wrong}");
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
    fn the_longest_window_is_that_of_the_schema() {
        let schema = schema();
        let duration = &schema["$defs"]["Entry"]["properties"]["duration_ms"];
        assert_eq!((&duration["minimum"], &duration["maximum"]), (&json!(1), &json!(54_000)));
        let text =
            PLAN.replace("load_ms = 60000", "load_ms = 90000").replace("duration_ms = 5000", "duration_ms = 54000");
        assert!(drawn(&text).is_ok(), "the longest is still one");
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
        let rows = entry["allOf"].as_array().unwrap();
        assert_eq!(rows.len(), catalogue::all().count());
        let late = rows.iter().find(|row| row["if"]["properties"]["name"]["const"] == "redis-reply-late").unwrap();
        let params = &late["then"]["properties"]["params"];
        assert_eq!(
            (&params["properties"]["late_ms"]["default"], &params["additionalProperties"]),
            (&json!(700), &json!(false))
        );
        assert_eq!(schema["$defs"]["When"]["additionalProperties"], false);
    }
}
