//! A place in the primary's write-ahead log, by which copies of its data are compared.

use std::fmt;
use std::str::FromStr;

use crate::error::StoreError;

/// Bytes from the log's beginning; what PostgreSQL prints as `16/B374D848`. Ordered as the log is. Only
/// places of one timeline may be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct WalPosition(pub u64);

impl FromStr for WalPosition {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let corrupt = StoreError::Corrupt { what: "log position" };
        let Some((high, low)) = text.split_once('/') else { return Err(corrupt) };
        match (u32::from_str_radix(high, 16), u32::from_str_radix(low, 16)) {
            (Ok(high), Ok(low)) => Ok(Self(u64::from(high) << 32 | u64::from(low))),
            _ => Err(corrupt),
        }
    }
}

impl fmt::Display for WalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_as_the_server_prints_them_and_are_ordered_as_the_log_is() {
        let position = |text: &str| text.parse::<WalPosition>();
        assert_eq!(position("16/B374D848").map(|p| p.to_string()), Ok("16/B374D848".to_owned()));
        assert!(position("1/0").unwrap() > position("0/FFFFFFFF").unwrap());
        for wrong in ["", "16", "16/", "/1", "x/1", "1/100000000", "-1/1"] {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }
}
