//! A second net under free text: words that look like an address, a secret or a connection string.
//!
//! The first net is that nobody writes such a thing into an error. This one is for the day somebody does.

/// Letters and digits in a row from which a word with both counts as a secret.
const SECRET_LENGTH_MIN: usize = 20;

/// The text with every suspicious word replaced by `[removed]`.
#[must_use]
pub fn scrubbed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            out.push(' ');
        }
        out.push_str(if is_suspicious(word) { "[removed]" } else { word });
    }
    out
}

fn is_suspicious(word: &str) -> bool {
    if word.contains('@') || word.contains("://") || word.contains('?') && word.contains('=') {
        return true;
    }
    let runs = word.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
    runs.into_iter().any(|run| {
        let has = |class: fn(&u8) -> bool| run.as_bytes().iter().any(class);
        run.len() >= SECRET_LENGTH_MIN && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_look_like_secrets_or_people_are_removed() {
        for (text, left) in [
            ("no user ada@example.com here", "no user [removed] here"),
            ("connect to postgres://app:pw@db/x failed", "connect to [removed] failed"),
            ("bad header eyJhbGciOiJFZERTQSIsImtpZCI6.x.y", "bad header [removed]"),
            ("GET /v1/things?token=abc", "GET [removed]"),
        ] {
            assert_eq!(scrubbed(text), left);
        }
    }

    #[test]
    fn our_own_errors_stay_readable() {
        for text in [
            "store: corrupt row: tenants.plan",
            "database unavailable: pool_exhausted",
            "conflict on usage_events_one_per_forecast",
            "bind listener: Address already in use (os error 98)",
            "statement refused (22P02)",
        ] {
            assert_eq!(scrubbed(text), text);
        }
    }
}
