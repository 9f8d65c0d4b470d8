//! What a user may do inside its own tenant. Not for who may see which tenant: that is the store's scope.

use crate::text_enum::text_enum;

text_enum! {
    /// A user's role in its tenant; the strongest first.
    Role {
        /// Everything, people and money included.
        Owner = "owner",
        /// Scenarios and forecasts, read and write.
        Editor = "editor",
        /// Reading only.
        Viewer = "viewer",
    }
}

text_enum! {
    /// What an operation needs its caller to have; each one needs exactly one of them.
    Right {
        /// Its own sign-in: who am I, my sessions, my password. Everybody's.
        Account = "account",
        /// Reading what the tenant has, people and invoices included.
        Read = "read",
        /// Creating and changing scenarios, requesting forecasts.
        Write = "write",
        /// Adding, re-roling and removing the tenant's users; reading who did what.
        ManageUsers = "manage_users",
        /// Changing plan and payment method.
        ManageBilling = "manage_billing",
    }
}

impl Role {
    /// Whether this role has the right.
    #[must_use]
    pub const fn may(self, right: Right) -> bool {
        match right {
            Right::Account | Right::Read => true,
            Right::Write => matches!(self, Self::Owner | Self::Editor),
            Right::ManageUsers | Right::ManageBilling => matches!(self, Self::Owner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_it_is_for_and_no_more() {
        let rights = |role: Role| -> Vec<&str> {
            Right::ALL.iter().filter(|right| role.may(**right)).map(|right| right.as_str()).collect()
        };
        assert_eq!(rights(Role::Owner), ["account", "read", "write", "manage_users", "manage_billing"]);
        assert_eq!(rights(Role::Editor), ["account", "read", "write"]);
        assert_eq!(rights(Role::Viewer), ["account", "read"]);
    }
}
