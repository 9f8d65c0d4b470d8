//! What Forecastle writes to people: one variant for each kind of mail, with what its text needs.
//!
//! Not for wording or sending. No variant carries a secret: a token travels beside it, see the store.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::money::Money;
use crate::text_enum::text_enum;

/// A mail's kind and the parameters of its text; travels as `{"template", "parameters"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "template", content = "parameters", rename_all = "snake_case")]
pub enum Mail {
    /// Asks whether the address is the user's; goes out with a token.
    EmailVerification,
    /// Lets a user choose another password; goes out with a token.
    PasswordReset,
    /// A charge did not go through.
    Dunning(DunningNotice),
}

impl Mail {
    /// The kind, as it is stored.
    #[must_use]
    pub const fn template(&self) -> &'static str {
        match self {
            Self::EmailVerification => "email_verification",
            Self::PasswordReset => "password_reset",
            Self::Dunning(_) => "dunning",
        }
    }
}

/// What a customer is told about a charge that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DunningNotice {
    /// The tenant's own number of the invoice.
    pub invoice_number: i64,
    /// What is owed.
    pub owed: Money,
    /// How many charges have failed, this one included; at least 1.
    pub failed_charges: u32,
    /// The day of the next try; `None` after the last one.
    pub next_charge_on: Option<NaiveDate>,
}

text_enum! {
    /// What a token in a mail is good for.
    TokenPurpose {
        /// Says that the address reaches the user.
        EmailVerification = "email_verification",
        /// Chooses another password.
        PasswordReset = "password_reset",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;

    #[test]
    fn the_stored_template_is_the_serialised_one() {
        let notice = DunningNotice {
            invoice_number: 7,
            owed: Money::new(Currency::Jpy, 1200),
            failed_charges: 1,
            next_charge_on: NaiveDate::from_ymd_opt(2026, 3, 1),
        };
        for mail in [Mail::EmailVerification, Mail::PasswordReset, Mail::Dunning(notice)] {
            assert_eq!(serde_json::to_value(&mail).unwrap()["template"], mail.template());
        }
    }
}
