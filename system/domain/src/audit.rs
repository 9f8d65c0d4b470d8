//! The words of the audit log: what can have been done, to what. Not for who did it or when.

use crate::text_enum::text_enum;

text_enum! {
    /// An act worth remembering. A word once written is never given another meaning.
    AuditAction {
        /// A customer and its first owner came to be.
        SignedUp = "account.signed_up",
        /// A session was opened with a password.
        LoginSucceeded = "login.succeeded",
        /// A known user's address was tried with a wrong password.
        LoginFailed = "login.failed",
        /// A session ended by its own wish.
        LoggedOut = "session.logged_out",
        /// A session was ended from another one, or by whoever manages its user.
        SessionRevoked = "session.revoked",
        /// A refresh token came back after its grace, so its whole session ended.
        RefreshReused = "refresh.reused",
        /// A user set another password.
        PasswordChanged = "password.changed",
        /// A user gave a wrong password when it wanted to set another one.
        PasswordChangeRefused = "password.change_refused",
        /// A password was set through a mail's link.
        PasswordReset = "password.reset",
        /// A user proved that its address is its own.
        EmailVerified = "email.verified",
        /// A user joined the tenant.
        MemberAdded = "member.added",
        /// A user's role changed.
        MemberRoleChanged = "member.role_changed",
        /// A user's name changed.
        MemberRenamed = "member.renamed",
        /// A user left the tenant.
        MemberRemoved = "member.removed",
        /// Another plan is in force.
        PlanChanged = "plan.changed",
        /// Another plan will be in force from the next period on.
        PlanChangeScheduled = "plan.change_scheduled",
        /// A scheduled change of plan will not come.
        PlanChangeCancelled = "plan.change_cancelled",
        /// Another payment method is charged from now on.
        PaymentMethodChanged = "payment_method.changed",
    }
}

text_enum! {
    /// What kind of thing an act was done to.
    AuditObject {
        /// The customer as a whole.
        Tenant = "tenant",
        /// A user of it.
        User = "user",
        /// A user's session.
        Session = "session",
    }
}
