//! Billing periods: months counted from the day of sign-up, in the tenant's own time zone.
//!
//! Time-zone data come with the build, so two instances of one build never disagree.
//! Not for asking what time it is: callers pass the instant.

use chrono::{DateTime, Datelike, Duration, Months, NaiveDate, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;

/// Largest period index, a thousand years on; bounds every search here.
pub const PERIOD_INDEX_MAX: u32 = 12_000;

/// The text names no zone of the IANA data that came with the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone")]
pub struct UnknownZone;

/// Finds a zone by its IANA name, such as `Europe/London`; exact case.
///
/// # Errors
/// `UnknownZone`.
pub fn parse_zone(name: &str) -> Result<Tz, UnknownZone> {
    name.parse().map_err(|_| UnknownZone)
}

/// One billing period, half-open: `start` belongs to it, `end` to the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// 0 is the period of the sign-up.
    pub index: u32,
    /// First instant.
    pub start: DateTime<Utc>,
    /// First instant of the next period; after `start`.
    pub end: DateTime<Utc>,
}

impl Period {
    /// Whether an instant lies in this period.
    #[must_use]
    pub fn contains(&self, instant: DateTime<Utc>) -> bool {
        self.start <= instant && instant < self.end
    }

    /// Length in seconds; 23 and 25 hour days make it differ from whole days.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        (self.end - self.start).num_seconds()
    }
}

/// Where a tenant's periods begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BillingCalendar {
    /// The tenant's time zone.
    pub zone: Tz,
    /// Local date of the sign-up; its day of the month recurs, clamped at a month's end.
    pub anchor_date: NaiveDate,
}

impl BillingCalendar {
    /// Periods counted from a local date.
    #[must_use]
    pub const fn new(zone: Tz, anchor_date: NaiveDate) -> Self {
        Self { zone, anchor_date }
    }

    /// Periods counted from the local date on which `signed_up` falls.
    #[must_use]
    pub fn from_sign_up(zone: Tz, signed_up: DateTime<Utc>) -> Self {
        Self::new(zone, signed_up.with_timezone(&zone).date_naive())
    }

    /// Period number `index`, 0 being the one of the sign-up.
    ///
    /// Counted from the anchor each time, so that 31 → 28 → 31 and nothing drifts.
    ///
    /// # Panics
    /// If `index` exceeds [`PERIOD_INDEX_MAX`], or the anchor lies at the end of the calendar.
    #[must_use]
    pub fn period(&self, index: u32) -> Period {
        assert!(index <= PERIOD_INDEX_MAX, "period index beyond PERIOD_INDEX_MAX");
        Period { index, start: self.boundary(index), end: self.boundary(index + 1) }
    }

    /// The period an instant lies in; `None` before the first one, or beyond [`PERIOD_INDEX_MAX`].
    #[must_use]
    pub fn period_containing(&self, instant: DateTime<Utc>) -> Option<Period> {
        let date = instant.with_timezone(&self.zone).date_naive();
        let months = i64::from(date.year() - self.anchor_date.year()) * 12 + i64::from(date.month())
            - i64::from(self.anchor_date.month());
        // The month difference is right or one too many; a skipped day can make it one too few.
        (months - 1..=months + 1)
            .filter_map(|index| u32::try_from(index).ok())
            .filter(|index| *index <= PERIOD_INDEX_MAX)
            .map(|index| self.period(index))
            .find(|period| period.contains(instant))
    }

    fn boundary(&self, index: u32) -> DateTime<Utc> {
        let date = self.anchor_date.checked_add_months(Months::new(index));
        first_instant(self.zone, date.expect("anchor lies within the calendar"))
    }
}

/// The first instant of a local date: its midnight, the earlier one where midnight comes twice,
/// the end of the gap where a change of clocks skips it. A date that is skipped whole begins where
/// the next one does.
fn first_instant(zone: Tz, date: NaiveDate) -> DateTime<Utc> {
    let midnight = date.and_time(NaiveTime::MIN);
    if let Some(instant) = zone.from_local_datetime(&midnight).earliest() {
        return instant.with_timezone(&Utc);
    }
    // Midnight lies in a gap, so the local clock jumps past it once within these hours
    // (no zone was ever 16 hours from UTC). Bisect for the second of the jump.
    let reached = |instant: DateTime<Utc>| instant.with_timezone(&zone).naive_local() >= midnight;
    let mut before = midnight.and_utc() - Duration::hours(16);
    let mut after = midnight.and_utc() + Duration::hours(16);
    assert!(!reached(before) && reached(after), "the local clock passes midnight within the window");
    while after - before > Duration::seconds(1) {
        let middle = before + Duration::seconds((after - before).num_seconds() / 2);
        if reached(middle) { after = middle } else { before = middle }
    }
    after
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn start_of(zone: Tz, day: &str) -> String {
        first_instant(zone, date(day)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    }

    fn local_starts(zone: Tz, anchor: &str, count: u32) -> Vec<String> {
        let calendar = BillingCalendar::new(zone, date(anchor));
        (0..count).map(|n| calendar.period(n).start.with_timezone(&zone).format("%F %R").to_string()).collect()
    }

    #[test]
    fn the_31st_is_clamped_and_comes_back() {
        let starts = local_starts(Tz::Europe__London, "2023-12-31", 5);
        assert_eq!(
            starts,
            ["2023-12-31 00:00", "2024-01-31 00:00", "2024-02-29 00:00", "2024-03-31 00:00", "2024-04-30 00:00"]
        );
        let common = local_starts(Tz::UTC, "2025-01-31", 3);
        assert_eq!(common, ["2025-01-31 00:00", "2025-02-28 00:00", "2025-03-31 00:00"]);
    }

    #[test]
    fn the_29th_of_february_recurs_in_common_years() {
        let calendar = BillingCalendar::new(Tz::UTC, date("2024-02-29"));
        assert_eq!(calendar.period(12).start.date_naive(), date("2025-02-28"));
        assert_eq!(calendar.period(13).start.date_naive(), date("2025-03-29"));
        assert_eq!(calendar.period(48).start.date_naive(), date("2028-02-29"));
    }

    #[test]
    fn midnight_follows_daylight_saving() {
        assert_eq!(start_of(Tz::Europe__London, "2024-01-15"), "2024-01-15T00:00:00Z");
        assert_eq!(start_of(Tz::Europe__London, "2024-07-15"), "2024-07-14T23:00:00Z");
        assert_eq!(start_of(Tz::America__New_York, "2024-03-10"), "2024-03-10T05:00:00Z");
        assert_eq!(start_of(Tz::America__New_York, "2024-03-11"), "2024-03-11T04:00:00Z");
    }

    #[test]
    fn a_missing_midnight_starts_at_the_first_instant_of_the_date() {
        // 00:00 jumps to 01:00 on these dates.
        assert_eq!(start_of(Tz::America__Sao_Paulo, "2018-11-04"), "2018-11-04T03:00:00Z");
        assert_eq!(start_of(Tz::Asia__Beirut, "2022-03-27"), "2022-03-26T22:00:00Z");
        let local = first_instant(Tz::America__Sao_Paulo, date("2018-11-04"));
        assert_eq!(local.with_timezone(&Tz::America__Sao_Paulo).format("%F %R").to_string(), "2018-11-04 01:00");
    }

    #[test]
    fn a_midnight_that_comes_twice_counts_the_first_time() {
        // 01:00 falls back to 00:00.
        assert_eq!(start_of(Tz::America__Havana, "2023-11-05"), "2023-11-05T04:00:00Z");
        // Midnight falls back to 23:00 of the day before, so midnight itself comes once, later.
        assert_eq!(start_of(Tz::America__Sao_Paulo, "2018-02-18"), "2018-02-18T03:00:00Z");
        assert_eq!(start_of(Tz::Asia__Beirut, "2022-10-30"), "2022-10-29T22:00:00Z");
    }

    #[test]
    fn a_date_that_never_was_begins_with_the_next_one() {
        assert_eq!(start_of(Tz::Pacific__Apia, "2011-12-29"), "2011-12-29T10:00:00Z");
        assert_eq!(start_of(Tz::Pacific__Apia, "2011-12-30"), "2011-12-30T10:00:00Z");
        assert_eq!(start_of(Tz::Pacific__Apia, "2011-12-31"), "2011-12-30T10:00:00Z");
        let calendar = BillingCalendar::new(Tz::Pacific__Apia, date("2011-10-30"));
        let skipped = calendar.period(2);
        assert_eq!(calendar.period_containing(skipped.start), Some(skipped));
        assert_eq!(calendar.period_containing(skipped.start - Duration::seconds(1)), Some(calendar.period(1)));
    }

    #[test]
    fn periods_are_billed_in_seconds() {
        let calendar = BillingCalendar::new(Tz::America__New_York, date("2024-03-01"));
        assert_eq!(calendar.period(0).seconds(), 31 * 86_400 - 3_600);
        assert_eq!(calendar.period(8).seconds(), 30 * 86_400 + 3_600);
    }

    #[test]
    fn sign_up_date_is_the_local_one() {
        let instant = "2024-03-31T23:30:00Z".parse().unwrap();
        assert_eq!(BillingCalendar::from_sign_up(Tz::Europe__London, instant).anchor_date, date("2024-04-01"));
        assert_eq!(BillingCalendar::from_sign_up(Tz::America__New_York, instant).anchor_date, date("2024-03-31"));
    }

    #[test]
    fn nothing_lies_before_the_first_period() {
        let calendar = BillingCalendar::new(Tz::UTC, date("2024-05-10"));
        let start = calendar.period(0).start;
        assert_eq!(calendar.period_containing(start - Duration::nanoseconds(1)), None);
        assert_eq!(calendar.period_containing(start).map(|p| p.index), Some(0));
    }

    #[test]
    fn zones_are_known_by_exact_name() {
        assert_eq!(parse_zone("Asia/Beirut"), Ok(Tz::Asia__Beirut));
        assert_eq!(parse_zone("Mars/Olympus"), Err(UnknownZone));
        assert_eq!(parse_zone(""), Err(UnknownZone));
    }

    /// The first instant of a date found another way: walk through the two days around it by the quarter of an
    /// hour, then by the second, and take the first whose local date is that one or later.
    fn first_instant_by_walking(zone: Tz, day: NaiveDate) -> DateTime<Utc> {
        let local = |instant: DateTime<Utc>| instant.with_timezone(&zone).date_naive();
        let mut instant = day.and_time(NaiveTime::MIN).and_utc() - Duration::hours(30);
        while local(instant + Duration::minutes(15)) < day {
            instant += Duration::minutes(15);
        }
        while local(instant) < day {
            instant += Duration::seconds(1);
        }
        instant
    }

    #[test]
    fn a_day_begins_where_walking_through_it_says_so() {
        for (zone, day) in [
            (Tz::America__Sao_Paulo, "2018-11-04"),
            (Tz::America__Sao_Paulo, "2018-11-05"),
            (Tz::Asia__Beirut, "2022-03-27"),
            (Tz::Asia__Beirut, "2023-03-26"),
            (Tz::America__Santiago, "2022-09-11"),
            (Tz::Africa__Cairo, "2023-04-28"),
            (Tz::Asia__Tehran, "2022-03-22"),
            (Tz::America__Asuncion, "2023-10-01"),
            (Tz::Pacific__Apia, "2011-12-29"),
            (Tz::Pacific__Apia, "2011-12-30"),
            (Tz::Pacific__Apia, "2011-12-31"),
            (Tz::Pacific__Kwajalein, "1993-08-21"),
            (Tz::Asia__Manila, "1844-12-31"),
            (Tz::Australia__Lord_Howe, "2024-10-06"),
            (Tz::Asia__Kathmandu, "1986-01-01"),
            (Tz::Africa__Monrovia, "1972-01-07"),
            (Tz::Europe__London, "2024-03-31"),
        ] {
            assert_eq!(first_instant(zone, date(day)), first_instant_by_walking(zone, date(day)), "{zone} {day}");
        }
    }

    #[test]
    fn a_period_across_the_date_that_was_skipped_is_whole() {
        // Anchored on the 30th, in a zone that had no 30 December 2011: that period begins with the 31st.
        let calendar = BillingCalendar::new(Tz::Pacific__Apia, date("2011-09-30"));
        let (november, december) = (calendar.period(2), calendar.period(3));
        assert_eq!((november.end, november.seconds()), (december.start, 30 * 86_400));
        let local = december.start.with_timezone(&Tz::Pacific__Apia);
        assert_eq!(local.format("%F %R").to_string(), "2011-12-31 00:00");
        assert_eq!(december.seconds(), 30 * 86_400);
    }

    #[test]
    fn anchors_at_a_months_end_keep_their_day_for_ever() {
        for (anchor, days) in [
            ("2023-10-31", [31, 30, 31, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31]),
            ("2023-10-30", [30, 30, 30, 30, 29, 30, 30, 30, 30, 30, 30, 30, 30]),
            ("2023-10-29", [29, 29, 29, 29, 29, 29, 29, 29, 29, 29, 29, 29, 29]),
        ] {
            let calendar = BillingCalendar::new(Tz::UTC, date(anchor));
            let found: Vec<_> = (0..13).map(|n| calendar.period(n).start.date_naive().day()).collect();
            assert_eq!(found, days, "{anchor}");
        }
    }

    proptest! {
        #[test]
        fn a_boundary_is_the_first_instant_of_the_anchors_day_in_its_month(
            zone in proptest::sample::select(&chrono_tz::TZ_VARIANTS[..]),
            day in 0_i64..30_000,
            index in 0_u32..300,
        ) {
            let anchor = date("1970-01-01") + Duration::days(day);
            let start = BillingCalendar::new(zone, anchor).period(index).start;
            // The month counted by hand, and the anchor's day or the month's last.
            let months = anchor.year() * 12 + anchor.month0() as i32 + index as i32;
            let (year, month) = (months.div_euclid(12), months.rem_euclid(12) as u32 + 1);
            let wanted = (1..=anchor.day()).rev().find_map(|d| NaiveDate::from_ymd_opt(year, month, d)).unwrap();
            prop_assert_eq!(start, first_instant_by_walking(zone, wanted));
        }

        #[test]
        fn periods_tile_time_and_contain_their_instants(
            zone in proptest::sample::select(&chrono_tz::TZ_VARIANTS[..]),
            day in 0_i64..30_000,
            index in 0_u32..400,
            second in 0_i64..86_400,
        ) {
            let calendar = BillingCalendar::new(zone, date("1970-01-01") + Duration::days(day));
            let (period, next) = (calendar.period(index), calendar.period(index + 1));
            prop_assert!(period.start < period.end);
            prop_assert_eq!(period.end, next.start);
            let inside = period.start + Duration::seconds(second);
            for instant in [period.start, inside, period.end - Duration::nanoseconds(1)] {
                prop_assert_eq!(calendar.period_containing(instant), Some(period));
            }
            let local = period.start.with_timezone(&zone);
            prop_assert!((local - Duration::seconds(1)).date_naive() < local.date_naive());
        }
    }
}
