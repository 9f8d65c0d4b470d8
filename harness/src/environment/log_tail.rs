//! The end of a log, for error messages.

use std::path::Path;

/// Lines of a log that an error message carries.
pub const LOG_TAIL_LINES: usize = 20;

/// The last twenty lines of the file, or why it cannot be read.
#[must_use]
pub fn log_tail(file: &Path) -> String {
    match std::fs::read(file) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes)),
        Err(error) => format!("({}: {error})", file.display()),
    }
}

/// The last twenty lines of the text.
#[must_use]
pub fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_twenty_lines_remain() {
        let text = (1..=30).map(|n| format!("line {n}\n")).collect::<String>();
        let tail = last_lines(&text);
        assert!(tail.starts_with("line 11\n") && tail.ends_with("line 30"));
        assert_eq!(last_lines("one"), "one");
    }
}
