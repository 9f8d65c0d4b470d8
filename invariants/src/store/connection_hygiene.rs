//! After quiescence no connection is left in a transaction, and none is left checked out.
//!
//! A worker may be polling at any moment: one connection in use is allowed to it. Unknown where
//! connections were not looked at.

use crate::checker::{Breach, Case, Checker, Finding};

/// The law.
pub struct ConnectionsClean;

impl Checker for ConnectionsClean {
    fn law(&self) -> &'static str {
        "store.connection_hygiene"
    }

    fn what(&self) -> &'static str {
        "no connection stays in an open transaction or checked out once the load is over"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let mut found = Finding::new();
        let seen = &case.evidence.final_state.connections;
        if !seen.sampled {
            found.unknown("connections were not looked at");
            return found;
        }
        found.saw_many("connections", seen.connections);
        if seen.idle_in_transaction > 0 {
            let what = format!("connections sit in an open transaction for more than {} s", seen.idle_limit_s);
            let actual = seen.idle_in_transaction.to_string();
            found.breach(Breach::new("idle_in_transaction", what, "0", actual));
        }
        for (process, in_use) in &seen.in_use {
            let allowed = u64::from(process.starts_with("worker"));
            found.saw_many("pools", 1);
            if *in_use > allowed {
                let what = format!("{process} holds {in_use} connections with nothing to do");
                let breach =
                    Breach::new("connections_not_returned", what, format!("at most {allowed}"), in_use.to_string());
                found.breach(breach);
            }
        }
        found
    }
}
