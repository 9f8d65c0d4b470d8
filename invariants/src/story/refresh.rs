//! A refresh of tokens: afterwards its user is in, or gets in by password, and one token has at most one living line.
//!
//! Evidence: the story's refreshes, logins and the read that proves a session; rows of sessions and of refresh tokens.
//! Whatever was lost, no token has two successors, no family has two tokens that could both be exchanged, and no family
//! exists that nobody opened.

use std::collections::BTreeMap;

use super::told::{asked, asked_for, first_success};
use crate::checker::{Breach, Case, Checker, Finding};
use crate::final_state::RefreshTokenRow;
use crate::history::F;
use crate::timeline::Outcome;

/// The law.
pub struct RefreshKeepsOneFamily;

impl Checker for RefreshKeepsOneFamily {
    fn law(&self) -> &'static str {
        "story.refresh"
    }

    fn needs_rows(&self) -> bool {
        true
    }

    fn what(&self) -> &'static str {
        "after a refresh whose answer was lost its user gets in, and no token has two living lines"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        if asked_for(case, F::Refresh).is_empty() {
            found.unknown("the story was never begun");
        }
        if first_success(&asked_for(case, F::Me), "no_way_back_in", &mut found).is_some() {
            found.saw_many("ends", 1);
        }
        judge_tokens(case, &mut found);
        judge_sessions(case, &mut found);
        found
    }
}

fn judge_tokens(case: &Case<'_>, found: &mut Finding) {
    let state = case.evidence.final_state;
    if state.refresh_tokens.is_empty() {
        found.unknown("no refresh token was read");
    }
    let mut children: BTreeMap<&str, Vec<&RefreshTokenRow>> = BTreeMap::new();
    let mut living: BTreeMap<&str, Vec<&RefreshTokenRow>> = BTreeMap::new();
    for token in &state.refresh_tokens {
        found.saw_many("tokens", 1);
        if let Some(parent) = token.parent.as_deref() {
            children.entry(parent).or_default().push(token);
        }
        let is_over = state.sessions.iter().any(|row| row.session_id == token.session_id && row.revoked_us.is_some());
        if token.rotated_us.is_none() && !is_over {
            living.entry(&token.session_id).or_default().push(token);
        }
    }
    for (_, many) in children.iter().filter(|(_, many)| many.len() > 1) {
        let label = case.rows.label(&many[0].tenant_id);
        let what = format!("a refresh token of {label} was exchanged for {} others", many.len());
        found.breach(Breach::new("token_with_two_successors", what, "1", many.len().to_string()).of(label));
    }
    for (session, many) in living.iter().filter(|(_, many)| many.len() > 1) {
        let label = case.rows.label(&many[0].tenant_id);
        let what = format!("session {session} of {label} has {} tokens that can be exchanged", many.len());
        found.breach(Breach::new("two_living_tokens", what, "1", many.len().to_string()).of(label));
    }
}

/// A family is opened by a sign-up or a login, and by nothing else.
fn judge_sessions(case: &Case<'_>, found: &mut Finding) {
    let mut opened: BTreeMap<&str, u64> = BTreeMap::new();
    let opens = |f| matches!(f, F::Signup | F::Login);
    for op in case.timeline.ops.values().filter(|op| opens(op.f()) && op.outcome != Outcome::Fail) {
        *opened.entry(op.who()).or_default() += 1;
    }
    for tenant in &case.evidence.final_state.tenants {
        let sessions = &case.evidence.final_state.sessions;
        let count = sessions.iter().filter(|row| row.tenant_id == tenant.tenant_id).count() as u64;
        let most = opened.get(tenant.label.as_str()).copied().unwrap_or(0);
        if count > most {
            let what = format!("{} has {count} sessions and can have opened {most}", tenant.label);
            let breach = Breach::new("session_nobody_opened", what, format!("at most {most}"), count.to_string());
            let mut breach = breach.of(&tenant.label);
            for op in asked(case, |op| op.f() == F::Refresh).iter().take(3) {
                breach = breach.shown_by(op);
            }
            found.breach(breach);
        }
    }
}
