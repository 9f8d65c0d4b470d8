//! Billing periods: local midnights of a tenant's time zone, month after month.
//!
//! Time-zone data are those bundled with the build, never the host's. Every period is counted
//! from the anchor, so a clamped month does not shorten the ones after it (31, 28, 31).
//!
//! Re-derived from the specification on purpose: do not deduplicate against the system.

use std::sync::OnceLock;

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Span, Timestamp};
use thiserror::Error;

/// Periods of one tenant at most: 200 years.
const PERIODS_MAX: u32 = 2_400;

/// Why there are no periods.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CalendarError {
    /// No such IANA zone in the bundled data.
    #[error("unknown time zone {0:?}")]
    UnknownZone(String),
    /// An instant or date beyond what the calendar can express.
    #[error("beyond the calendar: {0}")]
    OutOfRange(String),
    /// More than 2,400 periods between sign-up and the end.
    #[error("more than {PERIODS_MAX} periods")]
    TooMany,
}

/// A billing period `[start, end)` of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// 0 for the period of sign-up.
    pub index: u32,
    /// First instant that belongs to it.
    pub start: Timestamp,
    /// First instant that no longer does.
    pub end: Timestamp,
}

impl Period {
    /// Whether `instant` belongs to this period.
    pub fn contains(&self, instant: Timestamp) -> bool {
        self.start <= instant && instant < self.end
    }

    /// `start` in nanoseconds since 1970.
    pub fn start_ns(&self) -> i128 {
        self.start.as_nanosecond()
    }

    /// `end` in nanoseconds since 1970.
    pub fn end_ns(&self) -> i128 {
        self.end.as_nanosecond()
    }
}

/// All periods that have begun by `until` (a period that begins at `until` has), oldest first.
///
/// `zone` is an IANA name. The first period begins at the local midnight of the sign-up day,
/// so it is there even where `until` lies before `signup`; it is empty only for an `until`
/// before that midnight.
pub fn periods(zone: &str, signup: Timestamp, until: Timestamp) -> Result<Vec<Period>, CalendarError> {
    let zone = zone_named(zone)?;
    let anchor = signup.to_zoned(zone.clone()).date();
    let mut found = Vec::new();
    let mut start = period_start(&zone, anchor, 0)?;
    while start <= until {
        let index = u32::try_from(found.len()).unwrap_or(u32::MAX);
        if index >= PERIODS_MAX {
            return Err(CalendarError::TooMany);
        }
        let end = period_start(&zone, anchor, index + 1)?;
        found.push(Period { index, start, end });
        start = end;
    }
    Ok(found)
}

/// The first instant of `date` in `zone`.
///
/// Mostly midnight; the end of the gap where clocks jump over midnight; the earlier one where
/// midnight occurs twice; the end of the gap as well where the whole day was skipped.
pub fn first_instant(zone: &TimeZone, date: Date) -> Result<Timestamp, CalendarError> {
    let midnight = date.to_datetime(jiff::civil::Time::midnight());
    let beyond = |error: jiff::Error| CalendarError::OutOfRange(error.to_string());
    let ambiguous = zone.to_ambiguous_zoned(midnight);
    let offset = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => offset,
        AmbiguousOffset::Fold { before, .. } => before,
        AmbiguousOffset::Gap { before, .. } => {
            // By the offset that was in force, midnight lies after the jump, inside the gap's
            // length; the last transition up to it is the jump itself.
            let inside = before.to_timestamp(midnight).map_err(beyond)?;
            let after = inside.checked_add(Span::new().nanoseconds(1)).map_err(beyond)?;
            return match zone.preceding(after).next() {
                Some(jump) => Ok(jump.timestamp()),
                None => Ok(inside),
            };
        }
    };
    offset.to_timestamp(midnight).map_err(beyond)
}

fn period_start(zone: &TimeZone, anchor: Date, months: u32) -> Result<Timestamp, CalendarError> {
    // Adding months to the anchor clamps the day to the end of the month reached.
    let date = anchor
        .checked_add(Span::new().months(i64::from(months)))
        .map_err(|error| CalendarError::OutOfRange(error.to_string()))?;
    first_instant(zone, date)
}

fn zone_named(name: &str) -> Result<TimeZone, CalendarError> {
    static BUNDLED: OnceLock<TimeZoneDatabase> = OnceLock::new();
    BUNDLED.get_or_init(TimeZoneDatabase::bundled).get(name).map_err(|_| CalendarError::UnknownZone(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn starts(zone: &str, signup: &str, until: &str) -> Vec<String> {
        periods(zone, at(signup), at(until)).expect("periods").iter().map(|period| period.start.to_string()).collect()
    }

    #[test]
    fn the_31st_is_clamped_and_comes_back() {
        assert_eq!(
            starts("UTC", "2025-12-31T15:00:00Z", "2026-05-01T00:00:00Z"),
            [
                "2025-12-31T00:00:00Z",
                "2026-01-31T00:00:00Z",
                "2026-02-28T00:00:00Z",
                "2026-03-31T00:00:00Z",
                "2026-04-30T00:00:00Z",
            ]
        );
        assert_eq!(
            starts("UTC", "2024-01-30T00:00:00Z", "2024-03-01T00:00:00Z"),
            ["2024-01-30T00:00:00Z", "2024-02-29T00:00:00Z"]
        );
    }

    #[test]
    fn the_sign_up_day_is_the_local_one() {
        // 2026-01-01T03:00Z is still the evening of 2025-12-31 in New York (UTC-5).
        assert_eq!(
            starts("America/New_York", "2026-01-01T03:00:00Z", "2026-02-01T00:00:00Z"),
            ["2025-12-31T05:00:00Z", "2026-01-31T05:00:00Z"]
        );
    }

    #[test]
    fn a_period_over_a_clock_change_is_an_hour_shorter_or_longer() {
        // Berlin: +1 in winter, +2 from 2026-03-29 on, +1 again from 2026-10-25 on.
        let spring = periods("Europe/Berlin", at("2026-03-10T12:00:00Z"), at("2026-03-10T12:00:00Z"));
        let spring = spring.expect("periods")[0];
        assert_eq!(spring.start, at("2026-03-09T23:00:00Z"));
        assert_eq!(spring.end, at("2026-04-09T22:00:00Z"));
        assert_eq!(spring.end.as_second() - spring.start.as_second(), 31 * 86_400 - 3_600);
        let autumn = periods("Europe/Berlin", at("2026-10-10T12:00:00Z"), at("2026-10-10T12:00:00Z"));
        let autumn = autumn.expect("periods")[0];
        assert_eq!(autumn.end.as_second() - autumn.start.as_second(), 31 * 86_400 + 3_600);
    }

    #[test]
    fn where_midnight_is_missing_the_day_begins_at_the_end_of_the_gap() {
        // Sao Paulo 2018-11-04: 00:00-03:00 jumps to 01:00-02:00, which is 03:00Z.
        assert_eq!(
            starts("America/Sao_Paulo", "2018-10-04T12:00:00Z", "2018-11-04T03:00:00Z"),
            ["2018-10-04T03:00:00Z", "2018-11-04T03:00:00Z"]
        );
        // Toronto 1919-03-30: 23:30-05:00 jumped to 00:30-04:00 of the 31st, at 04:30Z.
        let toronto = zone_named("America/Toronto").expect("zone");
        let first = first_instant(&toronto, jiff::civil::date(1919, 3, 31)).expect("instant");
        assert_eq!(first, at("1919-03-31T04:30:00Z"));
        // Apia had no 2011-12-30: at 10:00Z that day 29 December 24:00 became the 31st, 00:00.
        let apia = zone_named("Pacific/Apia").expect("zone");
        let first = first_instant(&apia, jiff::civil::date(2011, 12, 30)).expect("instant");
        assert_eq!(first, at("2011-12-30T10:00:00Z"));
    }

    #[test]
    fn where_midnight_occurs_twice_the_earlier_one_counts() {
        // Havana 2025-11-02: 01:00-04:00 went back to 00:00-05:00; the first 00:00 is 04:00Z.
        let havana = zone_named("America/Havana").expect("zone");
        let first = first_instant(&havana, jiff::civil::date(2025, 11, 2)).expect("instant");
        assert_eq!(first, at("2025-11-02T04:00:00Z"));
    }

    #[test]
    fn periods_join_without_gap_or_overlap_and_are_half_open() {
        let all = periods("Asia/Tokyo", at("2024-05-31T10:00:00Z"), at("2030-01-01T00:00:00Z"));
        let all = all.expect("periods");
        for pair in all.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
            assert!(pair[0].contains(pair[0].start) && !pair[0].contains(pair[0].end));
        }
        assert!(all[0].contains(at("2024-05-31T10:00:00Z")));
    }

    #[test]
    fn a_period_that_begins_at_the_very_instant_has_begun() {
        assert_eq!(starts("UTC", "2026-01-05T01:00:00Z", "2026-02-05T00:00:00Z").len(), 2);
        assert_eq!(starts("UTC", "2026-01-05T01:00:00Z", "2026-02-04T23:59:59Z").len(), 1);
    }

    #[test]
    fn unknown_zones_and_endless_spans_are_errors() {
        let signup = at("2026-01-05T01:00:00Z");
        assert!(matches!(periods("Mars/Base", signup, signup), Err(CalendarError::UnknownZone(_))));
        assert_eq!(periods("UTC", signup, at("9000-01-01T00:00:00Z")), Err(CalendarError::TooMany));
    }
}
