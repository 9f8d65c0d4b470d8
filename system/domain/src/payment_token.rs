//! The provider's name for a payment method. Never a card: what looks like a card number is refused,
//! so that none is stored here by mistake.

/// Longest token, characters.
const LENGTH_MAX: usize = 200;
/// Characters of a token that its owner is shown again.
const HINT_LENGTH: usize = 4;
/// Shortest token that a hint is given of; of a shorter one it would give too much away.
const HINTED_LENGTH_MIN: usize = 8;

/// A token as the provider gave it. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct PaymentToken(String);

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PaymentTokenError {
    /// Empty, too long, or not printable ASCII without spaces.
    #[error("must be 1 to 200 printable characters without spaces")]
    Malformed,
    /// It reads like the number of a card.
    #[error("must be a token of the payment provider, never a card number")]
    CardNumber,
}

impl PaymentTokenError {
    /// Stable, machine-readable reason.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::CardNumber => "card_number",
        }
    }
}

impl PaymentToken {
    /// Reads a token.
    ///
    /// # Errors
    /// As [`PaymentTokenError`] says; a card number is told apart even where it is written with spaces.
    pub fn parse(text: &str) -> Result<Self, PaymentTokenError> {
        if holds_card_number(text) {
            return Err(PaymentTokenError::CardNumber);
        }
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > LENGTH_MAX || !is_plain {
            return Err(PaymentTokenError::Malformed);
        }
        Ok(Self(text.to_owned()))
    }

    /// The token, for the provider and for storing.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What its owner may be shown again: the last four characters of a stored token; `None` of a short one.
    #[must_use]
    pub fn hint(stored: &str) -> Option<String> {
        let count = stored.chars().count();
        (count >= HINTED_LENGTH_MIN).then(|| stored.chars().skip(count - HINT_LENGTH).collect())
    }
}

impl std::fmt::Debug for PaymentToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PaymentToken(..)")
    }
}

/// Whether the whole text is 12 to 19 digits, in groups or not; or 13 to 19 digits in a row, somewhere in
/// it, have a card number's check digit (ISO/IEC 7812-1, annex B).
fn holds_card_number(text: &str) -> bool {
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).count();
    let is_grouped = text.chars().all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '\t'));
    if is_grouped && (12..=19).contains(&digits(text)) {
        return true;
    }
    text.split(|c: char| !c.is_ascii_digit()).any(|run| (13..=19).contains(&run.len()) && has_check_digit(run))
}

fn has_check_digit(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .map(|byte| u32::from(byte - b'0'))
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => digit,
            (_, doubled) => doubled / 10 + doubled % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_providers_are_taken() {
        for token in [
            "tok_good",
            "tok-0192e2a8-7a3b-7cc2-8000-1234567890ab",
            "pm_1MqLiJLkdIwHu7ixUEgbFdYF",
            "x",
            "tok_4242424242424241",
        ] {
            assert_eq!(PaymentToken::parse(token).map(|t| t.as_str().to_owned()), Ok(token.to_owned()));
        }
    }

    #[test]
    fn card_numbers_are_refused_however_they_are_written() {
        for card in [
            "4242424242424242",
            "4242 4242 4242 4242",
            "4242-4242-4242-4242",
            "378282246310005",
            "card:5555555555554444",
            "4242424242424241",
            "123456789012",
        ] {
            assert_eq!(PaymentToken::parse(card), Err(PaymentTokenError::CardNumber), "{card}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", " ", "a b", "tok\n", "tök", &"x".repeat(201)] {
            assert_eq!(PaymentToken::parse(text), Err(PaymentTokenError::Malformed), "{text:?}");
        }
    }

    #[test]
    fn only_the_end_of_a_long_token_is_shown() {
        assert_eq!(PaymentToken::hint("tok_visa_4f9c").as_deref(), Some("4f9c"));
        assert_eq!(PaymentToken::hint("tok_abc"), None);
        assert!(!format!("{:?}", PaymentToken::parse("tok_secret").unwrap()).contains("secret"));
    }
}
