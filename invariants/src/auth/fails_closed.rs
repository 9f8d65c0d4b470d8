//! Whoever may not come in does not, whatever is broken; whoever may, can again once it is healed.
//!
//! A probe counts where it was refused with 401, 403 or 404 and its honest twin on the same route
//! and in the same phase got a 2xx: 429, 503 and lost answers show nothing. A revoked session is
//! judged from `revocation_bound_ms` after the logout was acknowledged. An honest session's 401 is
//! a violation only where its token was surely good. Time O(n log n).

use std::collections::BTreeMap;

use crate::checker::{Breach, Case, Checker, Finding};
use crate::history::F;
use crate::timeline::Op;

/// The law.
pub struct FailsClosed;

impl Checker for FailsClosed {
    fn law(&self) -> &'static str {
        "auth.fails_closed"
    }

    fn what(&self) -> &'static str {
        "no, forged, expired, revoked or foreign tokens never get a 2xx; honest sessions work again after heal"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let sessions = Sessions::of(case);
        for op in case.timeline.ops.values() {
            if op.f() == F::AuthProbe {
                judge_probe(case, op, &mut found);
            } else {
                sessions.judge_revoked(case, op, &mut found);
                sessions.judge_honest(case, op, &mut found);
            }
        }
        found
    }
}

fn judge_probe(case: &Case<'_>, op: &Op<'_>, found: &mut Finding) {
    let timeline = &case.timeline;
    let args = &op.invoke.args;
    if let Some(cause) = args.depends_on {
        let bound_ns = case.evidence.manifest.settings.revocation_bound_ms * 1_000_000;
        let cause = timeline.ops.get(&cause).filter(|cause| cause.is_ok());
        if cause.is_none_or(|cause| cause.ended_ns().saturating_add(bound_ns) > op.sent_ns()) {
            return;
        }
    }
    let attack = args.attack.as_deref().unwrap_or("?");
    if op.said_yes() {
        let what = format!("a request with a token that is {attack} was let in at {}", op.invoke.route);
        let status = op.status().unwrap_or_default().to_string();
        found.breach(Breach::new("probe_was_let_in", what, "401, 403 or 404", status).shown_by(op).of(op.who()));
        return;
    }
    let twin = args.twin.and_then(|number| timeline.ops.get(&number));
    let is_paired = twin.is_some_and(|twin| {
        twin.is_ok() && twin.invoke.route == op.invoke.route && twin.invoke.phase == op.invoke.phase
    });
    if matches!(op.status(), Some(401 | 403 | 404)) && is_paired {
        found.saw("probes", timeline, op.ended_ns(), &op.invoke.route);
        found.saw("attacks", timeline, op.ended_ns(), attack);
        if timeline.healed_ns().is_some_and(|healed| healed < op.sent_ns()) {
            found.saw("probes_after_heal", timeline, op.ended_ns(), attack);
        }
    }
}

/// What is known of each session, by label.
struct Sessions<'a> {
    /// The acknowledged logout that ended first.
    revoked: BTreeMap<&'a str, &'a Op<'a>>,
    /// When something was first sent that may end the session: a logout, a reused refresh token.
    doubtful_ns: BTreeMap<&'a str, u64>,
}

impl<'a> Sessions<'a> {
    fn of(case: &'a Case<'a>) -> Self {
        let mut sessions = Self { revoked: BTreeMap::new(), doubtful_ns: BTreeMap::new() };
        for op in case.timeline.ops.values() {
            let Some(session) = op.invoke.session.as_deref() else {
                continue;
            };
            if op.f() == F::Logout && op.is_ok() {
                let first = sessions.revoked.entry(session).or_insert(op);
                if op.ended_ns() < first.ended_ns() {
                    *first = op;
                }
            }
            // A refresh whose answer was lost leaves the client with a parent; using it again after
            // the grace kills the family, rightly. A probe may use a session's refresh token twice.
            let ends = op.f() == F::Logout || op.f() == F::AuthProbe || (op.f() == F::Refresh && !op.is_ok());
            if ends {
                let at = sessions.doubtful_ns.entry(session).or_insert(u64::MAX);
                *at = (*at).min(op.sent_ns());
            }
        }
        sessions
    }

    fn judge_revoked(&self, case: &Case<'_>, op: &Op<'_>, found: &mut Finding) {
        let logout = op.invoke.session.as_deref().and_then(|session| self.revoked.get(session));
        let Some(logout) = logout.filter(|logout| logout.invoke.op != op.invoke.op) else {
            return;
        };
        let bound_ms = case.evidence.manifest.settings.revocation_bound_ms;
        if logout.ended_ns().saturating_add(bound_ms * 1_000_000) > op.sent_ns() {
            return;
        }
        if op.said_yes() {
            let after_ms = (op.sent_ns() - logout.ended_ns()) / 1_000_000;
            let what = format!("{}'s session was let in {after_ms} ms after its logout was acknowledged", op.who());
            let breach = Breach::new(
                "revoked_session_was_let_in",
                what,
                format!("401 from {bound_ms} ms on"),
                op.status().unwrap_or_default().to_string(),
            );
            found.breach(breach.shown_by(logout).at(op.ended_ns()).shown_by(op).of(op.who()));
        } else if op.status() == Some(401) {
            found.saw("revoked_refused", &case.timeline, op.ended_ns(), op.f().name());
        }
    }

    fn judge_honest(&self, case: &Case<'_>, op: &Op<'_>, found: &mut Finding) {
        let Some(session) = op.invoke.session.as_deref().filter(|_| op.f().is_authenticated()) else {
            return;
        };
        let healed_ns = case.timeline.healed_ns();
        if op.is_ok() && healed_ns.is_some_and(|healed| healed < op.sent_ns()) {
            found.saw("honest_after_heal", &case.timeline, op.ended_ns(), op.f().name());
        }
        if !matches!(op.status(), Some(401 | 403)) {
            return;
        }
        let doubtful = self.doubtful_ns.get(session).is_some_and(|at| *at <= op.ended_ns());
        // Half of the life of the token, so that no clock can make this wrong.
        let token = op.invoke.token_op.and_then(|number| case.timeline.ops.get(&number));
        let is_fresh = token.is_some_and(|token| {
            let life_s = token.answer().and_then(|answer| answer.expires_in_s).unwrap_or(0);
            op.ended_ns() < token.sent_ns().saturating_add(life_s * 500_000_000)
        });
        if is_fresh && !doubtful {
            let what = format!("{}'s session was refused although nobody ended it", op.who());
            let status = op.status().unwrap_or_default().to_string();
            let breach = Breach::new("honest_session_was_refused", what, "2xx, or 503 with Retry-After", status);
            let breach = token.into_iter().fold(breach.at(op.ended_ns()), |breach, token| breach.shown_by(token));
            found.breach(breach.shown_by(op).of(op.who()));
        }
    }
}
