//! One wrong field of an input, in the form an API can pass on.

use serde::Serialize;

/// Where an input is wrong, and why. Never repeats the offending value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) to the field; of a missing one, where it should be; `""` is the document.
    pub pointer: String,
    /// `required`, `wrong_type`, `unknown_field`, `malformed`, `out_of_range`, `too_long`, `too_short`,
    /// `not_allowed` or `end_before_start`.
    pub code: &'static str,
    /// For people; English.
    pub message: String,
}
