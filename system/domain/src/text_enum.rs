//! Enumerations that travel as fixed words: in JSON, in SQL text columns and in logs.
//!
//! One list per type is the only place where a word is written, so the JSON form and the stored
//! form cannot drift apart.

/// A word that is none of the allowed ones. Carries the type's name, never the offending word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known {0}")]
pub struct UnknownName(pub &'static str);

/// Defines an enumeration with `ALL`, `as_str`, `Display`, `FromStr` and serde as the word.
macro_rules! text_enum {
    (
        $(#[$outer:meta])*
        $name:ident { $( $(#[$inner:meta])* $variant:ident = $word:literal ),+ $(,)? }
    ) => {
        $(#[$outer])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            ::serde::Serialize, ::serde::Deserialize,
        )]
        pub enum $name { $( $(#[$inner])* #[serde(rename = $word)] $variant ),+ }

        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: &'static [Self] = &[ $( Self::$variant ),+ ];

            /// The word this variant travels and is stored as.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word ),+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::UnknownName;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                match word {
                    $( $word => Ok(Self::$variant), )+
                    _ => Err($crate::UnknownName(stringify!($name))),
                }
            }
        }
    };
}
pub(crate) use text_enum;

#[cfg(test)]
mod tests {
    use crate::{
        BillingState, Currency, InvoiceKind, InvoiceState, JobState, LineKind, Plan, PlanChangeKind, Role, UnknownName,
    };

    #[test]
    fn every_word_reads_back_as_its_own_variant() {
        macro_rules! round_trip {
            ($($t:ty),+) => { $( for v in <$t>::ALL {
                assert_eq!(v.as_str().parse::<$t>(), Ok(*v));
                assert_eq!(v.to_string(), v.as_str());
            } )+ };
        }
        round_trip!(BillingState, Currency, InvoiceKind, InvoiceState, JobState, LineKind, Plan, PlanChangeKind, Role);
    }

    #[test]
    fn a_word_in_another_case_is_refused() {
        assert_eq!("usd".parse::<Currency>(), Err(UnknownName("Currency")));
        assert_eq!("Owner".parse::<Role>(), Err(UnknownName("Role")));
    }
}
