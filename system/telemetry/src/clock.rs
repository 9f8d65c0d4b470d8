//! The process's own time of day, for whoever compares clocks.

use std::time::{SystemTime, UNIX_EPOCH};

/// Sets the gauge `forecastle_time_seconds`, seconds since 1970 with their fractions, to what the clock says now; to be
/// called as the metrics are asked for. An HTTP `Date` does not tell it: servers keep one, and once the clock is set back
/// it stays ahead until the time it names has come.
pub fn tell_time() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!("forecastle_time_seconds").set(now.as_secs_f64());
}
