//! What a person signs in with, checked and normalised. Neither type shows its content in `Debug`,
//! and no error repeats what was typed.
//!
//! Not for hashing or comparing: that needs a bounded pool and belongs to the edge.

/// Longest address accepted, bytes (the path limit of RFC 5321).
pub const EMAIL_LENGTH_MAX: usize = 254;
/// Longest part before the `@`, bytes (RFC 5321).
pub const EMAIL_LOCAL_LENGTH_MAX: usize = 64;
/// Shortest password, characters.
pub const PASSWORD_LENGTH_MIN: usize = 12;
/// Longest password, characters; bounds the work of hashing it.
pub const PASSWORD_LENGTH_MAX: usize = 128;

/// Why a credential was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Not an address of the form `local@domain.tld` in printable ASCII, or one that no mail can reach.
    #[error("not a valid e-mail address")]
    EmailMalformed,
    /// Longer than `EMAIL_LENGTH_MAX`, or its local part than `EMAIL_LOCAL_LENGTH_MAX`.
    #[error("e-mail address too long")]
    EmailTooLong,
    /// Fewer than `PASSWORD_LENGTH_MIN` characters.
    #[error("password shorter than 12 characters")]
    PasswordTooShort,
    /// More than `PASSWORD_LENGTH_MAX` characters.
    #[error("password longer than 128 characters")]
    PasswordTooLong,
}

impl CredentialError {
    /// A stable code for a field error: `malformed`, `too_long` or `too_short`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::EmailMalformed => "malformed",
            Self::EmailTooLong | Self::PasswordTooLong => "too_long",
            Self::PasswordTooShort => "too_short",
        }
    }
}

/// An e-mail address, lower case, at most 254 bytes of ASCII, one `@`, a dotted domain.
///
/// Case is folded in the local part too: two accounts that differ only by case would be one person's
/// mistake or another's attack. Internationalised domains come in their ASCII form. Addresses below
/// `.invalid` (RFC 2606) are nobody's: they stand in the place of addresses that were given up.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Email(String);

impl Email {
    /// Checks and normalises an address. Surrounding white space is not trimmed but refused.
    ///
    /// # Errors
    /// `EmailTooLong` or `EmailMalformed`.
    pub fn parse(text: &str) -> Result<Self, CredentialError> {
        if text.len() > EMAIL_LENGTH_MAX {
            return Err(CredentialError::EmailTooLong);
        }
        let (local, domain) = text.split_once('@').ok_or(CredentialError::EmailMalformed)?;
        if local.len() > EMAIL_LOCAL_LENGTH_MAX {
            return Err(CredentialError::EmailTooLong);
        }
        if !is_local_part(local) || !is_domain(domain) {
            return Err(CredentialError::EmailMalformed);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// The normalised address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Email(hidden)")
    }
}

/// RFC 5322 dot-atom: words of the listed characters, joined by single dots.
fn is_local_part(local: &str) -> bool {
    local.split('.').all(|word| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    })
}

/// At least two labels of letters, digits and inner hyphens, 63 bytes each at most; the last is not `invalid`.
fn is_domain(domain: &str) -> bool {
    domain.rsplit_once('.').is_some_and(|(_, top)| !top.eq_ignore_ascii_case("invalid"))
        && domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// A password of 12 to 128 characters, any characters, taken as typed.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Checks the length, counted in characters, not bytes.
    ///
    /// # Errors
    /// `PasswordTooShort` or `PasswordTooLong`.
    pub fn parse(text: String) -> Result<Self, CredentialError> {
        match text.chars().count() {
            n if n < PASSWORD_LENGTH_MIN => Err(CredentialError::PasswordTooShort),
            n if n > PASSWORD_LENGTH_MAX => Err(CredentialError::PasswordTooLong),
            _ => Ok(Self(text)),
        }
    }

    /// The secret itself; for hashing only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_folded_to_lower_case() {
        assert_eq!(Email::parse("Ada.L+x@Example.CO.uk").unwrap().as_str(), "ada.l+x@example.co.uk");
        assert_eq!(Email::parse("invalid@Invalid.example").unwrap().as_str(), "invalid@invalid.example");
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in [
            "",
            "a",
            "@b.c",
            "a@",
            "a@b",
            "a@@b.c",
            "a@b..c",
            ".a@b.c",
            "a.@b.c",
            "a b@c.d",
            " a@b.c",
            "a@b.c\n",
            "a@-b.c",
            "a@b-.c",
            "ä@b.c",
            "a@b.c\0",
            "a@b@c.d",
            "\"a\"@b.c",
            "a@removed.invalid",
            "a@b.c.INVALID",
        ] {
            assert_eq!(Email::parse(text), Err(CredentialError::EmailMalformed), "{text:?}");
        }
    }

    #[test]
    fn address_lengths_are_bounded_on_both_sides_of_the_edge() {
        let domain = format!("{}.{}.{}.com", "b".repeat(63), "c".repeat(63), "d".repeat(57));
        let longest = format!("{}@{domain}", "a".repeat(64));
        assert_eq!(longest.len(), EMAIL_LENGTH_MAX);
        assert!(Email::parse(&longest).is_ok());
        assert_eq!(Email::parse(&format!("{longest}m")), Err(CredentialError::EmailTooLong));
        let local = format!("{}@b.com", "a".repeat(65));
        assert_eq!(Email::parse(&local), Err(CredentialError::EmailTooLong));
    }

    #[test]
    fn password_length_counts_characters() {
        let of = |n| Password::parse("ü".repeat(n)).map(|_| ());
        assert_eq!(of(11), Err(CredentialError::PasswordTooShort));
        assert_eq!([of(12), of(128)], [Ok(()), Ok(())]);
        assert_eq!(of(129), Err(CredentialError::PasswordTooLong));
    }

    #[test]
    fn debug_shows_neither_address_nor_password() {
        let email = Email::parse("ada@example.com").unwrap();
        let password = Password::parse("correct horse battery".to_owned()).unwrap();
        let shown = format!("{email:?} {password:?}");
        assert_eq!(shown, "Email(hidden) Password(hidden)");
    }
}
