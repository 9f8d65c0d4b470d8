//! Calendar months of the proleptic Gregorian calendar. No time zone: a month here is a name, not an instant.

use chrono::{Datelike, NaiveDate};

/// A calendar month, year 1 to 9999; ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    /// Months since January of year 0.
    ordinal: i32,
}

impl Month {
    /// The month `month` (1 to 12) of `year`.
    #[must_use]
    pub const fn new(year: i32, month: i32) -> Self {
        assert!(month >= 1 && month <= 12, "a year has twelve months");
        Self { ordinal: year * 12 + month - 1 }
    }

    /// Reads `YYYY-MM`: four digits from 0001, a hyphen, two digits from 01 to 12.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (year, month) = text.split_once('-')?;
        let (year, month) = (digits(year, 4)?, digits(month, 2)?);
        (year >= 1 && (1..=12).contains(&month)).then(|| Self::new(year, month))
    }

    /// The month `count` months on.
    #[must_use]
    pub const fn plus(self, count: i32) -> Self {
        Self { ordinal: self.ordinal + count }
    }

    /// Months from `earlier` to `self`; negative where `self` comes first.
    #[must_use]
    pub const fn months_since(self, earlier: Self) -> i32 {
        self.ordinal - earlier.ordinal
    }

    /// Calendar year.
    #[must_use]
    pub const fn year(self) -> i32 {
        self.ordinal.div_euclid(12)
    }

    /// 0 for January to 11 for December.
    #[must_use]
    pub const fn index_in_year(self) -> usize {
        self.ordinal.rem_euclid(12) as usize
    }

    /// 28 to 31.
    #[must_use]
    pub const fn days(self) -> i32 {
        let year = self.year();
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        match self.index_in_year() {
            1 if leap => 29,
            1 => 28,
            3 | 5 | 8 | 10 => 30,
            _ => 31,
        }
    }

    /// Days of this month from `first` to `last`, both included, 0 where they do not meet;
    /// without `last` to the month's end.
    #[must_use]
    pub fn days_between(self, first: NaiveDate, last: Option<NaiveDate>) -> i32 {
        let from = match Self::of(first).cmp(&self) {
            std::cmp::Ordering::Less => 1,
            std::cmp::Ordering::Equal => first.day() as i32,
            std::cmp::Ordering::Greater => return 0,
        };
        let to = match last.map(|date| (Self::of(date).cmp(&self), date)) {
            Some((std::cmp::Ordering::Less, _)) => return 0,
            Some((std::cmp::Ordering::Equal, date)) => date.day() as i32,
            Some((std::cmp::Ordering::Greater, _)) | None => self.days(),
        };
        (to - from + 1).max(0)
    }

    fn of(date: NaiveDate) -> Self {
        Self::new(date.year(), date.month() as i32)
    }
}

impl std::fmt::Display for Month {
    /// `YYYY-MM`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.year(), self.index_in_year() + 1)
    }
}

/// Reads `YYYY-MM-DD`, a date that exists, year 0001 to 9999.
#[must_use]
pub fn parse_date(text: &str) -> Option<NaiveDate> {
    let (month, day) = text.rsplit_once('-')?;
    let (month, day) = (Month::parse(month)?, digits(day, 2)?);
    NaiveDate::from_ymd_opt(month.year(), month.index_in_year() as u32 + 1, day.try_into().ok()?)
}

fn digits(text: &str, count: usize) -> Option<i32> {
    let plain = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        parse_date(text).unwrap()
    }

    #[test]
    fn month_lengths_agree_with_the_calendar_library() {
        for ordinal in 1850 * 12..2450 * 12 {
            let month = Month { ordinal };
            let first = NaiveDate::from_ymd_opt(month.year(), month.index_in_year() as u32 + 1, 1).unwrap();
            assert_eq!(month.days(), i32::from(first.num_days_in_month()), "{month}");
        }
    }

    #[test]
    fn only_four_digits_hyphen_two_digits_is_a_month() {
        assert_eq!(Month::parse("2024-02").map(|m| m.to_string()), Some("2024-02".to_owned()));
        for text in
            ["", "2024", "2024-00", "2024-13", "0000-01", "24-01", "2024-1", "+024-01", "2024-01-01", "２024-01"]
        {
            assert_eq!(Month::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_dates_that_exist_are_read() {
        assert!(parse_date("2024-02-29").is_some());
        for text in ["2023-02-29", "2024-02-30", "2024-04-31", "2024-2-01", "2024-02-1", "2024-02", "2024-02-00"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn employed_days_count_both_ends() {
        let april = Month::new(2024, 4);
        assert_eq!(april.days_between(date("2024-04-13"), None), 18);
        assert_eq!(april.days_between(date("2024-04-13"), Some(date("2024-04-13"))), 1);
        assert_eq!(april.days_between(date("2020-01-01"), Some(date("2024-04-10"))), 10);
        assert_eq!(april.days_between(date("2020-01-01"), Some(date("2030-01-01"))), 30);
        assert_eq!(april.days_between(date("2024-05-01"), None), 0);
        assert_eq!(april.days_between(date("2020-01-01"), Some(date("2024-03-31"))), 0);
    }
}
