//! Reads one JSON object field by field and notes every fault, instead of stopping at the first.

use std::cell::RefCell;

use chrono::NaiveDate;
use serde_json::{Map, Value};

use crate::calendar::{Month, parse_date};
use crate::decimal::Decimal;
use crate::field_error::FieldError;

/// Longest name, characters.
const NAME_LENGTH_MAX: usize = 200;

/// The faults found so far, in document order of the fields read.
pub(crate) struct Faults(RefCell<Vec<FieldError>>);

impl Faults {
    pub(crate) fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    pub(crate) fn note(&self, pointer: String, code: &'static str, message: impl Into<String>) {
        self.0.borrow_mut().push(FieldError { pointer, code, message: message.into() });
    }

    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.0.into_inner()
    }
}

/// One object at a known place. Each reading method gives `None` after noting why.
pub(crate) struct Reader<'a> {
    object: &'a Map<String, Value>,
    pointer: String,
    faults: &'a Faults,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(value: &'a Value, pointer: String, faults: &'a Faults) -> Option<Self> {
        match value {
            Value::Object(object) => Some(Self { object, pointer, faults }),
            _ => {
                faults.note(pointer, "wrong_type", "must be an object");
                None
            }
        }
    }

    /// Notes every field whose name is not listed.
    pub(crate) fn only(&self, names: &[&str]) {
        for name in self.object.keys().filter(|name| !names.contains(&name.as_str())) {
            self.fault(name, "unknown_field", "is not a field of this object");
        }
    }

    pub(crate) fn fault(&self, name: &str, code: &'static str, message: impl Into<String>) {
        self.faults.note(self.pointer_to(name), code, message);
    }

    fn pointer_to(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"))
    }

    /// The value of an optional field; null counts as absent.
    fn optional(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn required(&self, name: &str) -> Option<&'a Value> {
        let value = self.object.get(name);
        if value.is_none() {
            self.fault(name, "required", "is required");
        }
        value
    }

    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.as_text(name, self.required(name)?)
    }

    fn as_text(&self, name: &str, value: &'a Value) -> Option<&'a str> {
        let text = value.as_str();
        if text.is_none() {
            self.fault(name, "wrong_type", "must be a string");
        }
        text
    }

    /// 1 to 200 characters, none of them a control character.
    pub(crate) fn name(&self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if text.is_empty() {
            self.fault(name, "too_short", "must not be empty");
        } else if text.chars().count() > NAME_LENGTH_MAX {
            self.fault(name, "too_long", format!("must have at most {NAME_LENGTH_MAX} characters"));
        } else if text.chars().any(char::is_control) {
            self.fault(name, "malformed", "must not contain control characters");
        } else {
            return Some(text.to_owned());
        }
        None
    }

    /// A required decimal string within `bounds`.
    pub(crate) fn decimal(&self, name: &str, bounds: Bounds) -> Option<Decimal> {
        let value = self.required(name)?;
        read_decimal(value, bounds, |code, message| self.fault(name, code, message))
    }

    /// A required array of `least` to `most` decimal strings within `bounds`.
    pub(crate) fn decimals(&self, name: &str, least: usize, most: usize, bounds: Bounds) -> Option<Vec<Decimal>> {
        let Value::Array(items) = self.required(name)? else {
            self.fault(name, "wrong_type", "must be an array");
            return None;
        };
        let fits = (least..=most).contains(&items.len());
        if items.len() < least {
            self.fault(name, "too_short", format!("must have at least {least} items"));
        } else if items.len() > most {
            self.fault(name, "too_long", format!("must have at most {most} items"));
        }
        let pointer = self.pointer_to(name);
        let read_item = |(i, item)| {
            read_decimal(item, bounds, |code, message| self.faults.note(format!("{pointer}/{i}"), code, message))
        };
        // Reads all before giving up, so that every wrong item is noted; but never more than fit.
        let read: Vec<Option<Decimal>> = items.iter().take(most).enumerate().map(read_item).collect();
        read.into_iter().collect::<Option<Vec<_>>>().filter(|_| fits)
    }

    /// An optional decimal string within `bounds`; the outer `None` means it was there and wrong.
    pub(crate) fn optional_decimal(&self, name: &str, bounds: Bounds) -> Option<Option<Decimal>> {
        let Some(value) = self.optional(name) else { return Some(None) };
        read_decimal(value, bounds, |code, message| self.fault(name, code, message)).map(Some)
    }

    /// An optional word out of a few; the outer `None` means it was there and wrong.
    pub(crate) fn optional_choice(&self, name: &str, words: &[&'static str]) -> Option<Option<&'static str>> {
        let Some(value) = self.optional(name) else { return Some(None) };
        let text = self.as_text(name, value)?;
        let found = words.iter().copied().find(|word| *word == text);
        if found.is_none() {
            self.fault(name, "not_allowed", format!("must be one of {}", words.join(", ")));
        }
        found.map(Some)
    }

    /// A JSON integer from `low` to `high`, both included.
    pub(crate) fn integer(&self, name: &str, low: i64, high: i64) -> Option<i64> {
        self.as_integer(name, self.required(name)?, low, high)
    }

    /// The same, optional; the outer `None` means it was there and wrong.
    pub(crate) fn optional_integer(&self, name: &str, low: i64, high: i64) -> Option<Option<i64>> {
        self.optional(name).map_or(Some(None), |value| self.as_integer(name, value, low, high).map(Some))
    }

    fn as_integer(&self, name: &str, value: &Value, low: i64, high: i64) -> Option<i64> {
        let Value::Number(number) = value else {
            self.fault(name, "wrong_type", "must be an integer");
            return None;
        };
        match number.as_i64() {
            Some(n) if (low..=high).contains(&n) => Some(n),
            None if !number.is_u64() => {
                self.fault(name, "wrong_type", "must be an integer");
                None
            }
            _ => {
                self.fault(name, "out_of_range", format!("must lie between {low} and {high}"));
                None
            }
        }
    }

    /// A required `YYYY-MM`.
    pub(crate) fn month(&self, name: &str) -> Option<Month> {
        let value = self.required(name)?;
        self.as_month(name, value)
    }

    /// An optional `YYYY-MM`; the outer `None` means it was there and wrong.
    pub(crate) fn optional_month(&self, name: &str) -> Option<Option<Month>> {
        self.optional(name).map_or(Some(None), |value| self.as_month(name, value).map(Some))
    }

    fn as_month(&self, name: &str, value: &'a Value) -> Option<Month> {
        let month = Month::parse(self.as_text(name, value)?);
        if month.is_none() {
            self.fault(name, "malformed", "must be a month written YYYY-MM");
        }
        month
    }

    /// A required `YYYY-MM-DD`.
    pub(crate) fn date(&self, name: &str) -> Option<NaiveDate> {
        let value = self.required(name)?;
        self.as_date(name, value)
    }

    /// An optional `YYYY-MM-DD`; the outer `None` means it was there and wrong.
    pub(crate) fn optional_date(&self, name: &str) -> Option<Option<NaiveDate>> {
        self.optional(name).map_or(Some(None), |value| self.as_date(name, value).map(Some))
    }

    fn as_date(&self, name: &str, value: &'a Value) -> Option<NaiveDate> {
        let date = parse_date(self.as_text(name, value)?);
        if date.is_none() {
            self.fault(name, "malformed", "must be a date written YYYY-MM-DD");
        }
        date
    }

    /// Reads each item of a required array of at most `most`; `None` if the array or any item is wrong.
    pub(crate) fn list<T>(&self, name: &str, most: usize, read: impl Fn(Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Array(items) = self.required(name)? else {
            self.fault(name, "wrong_type", "must be an array");
            return None;
        };
        let mut fits = true;
        if items.len() > most {
            self.fault(name, "too_long", format!("must have at most {most} items"));
            fits = false;
        }
        let pointer = self.pointer_to(name);
        let read_item = |(i, item)| Reader::new(item, format!("{pointer}/{i}"), self.faults).and_then(&read);
        // Reads all before giving up, so that every wrong item is noted; but never more than fit.
        let read: Vec<Option<T>> = items.iter().take(most).enumerate().map(read_item).collect();
        read.into_iter().collect::<Option<Vec<T>>>().filter(|_| fits)
    }

    /// An optional array of exactly twelve decimals; the outer `None` means it was there and wrong.
    pub(crate) fn optional_twelve(&self, name: &str, bounds: Bounds) -> Option<Option<[Decimal; 12]>> {
        let Some(value) = self.optional(name) else { return Some(None) };
        let Value::Array(items) = value else {
            self.fault(name, "wrong_type", "must be an array");
            return None;
        };
        if items.len() != 12 {
            let code = if items.len() < 12 { "too_short" } else { "too_long" };
            self.fault(name, code, "must have twelve items, January first");
        }
        let pointer = self.pointer_to(name);
        let read: Vec<Option<Decimal>> = items
            .iter()
            .take(12)
            .enumerate()
            .map(|(i, item)| {
                read_decimal(item, bounds, |code, message| self.faults.note(format!("{pointer}/{i}"), code, message))
            })
            .collect();
        let factors: Vec<Decimal> = read.into_iter().collect::<Option<_>>()?;
        factors.try_into().ok().filter(|_| items.len() == 12).map(Some)
    }

    /// An optional object; the outer `None` means it was there and wrong.
    pub(crate) fn optional_object<T>(
        &self,
        name: &str,
        read: impl FnOnce(Reader<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some(value) = self.optional(name) else { return Some(None) };
        Reader::new(value, self.pointer_to(name), self.faults).and_then(read).map(Some)
    }
}

/// Inclusive limits of a decimal, in hundredths: every limit of the model has at most two fractional digits.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    low_hundredths: i64,
    high_hundredths: i64,
    text: &'static str,
}

impl Bounds {
    pub(crate) const fn new(low_hundredths: i64, high_hundredths: i64, text: &'static str) -> Self {
        Self { low_hundredths, high_hundredths, text }
    }
}

fn read_decimal(value: &Value, bounds: Bounds, fault: impl Fn(&'static str, String)) -> Option<Decimal> {
    let Value::String(text) = value else {
        fault("wrong_type", "must be a decimal string, such as \"12.50\"".to_owned());
        return None;
    };
    let Ok(decimal) = Decimal::parse(text) else {
        fault("malformed", "must be a plain decimal with at most 12 fractional digits".to_owned());
        return None;
    };
    let hundredths = decimal.times(&Decimal::from_int(100));
    if hundredths.cmp_int(bounds.low_hundredths).is_lt() || hundredths.cmp_int(bounds.high_hundredths).is_gt() {
        fault("out_of_range", format!("must lie between {}", bounds.text));
        return None;
    }
    Some(decimal)
}
