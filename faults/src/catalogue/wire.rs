//! What is done to single requests of the system to its stores: the k-th COMMIT, the k-th reply.
//!
//! Each row is a line of a schedule, made into rules of the protocol (see [`crate::protocol`]). A window hurts a bounded
//! number of requests and the connections that they were on, so that nearly all of the load must be answered; what was
//! hurt may be refused, and may never be done twice or forgotten.

use std::collections::BTreeMap;

use super::parameters::{Parameter, Takes};
use super::{Family, FaultRow, family_of, find, provider, role_and_store, sink};
use crate::fault::Tolerance;
use crate::protocol::{
    Action, CommitPattern, Occurrence, Pattern, Place, PostgresPattern, RedisPattern, Rule, RuleError,
};
use crate::schedule::{ParamValue, Step};

const BOTH: &[&str] = &["docker", "process"];
const TO_POSTGRES: &[&str] = &[
    "apis-postgres",
    "api-1-postgres",
    "api-2-postgres",
    "workers-postgres",
    "worker-1-postgres",
    "worker-2-postgres",
    "billers-postgres",
];
const TO_REDIS: &[&str] = &["apis-redis", "api-1-redis", "api-2-redis"];

pub(super) const RULE_LIVE: &str = "the proxies ask the rules for every request, and count those that match";
pub(super) const READ_ON_THE_WIRE: &str =
    "the proxies read the server's own word that it had done it, and the client never did";

const fn tolerance(goodput_percent_min: u8, outage_ms_max: u64, recover_ms_max: u64) -> Tolerance {
    Tolerance { goodput_ratio_min: goodput_percent_min as f64 / 100.0, outage_ms_max, recover_ms_max }
}

const SINGLE_REQUESTS: Tolerance = tolerance(85, 1_500, 15_000);

/// The rows of this family.
pub(super) const ROWS: &[FaultRow] = &[
    FaultRow {
        name: "postgres-commit-lost",
        kind: "postgres_commit_lost",
        targets: TO_POSTGRES,
        what: "the victim's k-th COMMIT after the window began never arrives, and its connection ends; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "the proxies saw the COMMIT and the end of its connection",
        engines: BOTH,
        tolerance: SINGLE_REQUESTS,
    },
    FaultRow {
        name: "postgres-commit-answer-lost",
        kind: "postgres_commit_answer_lost",
        targets: TO_POSTGRES,
        what: "the victim's k-th COMMIT holds, its answer is lost, and its connection ends; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: READ_ON_THE_WIRE,
        engines: BOTH,
        tolerance: SINGLE_REQUESTS,
    },
    FaultRow {
        name: "postgres-answer-late",
        kind: "postgres_answer_late",
        targets: TO_POSTGRES,
        what: "the answer to the victim's k-th statement comes late by late_ms; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "the proxies measured how late it was handed on",
        engines: BOTH,
        tolerance: SINGLE_REQUESTS,
    },
    FaultRow {
        name: "postgres-request-held",
        kind: "postgres_request_held",
        targets: TO_POSTGRES,
        what: "from the victim's k-th statement on its connection is half-open: silent in both directions, its end untold, \
               until the window closes; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "the proxies hold it",
        engines: BOTH,
        tolerance: SINGLE_REQUESTS,
    },
    FaultRow {
        name: "redis-reply-lost",
        kind: "redis_reply_lost",
        targets: TO_REDIS,
        what: "Redis carries out the victim's k-th command, and its reply and all behind it are lost; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: READ_ON_THE_WIRE,
        engines: BOTH,
        tolerance: SINGLE_REQUESTS,
    },
    FaultRow {
        name: "redis-reply-late",
        kind: "redis_reply_late",
        targets: TO_REDIS,
        what: "the reply to the victim's k-th command, and all behind it, comes late by late_ms; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "the proxies measured how late it was handed on",
        engines: BOTH,
        tolerance: SINGLE_REQUESTS,
    },
    FaultRow {
        name: "redis-error-reply",
        kind: "redis_error_reply",
        targets: TO_REDIS,
        what: "the victim's k-th command never arrives and is answered with an error; so for the next ones",
        control_proof: RULE_LIVE,
        effect_proof: "the APIs' own counters: more refusals of Redis than before",
        engines: BOTH,
        tolerance: SINGLE_REQUESTS,
    },
];

pub(super) const KTH: Parameter = Parameter {
    name: "kth",
    what: "the first request that is hurt, counted from the beginning of the window",
    takes: Takes::Whole { min: 1, max: 1_000_000, default: 1 },
};
pub(super) const TIMES: Parameter = Parameter {
    name: "times",
    what: "how many are hurt, one after the other",
    takes: Takes::Whole { min: 1, max: 100, default: 5 },
};
const MANY_TIMES: Parameter = Parameter { takes: Takes::Whole { min: 1, max: 100, default: 20 }, ..TIMES };
const STATEMENT: Parameter = Parameter {
    name: "statement",
    what: "only this statement: its hash, or the beginning of its text; of a COMMIT, one of its transaction",
    takes: Takes::Text,
};
const LATE: Parameter = Parameter {
    name: "late_ms",
    what: "how late, milliseconds",
    takes: Takes::Whole { min: 1, max: 60_000, default: 700 },
};
const COMMAND: Parameter = Parameter { name: "command", what: "only this command, such as SET", takes: Takes::Text };
const KEY_PREFIX: Parameter =
    Parameter { name: "key_prefix", what: "only commands with a key that begins so", takes: Takes::Text };
const WRITES: Parameter =
    Parameter { name: "writes", what: "only commands that may write, every script among them", takes: Takes::Flag };
const CODE: Parameter = Parameter {
    name: "code",
    what: "the error's first word",
    takes: Takes::Word(&["OOM", "READONLY", "LOADING", "MISCONF"]),
};

/// What a schedule may say of a row of this family.
pub(super) fn parameters(row: &FaultRow) -> &'static [Parameter] {
    match row.name {
        "postgres-commit-lost" | "postgres-commit-answer-lost" | "postgres-request-held" => &[KTH, TIMES, STATEMENT],
        "postgres-answer-late" => &[KTH, TIMES, STATEMENT, LATE],
        "redis-reply-lost" => &[KTH, TIMES, COMMAND, KEY_PREFIX, WRITES],
        "redis-reply-late" => &[KTH, TIMES, COMMAND, KEY_PREFIX, WRITES, LATE],
        "redis-error-reply" => &[KTH, MANY_TIMES, COMMAND, KEY_PREFIX, WRITES, CODE],
        _ => &[],
    }
}

/// The rules that a step of this family, or of the provider's or the sinks', stands for, named `<id>-1` and so on; one for
/// each request that is hurt, or one for all of a sink's.
///
/// # Errors
/// In words: a parameter that the fault does not have or that says nothing, or a fault of another family.
pub fn rules_of(step: &Step, id: &str) -> Result<Vec<Rule>, String> {
    let row = find(&step.fault).filter(|row| row.is_of_rules());
    let row = row.ok_or_else(|| format!("{} is no rule of a protocol", step.fault))?;
    row.check_parameters(&step.params)?;
    let given = Given { row, params: &step.params };
    let (role, store) = role_and_store(&step.target).ok_or_else(|| format!("{} is no link", step.target))?;
    // `apis` are all of the role `api`; a process is named as it is.
    let role = role.strip_suffix('s').unwrap_or(role);
    if family_of(row) == Family::Sink {
        let rule = sink::rule(&given, id, role, store)?;
        rule.validate().map_err(|wrong: RuleError| wrong.to_string())?;
        return Ok(vec![rule]);
    }
    let of_provider = family_of(row) == Family::Provider;
    let pattern = if of_provider { provider::pattern(&given) } else { pattern(&given) };
    let (place, action) = if of_provider { provider::what_happens(&given) } else { what_happens(&given) };
    let (kth, times) = (given.whole("kth"), given.whole("times"));
    let rules = (0..times).map(|number| Rule {
        name: format!("{id}-{}", number + 1),
        role: Some(role.to_owned()),
        pattern: pattern.clone(),
        k: Occurrence::Kth(kth.saturating_add(number)),
        place,
        action: action.clone(),
    });
    let rules: Vec<Rule> = rules.collect();
    rules.iter().try_for_each(Rule::validate).map_err(|wrong: RuleError| wrong.to_string())?;
    Ok(rules)
}

/// Parameters with their defaults.
pub(super) struct Given<'a> {
    pub(super) row: &'a FaultRow,
    params: &'a BTreeMap<String, ParamValue>,
}

impl Given<'_> {
    fn value(&self, name: &str) -> Option<ParamValue> {
        let default = || self.row.parameters().iter().find(|known| known.name == name)?.default_value();
        self.params.get(name).cloned().or_else(default)
    }

    pub(super) fn whole(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(ParamValue::Whole(given)) => given.unsigned_abs(),
            _ => 1,
        }
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(ParamValue::Text(given)) => Some(given),
            _ => None,
        }
    }
}

fn pattern(given: &Given<'_>) -> Pattern {
    let statement = given.text("statement");
    match given.row.name {
        "postgres-commit-lost" | "postgres-commit-answer-lost" => {
            Pattern::Postgres(PostgresPattern { statement, commit: Some(CommitPattern::Writing) })
        }
        "postgres-answer-late" | "postgres-request-held" => {
            Pattern::Postgres(PostgresPattern { statement, commit: None })
        }
        _ => Pattern::Redis(RedisPattern {
            command: given.text("command"),
            key_prefix: given.text("key_prefix"),
            script: None,
            writes: given.value("writes") == Some(ParamValue::Flag(true)),
        }),
    }
}

fn what_happens(given: &Given<'_>) -> (Place, Action) {
    let late = || Action::Late { ms: given.whole("late_ms") };
    match given.row.name {
        "postgres-commit-lost" => (Place::BeforeServer, Action::Cut),
        "postgres-commit-answer-lost" => (Place::BeforeClient, Action::Cut),
        "postgres-request-held" => (Place::BeforeServer, Action::Hold { ms: None }),
        "redis-reply-lost" => (Place::BeforeClient, Action::Drop),
        "redis-error-reply" => {
            let code = given.text("code").unwrap_or_default();
            (Place::BeforeServer, Action::Error { code, text: None, retry_after_s: None })
        }
        _ => (Place::BeforeClient, late()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(fault: &str, target: &str, params: &[(&str, ParamValue)]) -> Step {
        Step {
            fault: fault.to_owned(),
            target: target.to_owned(),
            at_ms: 0,
            when: None,
            duration_ms: 1,
            params: params.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        }
    }

    #[test]
    fn a_line_becomes_a_rule_for_each_request_that_is_hurt() {
        let params = [
            ("kth", ParamValue::Whole(40)),
            ("times", ParamValue::Whole(2)),
            ("statement", ParamValue::Text("UPDATE app.jobs".to_owned())),
        ];
        let rules = rules_of(&step("postgres-commit-answer-lost", "workers-postgres", &params), "f1").unwrap();
        let occurrences: Vec<Occurrence> = rules.iter().map(|rule| rule.k).collect();
        assert_eq!(occurrences, [Occurrence::Kth(40), Occurrence::Kth(41)]);
        assert_eq!((rules[1].name.as_str(), rules[1].role.as_deref()), ("f1-2", Some("worker")));
        assert_eq!((rules[0].place, &rules[0].action), (Place::BeforeClient, &Action::Cut));
        let one = rules_of(&step("redis-error-reply", "api-1-redis", &[]), "f2").unwrap();
        assert_eq!((one.len(), one[0].role.as_deref()), (20, Some("api-1")));
        assert!(matches!(&one[0].action, Action::Error { code, .. } if code == "OOM"));
    }

    #[test]
    fn every_row_makes_rules_for_every_victim_without_a_parameter() {
        for row in ROWS.iter().chain(provider::ROWS).chain(sink::ROWS) {
            for target in row.targets {
                assert!(!rules_of(&step(row.name, target, &[]), "f1").unwrap().is_empty(), "{} {target}", row.name);
            }
        }
    }

    #[test]
    fn what_a_row_does_not_take_is_refused() {
        for (fault, params, words) in [
            ("redis-reply-lost", ("statement", ParamValue::Text("x".to_owned())), "has no parameter 'statement'"),
            ("postgres-commit-lost", ("kth", ParamValue::Whole(0)), "from 1"),
            ("redis-error-reply", ("code", ParamValue::Text("OOPS".to_owned())), "one of OOM, READONLY"),
            ("redis-reply-lost", ("command", ParamValue::Text("SET x".to_owned())), "one word"),
            ("postgres-commit-lost", ("statement", ParamValue::Text(" ".to_owned())), "says something"),
            ("redis-loss", ("kth", ParamValue::Whole(1)), "no rule of a protocol"),
        ] {
            let wrong = rules_of(&step(fault, "apis-redis", &[params]), "f1").unwrap_err();
            assert!(wrong.contains(words), "{fault}: {wrong}");
        }
    }
}
