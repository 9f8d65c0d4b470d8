//! A request repeated with its key has one effect; no forecast exists that nobody asked for.

use std::collections::{BTreeMap, BTreeSet};

use crate::checker::{Breach, Case, Finding};
use crate::history::F;
use crate::timeline::{Op, Outcome};

pub(super) fn judge(case: &Case<'_>, found: &mut Finding) {
    let requests: Vec<&Op<'_>> = case.timeline.ops.values().filter(|op| op.f() == F::ForecastRequest).collect();
    let mut effects: BTreeMap<(&str, &str), BTreeMap<&str, &Op<'_>>> = BTreeMap::new();
    let mut keys_of_effect: BTreeMap<(&str, &str), BTreeMap<&str, &Op<'_>>> = BTreeMap::new();
    let mut possible: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for op in &requests {
        let (Some(tenant), Some(key)) = (op.tenant(), op.invoke.args.key.as_deref()) else {
            continue;
        };
        if op.outcome != Outcome::Fail {
            possible.entry(tenant).or_default().insert(key);
        }
        if let Some(id) = op.answer().and_then(|answer| answer.id.as_deref()) {
            effects.entry((tenant, key)).or_default().entry(id).or_insert(op);
            keys_of_effect.entry((tenant, id)).or_default().entry(key).or_insert(op);
            if op.end.is_some_and(|end| end.replayed) {
                found.saw("replays", &case.timeline, op.ended_ns(), "");
            }
        }
    }
    two_of(&effects, "one_key_two_forecasts", "one forecast for one key", found);
    two_of(&keys_of_effect, "two_keys_one_forecast", "a forecast of its own for each key", found);
    unasked(case, &possible, found);
}

fn two_of(
    groups: &BTreeMap<(&str, &str), BTreeMap<&str, &Op<'_>>>,
    shape: &'static str,
    expected: &str,
    found: &mut Finding,
) {
    for ((tenant, of), members) in groups.iter().filter(|(_, members)| members.len() > 1) {
        let names: Vec<&str> = members.keys().copied().collect();
        let what = format!("{of} of {tenant} goes with {}", names.join(" and "));
        let mut breach = Breach::new(shape, what, expected, members.len().to_string()).of(*tenant);
        for op in members.values().take(3) {
            breach = breach.shown_by(op);
        }
        found.breach(breach);
    }
}

/// At most as many forecasts as keys that may have had an effect. Only for tenants whose sign-up is
/// in the record: what others were given by a bulk load is not.
fn unasked(case: &Case<'_>, possible: &BTreeMap<&str, BTreeSet<&str>>, found: &mut Finding) {
    let signups = case.timeline.ops.values().filter(|op| op.f() == F::Signup);
    let recorded: BTreeSet<&str> = signups.filter_map(Op::tenant).collect();
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    for row in &case.evidence.final_state.forecasts {
        *rows.entry(case.rows.label(&row.tenant_id)).or_default() += 1;
    }
    for (tenant, count) in rows.into_iter().filter(|(tenant, _)| recorded.contains(tenant)) {
        let most = possible.get(tenant).map_or(0, |keys| keys.len() as u64);
        if count > most {
            let what = format!("{tenant} has {count} forecasts and can have asked for {most}");
            let breach = Breach::new("forecast_nobody_asked_for", what, format!("at most {most}"), count.to_string());
            found.breach(breach.of(tenant));
        }
    }
}
