//! Identities, one type each, so that a tenant's id can never be passed where a user's is meant.
//!
//! Not for generating them: randomness stays at the edge, which wraps its own `Uuid`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($( $(#[$outer:meta])* $name:ident ),+ $(,)?) => { $(
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps an id made elsewhere; any UUID version is accepted.
            #[must_use]
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The bare UUID, as it is bound in SQL.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            /// Hyphenated lower case, 36 characters.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )+ };
}

ids! {
    /// A customer of the product; first part of every key of every table.
    TenantId,
    /// A person who signs in; belongs to one tenant.
    UserId,
    /// One signed-in device, and the family its refresh tokens belong to.
    SessionId,
    /// A stored scenario, whatever its version.
    ScenarioId,
    /// A requested forecast, and the job that computes it.
    ForecastId,
    /// An invoice, from draft to its last state.
    InvoiceId,
    /// One intent to move money; stable over its retries.
    PaymentId,
    /// The record that one forecast succeeded and counts.
    UsageEventId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_own_text() {
        let id = TenantId::from_uuid(Uuid::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677));
        assert_eq!(id.to_string(), "01234567-89ab-cdef-0011-223344556677");
        assert_eq!(id.to_string().parse::<TenantId>().unwrap(), id);
        assert_eq!(Uuid::from(id), id.as_uuid());
    }

    #[test]
    fn text_that_is_no_uuid_is_refused() {
        assert!("tenant-1".parse::<TenantId>().is_err());
        assert!("".parse::<UserId>().is_err());
    }
}
