//! Equal payments: payment, present value and future value, all solutions of
//! `fv + pv (1+r)^n + pmt (1 + r·w) ((1+r)^n - 1) / r = 0`, with `w` 1 where payments come at a
//! period's beginning; for r = 0, `fv + pv + pmt n = 0`.

use serde_json::{Value, json};

use super::ratio::Ratio;
use super::series::{MONEY, RATE};
use super::{Answer, OutOfRange};
use crate::reader::Reader;

/// Most periods.
pub(super) const PERIODS_MAX: i64 = 1_200;

/// `(1+r)^n`, and what one unit paid in each period has grown to by then.
pub(super) fn growth(rate: &Ratio, periods: usize, at_beginning: bool) -> (Ratio, Ratio) {
    let growth = Ratio::int(1).plus(rate).power(periods);
    if rate.is_zero() {
        return (growth, Ratio::int(periods as i64));
    }
    let grown = growth.minus(&Ratio::int(1)).over(rate);
    let due = if at_beginning { grown.times(&Ratio::int(1).plus(rate)) } else { grown };
    (growth, due)
}

/// What the three have in common, read.
struct Terms {
    growth: Ratio,
    paid: Ratio,
}

impl Terms {
    fn read(reader: &Reader<'_>) -> Option<Self> {
        let rate = rate_of_period(reader);
        let periods = reader.integer("periods", 1, PERIODS_MAX);
        let at_beginning = read_when(reader);
        let (growth, paid) = growth(&rate?, periods? as usize, at_beginning?);
        Some(Self { growth, paid })
    }
}

/// The rate of one period: `rate`, divided by `periods_per_year` where that is given, since 8 % / 12 is no decimal.
pub(super) fn rate_of_period(reader: &Reader<'_>) -> Option<Ratio> {
    let (rate, per_year) = (reader.decimal("rate", RATE), reader.optional_integer("periods_per_year", 1, 366));
    Some(Ratio::from(&rate?).over(&Ratio::int(per_year?.unwrap_or(1))))
}

/// Whether payments come at a period's beginning; at its end where nothing is said.
pub(super) fn read_when(reader: &Reader<'_>) -> Option<bool> {
    reader.optional_choice("when", &["end", "begin"]).map(|when| when == Some("begin"))
}

/// An amount of money that counts as 0 where it is absent.
pub(super) fn money_or_zero(reader: &Reader<'_>, name: &str) -> Option<Ratio> {
    let read = reader.optional_decimal(name, MONEY)?;
    Some(read.as_ref().map_or_else(|| Ratio::int(0), Ratio::from))
}

fn money(reader: &Reader<'_>, name: &str) -> Option<Ratio> {
    reader.decimal(name, MONEY).as_ref().map(Ratio::from)
}

fn answer(value: &Ratio) -> Result<Value, OutOfRange> {
    value.print().map(|value| json!({ "value": value }))
}

/// The payment of each period.
pub(super) fn pmt(reader: &Reader<'_>) -> Answer {
    reader.only(&["rate", "periods_per_year", "periods", "pv", "fv", "when"]);
    let (terms, pv, fv) = (Terms::read(reader), money(reader, "pv"), money_or_zero(reader, "fv"));
    let (terms, pv, fv) = (terms?, pv?, fv?);
    Some(answer(&fv.plus(&pv.times(&terms.growth)).over(&terms.paid).negated()))
}

/// What the payments and the future value are worth at the start.
pub(super) fn pv(reader: &Reader<'_>) -> Answer {
    reader.only(&["rate", "periods_per_year", "periods", "pmt", "fv", "when"]);
    let (terms, pmt, fv) = (Terms::read(reader), money(reader, "pmt"), money_or_zero(reader, "fv"));
    let (terms, pmt, fv) = (terms?, pmt?, fv?);
    Some(answer(&fv.plus(&pmt.times(&terms.paid)).over(&terms.growth).negated()))
}

/// What the payments and the present value have grown to at the end.
pub(super) fn fv(reader: &Reader<'_>) -> Answer {
    reader.only(&["rate", "periods_per_year", "periods", "pmt", "pv", "when"]);
    let (terms, pmt, pv) = (Terms::read(reader), money(reader, "pmt"), money_or_zero(reader, "pv"));
    let (terms, pmt, pv) = (terms?, pmt?, pv?);
    Some(answer(&pv.times(&terms.growth).plus(&pmt.times(&terms.paid)).negated()))
}
