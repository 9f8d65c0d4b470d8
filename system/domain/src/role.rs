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

impl Role {
    /// May read scenarios, forecasts and the dashboard.
    #[must_use]
    pub const fn may_read(self) -> bool {
        match self {
            Self::Owner | Self::Editor | Self::Viewer => true,
        }
    }

    /// May create and change scenarios and request forecasts.
    #[must_use]
    pub const fn may_write(self) -> bool {
        matches!(self, Self::Owner | Self::Editor)
    }

    /// May invite, remove and re-role the tenant's users.
    #[must_use]
    pub const fn may_manage_users(self) -> bool {
        matches!(self, Self::Owner)
    }

    /// May change plan and payment method.
    #[must_use]
    pub const fn may_manage_billing(self) -> bool {
        matches!(self, Self::Owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_it_is_for_and_no_more() {
        let rights = |r: Role| [r.may_read(), r.may_write(), r.may_manage_users(), r.may_manage_billing()];
        assert_eq!(rights(Role::Owner), [true, true, true, true]);
        assert_eq!(rights(Role::Editor), [true, true, false, false]);
        assert_eq!(rights(Role::Viewer), [true, false, false, false]);
    }
}
