//! Seed to timed steps: which fault, on whom, when, for how long. Pure, no I/O, no clock.
//!
//! The schedule is the artefact that is stored and replayed; the seed only draws it.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::catalogue::{self, role_and_store};

/// Timed steps within one stretch of load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Length of the load, milliseconds.
    pub load_ms: u64,
    /// Steps in order of their start.
    #[serde(default)]
    pub steps: Vec<Step>,
}

/// One fault, held for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name of the fault.
    pub fault: String,
    /// Name of the victim within the run, such as `worker-1`.
    pub target: String,
    /// Start, milliseconds after the start of the load; with a condition the earliest.
    pub at_ms: u64,
    /// What to wait for from then on; none starts at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    /// From install to heal, milliseconds.
    pub duration_ms: u64,
    /// Parameters of the fault, by name with the unit last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, ParamValue>,
}

impl Step {
    /// When the fault is healed, milliseconds after the start of the load.
    pub fn end_ms(&self) -> u64 {
        self.at_ms.saturating_add(self.duration_ms)
    }

    /// The same window with its condition replaced by the time at which it came, `came_ms` after the start of a load of
    /// `load_ms`. A window without a condition stays as it was planned, however late it was begun, so that a replay of a
    /// replay is still the same window.
    #[must_use]
    pub fn realised(&self, came_ms: u64, load_ms: u64) -> Self {
        // The condition was waited for no longer than this, by another clock's tick.
        let latest_ms = load_ms.saturating_sub(self.duration_ms);
        let at_ms = if self.when.is_some() { came_ms.min(latest_ms).max(self.at_ms) } else { self.at_ms };
        Self { at_ms, when: None, ..self.clone() }
    }
}

/// The moment of the k-th operation of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Kind of operation as the history names it, such as `forecast.request`.
    pub operation: String,
    /// Which one since the start of the load, from 1.
    pub kth: u64,
}

/// Value of a parameter, storable in TOML and JSON alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParamValue {
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// A share or another broken number.
    Ratio(f64),
    /// A word.
    Text(String),
}

/// What to draw a schedule from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawPlan {
    /// Length of the load, milliseconds.
    pub load_ms: u64,
    /// Undisturbed load before the first window, milliseconds at least.
    pub baseline_ms_min: u64,
    /// Undisturbed load between two windows, milliseconds at least.
    pub calm_ms_min: u64,
    /// Undisturbed load after the last window, milliseconds at least.
    pub tail_ms_min: u64,
    /// Shortest window, milliseconds.
    pub window_ms_min: u64,
    /// Longest window, milliseconds.
    pub window_ms_max: u64,
    /// Each is used once, in a drawn order.
    pub faults: Vec<FaultChoice>,
}

/// One fault and who may be its victim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultChoice {
    /// Name of the fault.
    pub fault: String,
    /// Possible victims, at least one.
    pub targets: Vec<String>,
    /// Parameters, copied into the step.
    #[serde(default)]
    pub params: BTreeMap<String, ParamValue>,
}

impl DrawPlan {
    /// 8 s of baseline, windows of 5 to 8 s with at least 5 s of calm between and after.
    pub fn smoke(load_ms: u64, faults: Vec<FaultChoice>) -> Self {
        Self {
            load_ms,
            baseline_ms_min: 8_000,
            calm_ms_min: 5_000,
            tail_ms_min: 5_000,
            window_ms_min: 5_000,
            window_ms_max: 8_000,
            faults,
        }
    }
}

/// Why there is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Even the shortest windows do not fit into the load.
    #[error("windows and calm need {needed_ms} ms, the load lasts {load_ms} ms")]
    DoesNotFit {
        /// Least length, milliseconds.
        needed_ms: u64,
        /// Length given, milliseconds.
        load_ms: u64,
    },
    /// The shortest window is longer than the longest.
    #[error("shortest window {min_ms} ms is longer than the longest, {max_ms} ms")]
    WindowBounds {
        /// Shortest, milliseconds.
        min_ms: u64,
        /// Longest, milliseconds.
        max_ms: u64,
    },
    /// A fault nobody can be the victim of.
    #[error("{fault} has no possible victim")]
    NoVictim {
        /// Name of the fault.
        fault: String,
    },
    /// Two windows on one victim, which neither could undo without undoing the other.
    #[error("step {index} ({fault}) hurts {target} from {at_ms} ms on, before step {other} ({by}) lets go of it")]
    Overlap {
        /// Index of the later step, from 0.
        index: usize,
        /// Name of its fault.
        fault: String,
        /// The victim of both.
        target: String,
        /// Its start, milliseconds.
        at_ms: u64,
        /// Index of the earlier step, from 0.
        other: usize,
        /// What the earlier step hurts, and by which fault.
        by: String,
    },
    /// Steps are not in the order of their starts.
    #[error("step {index} starts before the step before it")]
    Order {
        /// Index of the later step, from 0.
        index: usize,
    },
    /// A step has no length, or ends after the load.
    #[error("step {index} ({fault}) does not lie within the load")]
    OutsideLoad {
        /// Index of the step, from 0.
        index: usize,
        /// Name of its fault.
        fault: String,
    },
}

impl Schedule {
    /// Load without faults.
    pub fn undisturbed(load_ms: u64) -> Self {
        Self { load_ms, steps: Vec::new() }
    }

    /// Draws order, victims, windows and gaps; the same stream and plan give the same schedule.
    ///
    /// # Errors
    /// [`ScheduleError`] if the plan contradicts itself or does not fit.
    pub fn draw(stream: [u8; 32], plan: &DrawPlan) -> Result<Self, ScheduleError> {
        let calm_ms = required_calm_ms(plan)?;
        let mut rng = ChaCha8Rng::from_seed(stream);
        let mut order: Vec<&FaultChoice> = plan.faults.iter().collect();
        order.shuffle(&mut rng);

        let windows = draw_windows(&mut rng, plan, calm_ms);
        let slack_ms = plan.load_ms - calm_ms - windows.iter().sum::<u64>();
        let jitters = split_slack(&mut rng, slack_ms, order.len());

        let mut steps = Vec::with_capacity(order.len());
        let mut free_from_ms = plan.baseline_ms_min;
        for ((choice, duration_ms), jitter_ms) in order.into_iter().zip(windows).zip(jitters) {
            let at_ms = free_from_ms + jitter_ms;
            let victim = rng.random_range(0..choice.targets.len());
            steps.push(Step {
                fault: choice.fault.clone(),
                target: choice.targets[victim].clone(),
                at_ms,
                when: None,
                duration_ms,
                params: choice.params.clone(),
            });
            free_from_ms = at_ms + duration_ms + plan.calm_ms_min;
        }
        Ok(Self { load_ms: plan.load_ms, steps })
    }

    /// Checks a schedule that was read from a file. Windows may overlap on different victims; a store that a fault keeps
    /// from answering and a link to it are one. A step with a condition may come at any time after its earliest, so it is
    /// held against every window on its victim from there on.
    ///
    /// # Errors
    /// [`ScheduleError::OutsideLoad`], [`ScheduleError::Order`] or [`ScheduleError::Overlap`] for the first bad step.
    pub fn validate(&self) -> Result<(), ScheduleError> {
        for (index, step) in self.steps.iter().enumerate() {
            if step.duration_ms == 0 || step.end_ms() > self.load_ms {
                return Err(ScheduleError::OutsideLoad { index, fault: step.fault.clone() });
            }
            let before = &self.steps[..index];
            if before.last().is_some_and(|last| last.at_ms > step.at_ms) {
                return Err(ScheduleError::Order { index });
            }
            let still_open =
                |earlier: &Step| meet(earlier, step) && (earlier.when.is_some() || earlier.end_ms() > step.at_ms);
            if let Some(other) = before.iter().position(still_open) {
                let (fault, target) = (step.fault.clone(), step.target.clone());
                let by = format!("{} on {}", before[other].fault, before[other].target);
                return Err(ScheduleError::Overlap { index, fault, target, at_ms: step.at_ms, other, by });
            }
        }
        Ok(())
    }
}

/// Whether two faults hurt one victim: the same, one that is part of the other, or a store and a link that leads to it.
fn meet(one: &Step, other: &Step) -> bool {
    are_one(&one.target, &other.target) || is_on_its_way(one, other) || is_on_its_way(other, one)
}

/// Whether two victims are one, or one is of the other: `apis` is every API, `apis-redis` every API's link to Redis.
fn are_one(one: &str, other: &str) -> bool {
    if let (Some((role, store)), Some((other_role, other_store))) = (role_and_store(one), role_and_store(other)) {
        return store == other_store && are_one(role, other_role);
    }
    let is_of = |name: &str, role: &str| {
        role.strip_suffix('s').and_then(|single| name.strip_prefix(single)).is_some_and(|rest| rest.starts_with('-'))
    };
    one == other || is_of(one, other) || is_of(other, one)
}

/// Whether one fault hurts links as a whole that lead to a store which the other keeps from answering on any link: whichever
/// is undone first would greet through the harm of the other, and find its own victim still hurt.
fn is_on_its_way(link: &Step, store: &Step) -> bool {
    let leads_there = role_and_store(&link.target).is_some_and(|(_, leads_to)| leads_to == store.target);
    let row = |step: &Step| catalogue::find(&step.fault);
    leads_there
        && row(link).is_some_and(|row| !row.is_of_rules())
        && row(store).is_some_and(catalogue::FaultRow::hurts_every_link)
}

/// Load that must stay undisturbed, once it is known that the shortest windows fit beside it.
fn required_calm_ms(plan: &DrawPlan) -> Result<u64, ScheduleError> {
    if plan.window_ms_min > plan.window_ms_max {
        return Err(ScheduleError::WindowBounds { min_ms: plan.window_ms_min, max_ms: plan.window_ms_max });
    }
    if let Some(choice) = plan.faults.iter().find(|choice| choice.targets.is_empty()) {
        return Err(ScheduleError::NoVictim { fault: choice.fault.clone() });
    }
    let count = u64::try_from(plan.faults.len()).unwrap_or(u64::MAX);
    let calm_ms = plan
        .calm_ms_min
        .saturating_mul(count.saturating_sub(1))
        .saturating_add(plan.baseline_ms_min)
        .saturating_add(plan.tail_ms_min);
    let needed_ms = plan.window_ms_min.saturating_mul(count).saturating_add(calm_ms);
    if needed_ms > plan.load_ms {
        return Err(ScheduleError::DoesNotFit { needed_ms, load_ms: plan.load_ms });
    }
    Ok(calm_ms)
}

/// One length per fault; a later one is cut where the earlier ones left too little room.
fn draw_windows(rng: &mut ChaCha8Rng, plan: &DrawPlan, calm_ms: u64) -> Vec<u64> {
    let mut spare_ms = plan.load_ms - calm_ms - plan.window_ms_min * plan.faults.len() as u64;
    plan.faults
        .iter()
        .map(|_| {
            let longest = plan.window_ms_max.min(plan.window_ms_min + spare_ms);
            let window = rng.random_range(plan.window_ms_min..=longest);
            spare_ms -= window - plan.window_ms_min;
            window
        })
        .collect()
}

/// Cuts the slack into `count` gaps before the windows and one, not returned, after the last.
fn split_slack(rng: &mut ChaCha8Rng, slack_ms: u64, count: usize) -> Vec<u64> {
    let mut cuts: Vec<u64> = (0..count).map(|_| rng.random_range(0..=slack_ms)).collect();
    cuts.sort_unstable();
    let mut last = 0;
    cuts.into_iter()
        .map(|cut| {
            let gap = cut - last;
            last = cut;
            gap
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(load_ms: u64) -> DrawPlan {
        let choice = |fault: &str, targets: &[&str]| FaultChoice {
            fault: fault.into(),
            targets: targets.iter().map(|&target| target.into()).collect(),
            params: BTreeMap::from([("kth".into(), ParamValue::Whole(3))]),
        };
        DrawPlan::smoke(
            load_ms,
            vec![
                choice("pool-exhaustion", &["postgres"]),
                choice("redis-loss", &["redis"]),
                choice("process-kill", &["worker-1", "worker-2"]),
            ],
        )
    }

    fn stream(number: u64) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    #[test]
    fn every_seed_keeps_windows_and_calm_within_their_bounds() {
        let plan = plan(55_000);
        for seed in 0..2_000 {
            let schedule = Schedule::draw(stream(seed), &plan).expect("fits");
            schedule.validate().expect("valid");
            assert_eq!(schedule.steps.len(), 3);
            assert!(schedule.steps[0].at_ms >= 8_000);
            for step in &schedule.steps {
                assert!((5_000..=8_000).contains(&step.duration_ms));
            }
            for pair in schedule.steps.windows(2) {
                assert!(pair[1].at_ms - pair[0].end_ms() >= 5_000);
            }
            assert!(schedule.steps[2].end_ms() <= 50_000);
        }
    }

    #[test]
    fn same_seed_draws_the_same_schedule() {
        let plan = plan(55_000);
        let first = Schedule::draw(stream(7), &plan);
        assert_eq!(first, Schedule::draw(stream(7), &plan));
        assert_ne!(first, Schedule::draw(stream(8), &plan));
    }

    #[test]
    fn seeds_reach_every_order_and_every_victim() {
        let plan = plan(55_000);
        let mut orders = std::collections::BTreeSet::new();
        let mut victims = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let schedule = Schedule::draw(stream(seed), &plan).expect("fits");
            orders.insert(schedule.steps.iter().map(|step| step.fault.clone()).collect::<Vec<_>>());
            victims.extend(schedule.steps.into_iter().map(|step| step.target));
        }
        assert_eq!(orders.len(), 6);
        assert_eq!(victims.len(), 4);
    }

    #[test]
    fn shortest_load_leaves_no_slack_and_one_less_does_not_fit() {
        let schedule = Schedule::draw(stream(1), &plan(38_000)).expect("fits exactly");
        let starts: Vec<u64> = schedule.steps.iter().map(|step| step.at_ms).collect();
        assert_eq!(starts, [8_000, 18_000, 28_000]);
        assert_eq!(
            Schedule::draw(stream(1), &plan(37_999)),
            Err(ScheduleError::DoesNotFit { needed_ms: 38_000, load_ms: 37_999 })
        );
    }

    #[test]
    fn survives_a_round_trip_and_refuses_unknown_fields() {
        let schedule = Schedule::draw(stream(3), &plan(55_000)).expect("fits");
        let text = serde_json::to_string(&schedule).expect("write");
        assert_eq!(serde_json::from_str::<Schedule>(&text).expect("read"), schedule);
        let odd = text.replacen("\"at_ms\"", "\"at_s\"", 1);
        assert!(serde_json::from_str::<Schedule>(&odd).is_err());
    }

    #[test]
    fn windows_may_overlap_on_different_victims_alone() {
        let mut schedule = Schedule::draw(stream(3), &plan(55_000)).expect("fits");
        schedule.steps[1].at_ms = schedule.steps[0].end_ms() - 1;
        assert_eq!(schedule.validate(), Ok(()));
        schedule.steps[1].target = schedule.steps[0].target.clone();
        assert!(matches!(schedule.validate(), Err(ScheduleError::Overlap { index: 1, other: 0, .. })));
        schedule.steps.swap(0, 1);
        assert!(matches!(schedule.validate(), Err(ScheduleError::Order { index: 1 })));
    }

    #[test]
    fn a_step_with_a_condition_keeps_its_victim_to_itself_until_the_end() {
        let mut schedule = Schedule::draw(stream(3), &plan(55_000)).expect("fits");
        schedule.steps[2].target = schedule.steps[0].target.clone();
        assert_eq!(schedule.validate(), Ok(()));
        schedule.steps[0].when = Some(Condition { operation: "refresh".into(), kth: 3 });
        assert!(matches!(schedule.validate(), Err(ScheduleError::Overlap { index: 2, other: 0, .. })));
    }

    #[test]
    fn what_was_realised_is_the_same_windows_and_realised_again_the_same_still() {
        let mut planned = Schedule::draw(stream(3), &plan(55_000)).expect("fits");
        let (first, last) = (planned.steps[0].clone(), planned.steps.len() - 1);
        planned.steps[last].duration_ms = planned.load_ms - planned.steps[last].at_ms;
        planned.steps[0].when = Some(Condition { operation: "refresh".into(), kth: 3 });
        planned.validate().expect("valid, the last window to the end of the load");
        // Each begun and undone late, as it is on a busy machine.
        let realised = |plan: &Schedule| Schedule {
            load_ms: plan.load_ms,
            steps: plan.steps.iter().map(|step| step.realised(step.at_ms + 700, plan.load_ms)).collect(),
        };
        let once = realised(&planned);
        once.validate().expect("a realised schedule can be replayed");
        assert_eq!((once.steps[0].at_ms, &once.steps[0].when), (first.at_ms + 700, &None), "when its condition came");
        assert_eq!(once.steps[1..], planned.steps[1..]);
        assert_eq!(realised(&once), once);
    }

    #[test]
    fn a_condition_that_came_at_the_last_moment_leaves_its_window_within_the_load() {
        let mut step = Schedule::draw(stream(3), &plan(55_000)).expect("fits").steps.remove(0);
        step.when = Some(Condition { operation: "refresh".into(), kth: 3 });
        let late = step.realised(55_000 - step.duration_ms + 3, 55_000);
        assert_eq!(late.end_ms(), 55_000);
    }

    #[test]
    fn a_plan_without_faults_is_undisturbed_load() {
        let plan = DrawPlan { faults: vec![], ..plan(20_000) };
        assert_eq!(Schedule::draw(stream(1), &plan), Ok(Schedule::undisturbed(20_000)));
    }

    #[test]
    fn a_role_and_one_of_its_processes_are_one_victim() {
        for (one, other, same) in [
            ("apis", "api-1", true),
            ("api-2", "apis", true),
            ("api-1", "api-1", true),
            ("api-1", "api-2", false),
            ("apis", "worker-1", false),
            ("redis", "redis", true),
            ("postgres", "replica-1", false),
            ("apis-redis", "api-2-redis", true),
            ("apis-redis", "api-2-postgres", false),
            ("workers-postgres", "apis-postgres", false),
            ("api-1-redis", "api-1", false),
        ] {
            assert_eq!(are_one(one, other), same, "{one} and {other}");
        }
    }

    #[test]
    fn a_store_that_answers_nobody_and_a_link_to_it_are_one_victim() {
        let step = |(fault, target): (&str, &str)| Step {
            fault: fault.into(),
            target: target.into(),
            at_ms: 0,
            when: None,
            duration_ms: 1,
            params: BTreeMap::new(),
        };
        for (one, other, same) in [
            (("postgres-crash", "postgres"), ("partition", "apis-postgres"), true),
            (("postgres-blackhole", "postgres"), ("link-latency", "worker-1-postgres"), true),
            (("redis-loss", "redis"), ("half-open", "api-2-redis"), true),
            (("replica-stop", "replica-1"), ("link-reset", "apis-replica-1"), true),
            (("replica-stop", "replica-1"), ("link-reset", "apis-replica-2"), false),
            (("postgres-crash", "postgres"), ("partition", "apis-redis"), false),
            // Single requests are hurt, and a greeting passes.
            (("postgres-freeze", "postgres"), ("postgres-commit-lost", "workers-postgres"), false),
            // The server answers a greeting all the while.
            (("table-locks", "postgres"), ("link-bandwidth", "api-1-postgres"), false),
            (("redis-eviction", "redis"), ("link-latency", "api-1-redis"), false),
            (("replica-lag", "replica-1"), ("partition", "apis-replica-1"), false),
        ] {
            assert_eq!(meet(&step(one), &step(other)), same, "{one:?} and {other:?}");
            assert_eq!(meet(&step(other), &step(one)), same, "{other:?} and {one:?}");
        }
    }

    #[test]
    fn a_store_may_be_hurt_once_the_link_to_it_was_let_go_of() {
        let step = |fault: &str, target: &str, at_ms| Step {
            fault: fault.into(),
            target: target.into(),
            at_ms,
            when: None,
            duration_ms: 5_000,
            params: BTreeMap::new(),
        };
        let apart = |at_ms| Schedule {
            load_ms: 40_000,
            steps: vec![step("partition", "api-1-redis", 10_000), step("redis-loss", "redis", at_ms)],
        };
        assert_eq!(apart(15_000).validate(), Ok(()));
        assert!(matches!(apart(14_999).validate(), Err(ScheduleError::Overlap { index: 1, other: 0, .. })));
    }
}
