//! Results on stdout. A reader that went away (`| head`) is no error of ours.

use std::io::Write as _;

/// Writes `text` as it is.
pub fn write(text: &str) {
    // Whatever keeps stdout from taking it, there is nobody left to tell.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Writes `text` and a newline.
pub fn line(text: impl std::fmt::Display) {
    write(&format!("{text}\n"));
}
