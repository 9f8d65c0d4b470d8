//! The calculators by exact rational arithmetic: what each must answer, or whether what it answered can be right.
//!
//! Re-derived from the definitions of net present value, annuity, rate of return and percentile. Where the value is
//! rational it is computed and compared to the digit. Where it is not, the printed one is held against its neighbours at
//! half a unit of the last digit: a power on either side of it (mirr), the number of roots between them (irr), or a
//! logarithm with a stated error (nper).

use num_bigint::BigInt;
use num_rational::Ratio;
use num_traits::{One, Signed, ToPrimitive, Zero};
use serde_json::Value;

use super::compare::Mismatch;
use super::error::OracleError;
use super::exact::{Exact, format_scaled, round_half_even};

type Rational = Ratio<BigInt>;

/// Digits behind the point of every answer.
const DIGITS: u32 = 12;
/// Digits of the fixed-point logarithms; their error stays below a unit of digit 70.
const LOG_DIGITS: u32 = 80;
/// Fractional digits of any input.
const INPUT_DIGITS: usize = 12;
/// Periods of an annuity.
const PERIODS_MAX: u64 = 1_200;

/// What became of holding one answer against its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalculatorFinding {
    /// Numbers compared; a null or an empty list counts as one.
    pub numbers: u64,
    /// The first that is wrong.
    pub mismatch: Option<Mismatch>,
}

/// Holds `answer` of the calculator `name` (`npv`, `pmt`, `pv`, `fv`, `nper`, `mirr`, `irr`, `percentile`, `amortisation`)
/// against `input`; both as the API takes and gives them.
///
/// # Errors
/// [`OracleError`] where the input cannot be read, the calculator is not known, or a rounding is too close to call.
pub fn check_calculator(name: &str, input: &Value, answer: &Value) -> Result<CalculatorFinding, OracleError> {
    let input = Input(input);
    match name {
        "npv" => exactly(answer, Some(npv(&input.rate("rate")?, &input.list("flows")?))),
        "pmt" => exactly(answer, Annuity::read(&input)?.payment(&input)?),
        "pv" => exactly(answer, Annuity::read(&input)?.present(&input)?),
        "fv" => exactly(answer, Some(Annuity::read(&input)?.future(&input)?)),
        "percentile" => exactly(answer, percentile(input.list("values")?, &input.number("p")?)),
        "nper" => nper(&input, answer),
        "mirr" => mirr(&input, answer),
        "irr" => irr(&input.list("flows")?, answer),
        "amortisation" => amortisation(&input, answer),
        other => Err(OracleError::input("", format!("no calculator is called '{other}'"))),
    }
}

/// A request's body.
struct Input<'a>(&'a Value);

impl Input<'_> {
    fn number(&self, name: &str) -> Result<Rational, OracleError> {
        self.optional(name)?.ok_or_else(|| OracleError::input(format!("/{name}"), "is missing"))
    }

    /// A rate above -1: money that grows by it stays above 0, so it can be divided by.
    fn rate(&self, name: &str) -> Result<Rational, OracleError> {
        let rate = self.number(name)?;
        if rate <= -Rational::one() {
            return Err(OracleError::input(format!("/{name}"), "is not above -1"));
        }
        Ok(rate)
    }

    fn optional(&self, name: &str) -> Result<Option<Rational>, OracleError> {
        match &self.0[name] {
            Value::Null => Ok(None),
            Value::String(text) => rational(text).map(Some).map_err(|why| OracleError::input(format!("/{name}"), why)),
            Value::Number(number) => Ok(number.as_u64().map(|whole| Rational::from_integer(whole.into()))),
            _ => Err(OracleError::input(format!("/{name}"), "is no number")),
        }
    }

    fn list(&self, name: &str) -> Result<Vec<Rational>, OracleError> {
        let items = self.0[name].as_array().ok_or_else(|| OracleError::input(format!("/{name}"), "is no list"))?;
        let read = |item: &Value| item.as_str().ok_or("is no text".to_owned()).and_then(rational);
        items.iter().map(|item| read(item).map_err(|why| OracleError::input(format!("/{name}"), why))).collect()
    }
}

fn rational(text: &str) -> Result<Rational, String> {
    let exact = Exact::parse(text, INPUT_DIGITS).map_err(|error| error.to_string())?;
    let (digits, scale) = exact.parts();
    Ok(Rational::new(digits.clone(), BigInt::from(10u32).pow(scale)))
}

fn whole(value: u32) -> Rational {
    Rational::from_integer(value.into())
}

/// The value as it must be printed.
fn printed(value: &Rational) -> String {
    format_scaled(&round_half_even(&(value.numer() * BigInt::from(10u32).pow(DIGITS)), value.denom()), DIGITS)
}

/// Half a unit of the last printed digit.
fn half_unit() -> Rational {
    Rational::new(BigInt::one(), BigInt::from(2u32) * BigInt::from(10u32).pow(DIGITS))
}

fn finding(pointer: &str, expected: String, actual: String) -> CalculatorFinding {
    let mismatch = (expected != actual).then(|| Mismatch { pointer: pointer.to_owned(), expected, actual });
    CalculatorFinding { numbers: 1, mismatch }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `/value` is exactly this; none stands for null.
fn exactly(answer: &Value, expected: Option<Rational>) -> Result<CalculatorFinding, OracleError> {
    let expected = expected.map_or("null".to_owned(), |value| printed(&value));
    Ok(finding("/value", expected, shown(&answer["value"])))
}

fn power(base: &Rational, exponent: usize) -> Rational {
    num_traits::pow(base.clone(), exponent)
}

fn npv(rate: &Rational, flows: &[Rational]) -> Rational {
    let growth = Rational::one() + rate;
    // Horner in 1 / (1 + rate).
    flows.iter().rev().fold(Rational::zero(), |later, flow| later / &growth + flow)
}

/// fv + pv·gⁿ + pmt·k·(gⁿ - 1) = 0 with g = 1 + r and k = (1 + r·w) / r; for r = 0 fv + pv + pmt·n = 0.
struct Annuity {
    rate: Rational,
    periods: usize,
    begins: bool,
}

impl Annuity {
    fn read(input: &Input<'_>) -> Result<Self, OracleError> {
        let a_year = input.optional("periods_per_year")?.unwrap_or_else(Rational::one);
        if a_year < Rational::one() {
            return Err(OracleError::input("/periods_per_year", "is not at least 1"));
        }
        let periods = input.0["periods"].as_u64().unwrap_or_default();
        if periods > PERIODS_MAX {
            return Err(OracleError::input("/periods", "is too large"));
        }
        Ok(Self {
            rate: input.rate("rate")? / a_year,
            periods: usize::try_from(periods).map_err(|_| OracleError::input("/periods", "is too large"))?,
            begins: input.0["when"] == "begin",
        })
    }

    fn growth(&self) -> Rational {
        power(&(Rational::one() + &self.rate), self.periods)
    }

    /// What payments of 1 in each period are worth at the end.
    fn of_payments(&self) -> Rational {
        if self.rate.is_zero() {
            return Rational::from_integer(self.periods.into());
        }
        self.weight() * (self.growth() - Rational::one())
    }

    /// k; the rate is not 0.
    fn weight(&self) -> Rational {
        let one = Rational::one();
        (if self.begins { one.clone() + &self.rate } else { one }) / &self.rate
    }

    fn payment(&self, input: &Input<'_>) -> Result<Option<Rational>, OracleError> {
        let owed = input.number("pv")? * self.growth() + input.optional("fv")?.unwrap_or_else(Rational::zero);
        let each = self.of_payments();
        Ok((!each.is_zero()).then(|| -owed / each))
    }

    fn present(&self, input: &Input<'_>) -> Result<Option<Rational>, OracleError> {
        let later = input.number("pmt")? * self.of_payments() + input.optional("fv")?.unwrap_or_else(Rational::zero);
        Ok(Some(-later / self.growth()))
    }

    fn future(&self, input: &Input<'_>) -> Result<Rational, OracleError> {
        let now = input.optional("pv")?.unwrap_or_else(Rational::zero);
        Ok(-(input.number("pmt")? * self.of_payments() + now * self.growth()))
    }
}

/// Type 7: at place (n - 1)·p of the sorted values, between neighbours in proportion.
fn percentile(mut values: Vec<Rational>, p: &Rational) -> Option<Rational> {
    values.sort();
    let place = p * Rational::from_integer(values.len().saturating_sub(1).into());
    let below = place.floor().to_integer().to_usize()?;
    let lower = values.get(below)?;
    let upper = values.get(below + 1).unwrap_or(lower);
    Some(lower + (upper - lower) * place.fract())
}

/// The printed value as a number, or the finding that says why it is none.
fn value_of(answer: &Value, expected: &str) -> Result<Rational, CalculatorFinding> {
    let text = shown(&answer["value"]);
    let fits = text.split_once('.').is_some_and(|(_, fraction)| fraction.len() == DIGITS as usize);
    match rational(&text) {
        Ok(value) if fits => Ok(value),
        _ => Err(finding("/value", expected.to_owned(), text)),
    }
}

fn nper(input: &Input<'_>, answer: &Value) -> Result<CalculatorFinding, OracleError> {
    let annuity = Annuity::read(input)?;
    let (payment, now) = (input.number("pmt")?, input.number("pv")?);
    let later = input.optional("fv")?.unwrap_or_else(Rational::zero);
    if annuity.rate.is_zero() {
        return exactly(answer, (!payment.is_zero()).then(|| -(later + now) / payment));
    }
    // gⁿ = (k·pmt - fv) / (k·pmt + pv), so n is a quotient of logarithms where that is positive.
    let worth = annuity.weight() * payment;
    let (above, below) = (&worth - later, &worth + now);
    if below.is_zero() || !(&above / &below).is_positive() {
        return exactly(answer, None);
    }
    let target = logarithm(&(above / below));
    let growth = logarithm(&(Rational::one() + annuity.rate));
    // Each logarithm is off by less than a unit of digit 70; the quotient's two ends must print alike.
    let error = BigInt::from(10u32).pow(LOG_DIGITS - 70);
    let quotients: Vec<Rational> = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
        .into_iter()
        .map(|(a, b)| Rational::new(&target + &error * a, &growth + &error * b))
        .collect();
    let least = quotients.iter().min().map(printed).unwrap_or_default();
    let most = quotients.iter().max().map(printed).unwrap_or_default();
    // An exact 0 lies between two ends that print as 0 with either sign.
    if least.trim_start_matches('-') != most.trim_start_matches('-') {
        return Err(OracleError::Undecided("a quotient of logarithms is too close to a rounding".to_owned()));
    }
    Ok(finding("/value", unsigned_zero(most), unsigned_zero(shown(&answer["value"]))))
}

fn unsigned_zero(text: String) -> String {
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().all(|digit| matches!(digit, '0' | '.')) => digits.to_owned(),
        _ => text,
    }
}

/// The natural logarithm of a positive number times 10^80, by 2·atanh((m - 1) / (m + 1)) after halving to m near 1.
fn logarithm(of: &Rational) -> BigInt {
    let one = BigInt::from(10u32).pow(LOG_DIGITS);
    let (low, high) = (Rational::new(3.into(), 4.into()), Rational::new(3.into(), 2.into()));
    let (mut reduced, mut halvings) = (of.clone(), 0i64);
    while reduced >= high {
        reduced /= whole(2);
        halvings += 1;
    }
    while reduced < low {
        reduced *= whole(2);
        halvings -= 1;
    }
    atanh_twice(&reduced, &one) + atanh_twice(&whole(2), &one) * halvings
}

/// 2·atanh((m - 1) / (m + 1)) times `one`, by its series.
fn atanh_twice(m: &Rational, one: &BigInt) -> BigInt {
    let ratio = (m - Rational::one()) / (m + Rational::one());
    let z: BigInt = ratio.numer() * one / ratio.denom();
    let square: BigInt = &z * &z / one;
    let (mut term, mut sum, mut odd) = (z, BigInt::zero(), 1u32);
    while !term.is_zero() {
        sum += &term / odd;
        term = term * &square / one;
        odd += 2;
    }
    sum * 2
}

/// ((1 + v) / (1 + reinvestment))^(n-1) is what gains are worth for each unit of loss; a power is monotonous, so the true
/// value lies within half a unit of v where the powers at both ends enclose that.
fn mirr(input: &Input<'_>, answer: &Value) -> Result<CalculatorFinding, OracleError> {
    let flows = input.list("flows")?;
    let (finance, reinvestment) = (input.rate("finance_rate")?, input.rate("reinvestment_rate")?);
    let only = |keep: fn(&Rational) -> bool| -> Vec<Rational> {
        flows.iter().map(|flow| if keep(flow) { flow.clone() } else { Rational::zero() }).collect()
    };
    let gains = npv(&reinvestment, &only(Rational::is_positive));
    let losses = npv(&finance, &only(Rational::is_negative)).abs();
    if gains.is_zero() || losses.is_zero() {
        return exactly(answer, None);
    }
    let expected = "the root of gains over losses, to 12 decimals";
    let value = match value_of(answer, expected) {
        Ok(value) => value,
        Err(wrong) => return Ok(wrong),
    };
    let ratio = gains / losses;
    let at = |value: Rational| {
        let base = (Rational::one() + value) / (Rational::one() + &reinvestment);
        // Below -1 there is no root of a positive number.
        if base.is_negative() { Rational::zero() } else { power(&base, flows.len() - 1) }
    };
    let encloses = at(&value - half_unit()) <= ratio && ratio <= at(&value + half_unit());
    let expected = if encloses { shown(&answer["value"]) } else { expected.to_owned() };
    Ok(finding("/value", expected, shown(&answer["value"])))
}

/// The roots in (-1, 10], by Sturm's theorem: as many as are printed, each within half a unit of a printed one.
fn irr(flows: &[Rational], answer: &Value) -> Result<CalculatorFinding, OracleError> {
    let Some(printed_roots) = answer["roots"].as_array() else {
        return Ok(finding("/roots", "a list".to_owned(), shown(&answer["roots"])));
    };
    let texts: Vec<String> = printed_roots.iter().map(shown).collect();
    // Σ c_t·q^(T-t) with q = 1 + r, lowest power first; q = 0 is no rate, so factors of q go.
    let mut polynomial: Vec<Rational> = flows.iter().rev().cloned().collect();
    while polynomial.first().is_some_and(Rational::is_zero) {
        polynomial.remove(0);
    }
    while polynomial.last().is_some_and(Rational::is_zero) {
        polynomial.pop();
    }
    let chain = if polynomial.is_empty() { Vec::new() } else { sturm_chain(polynomial) };
    let between = |low: &Rational, high: &Rational| changes(&chain, low).saturating_sub(changes(&chain, high));
    let all = between(&Rational::zero(), &whole(11));
    if all != texts.len() {
        return Ok(finding("/roots", format!("{all} roots"), format!("{} roots", texts.len())));
    }
    let numbers = texts.len().max(1) as u64;
    let mut last: Option<Rational> = None;
    for (index, text) in texts.iter().enumerate() {
        let pointer = format!("/roots/{index}");
        let wrong = |expected: &str| {
            let mismatch = Mismatch { pointer: pointer.clone(), expected: expected.to_owned(), actual: text.clone() };
            Ok(CalculatorFinding { numbers, mismatch: Some(mismatch) })
        };
        let Ok(root) = value_of(&serde_json::json!({ "value": text }), "") else {
            return wrong("a number of 12 decimals");
        };
        if last.as_ref().is_some_and(|last| *last > root) {
            return wrong("roots in ascending order");
        }
        let q = Rational::one() + &root;
        let alike = texts.iter().filter(|other| *other == text).count();
        if between(&(&q - half_unit()), &(&q + half_unit())) != alike {
            return wrong("a root within half a unit of the last digit");
        }
        last = Some(root);
    }
    Ok(CalculatorFinding { numbers, mismatch: None })
}

/// A polynomial, its derivative, and each remainder negated; coefficients from the lowest power on.
fn sturm_chain(polynomial: Vec<Rational>) -> Vec<Vec<Rational>> {
    let derivative: Vec<Rational> =
        (1u32..).zip(&polynomial[1..]).map(|(degree, coefficient)| coefficient * whole(degree)).collect();
    let mut chain = vec![polynomial, derivative];
    while chain[chain.len() - 1].len() > 1 {
        let mut rest = remainder(&chain[chain.len() - 2], &chain[chain.len() - 1]);
        if rest.is_empty() {
            break;
        }
        // A positive factor changes no sign and keeps the numbers short.
        let size = rest[rest.len() - 1].abs();
        rest.iter_mut().for_each(|coefficient| *coefficient = -(&*coefficient / &size));
        chain.push(rest);
    }
    chain.retain(|of| !of.is_empty());
    chain
}

fn remainder(of: &[Rational], by: &[Rational]) -> Vec<Rational> {
    let mut rest = of.to_vec();
    while rest.len() >= by.len() {
        let factor = &rest[rest.len() - 1] / &by[by.len() - 1];
        let offset = rest.len() - by.len();
        for (place, coefficient) in by.iter().enumerate() {
            rest[offset + place] -= coefficient * &factor;
        }
        while rest.last().is_some_and(Rational::is_zero) {
            rest.pop();
        }
    }
    rest
}

/// Changes of sign along the chain, zeros left out.
fn changes(chain: &[Vec<Rational>], at: &Rational) -> usize {
    let value = |of: &Vec<Rational>| {
        of.iter().rev().fold(Rational::zero(), |higher, coefficient| higher * at + coefficient).numer().sign()
    };
    let signs: Vec<_> = chain.iter().map(value).filter(|sign| *sign != num_bigint::Sign::NoSign).collect();
    signs.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Payments at the end of each period; interest is what the balance bears, principal the rest of the payment.
fn amortisation(input: &Input<'_>, answer: &Value) -> Result<CalculatorFinding, OracleError> {
    let annuity = Annuity { begins: false, ..Annuity::read(input)? };
    let Some(payment) = annuity.payment(input)? else {
        return Err(OracleError::Undecided("a loan without periods".to_owned()));
    };
    let mut balance = input.number("pv")?;
    let mut interest_sum = Rational::zero();
    let mut expected = vec![("/payment".to_owned(), payment.clone())];
    for period in 0..annuity.periods {
        // Both are flows of the borrower: what is paid is negative where a loan was received.
        let interest = -(&balance * &annuity.rate);
        let principal = &payment - &interest;
        balance += &principal;
        interest_sum += &interest;
        for (name, value) in [("interest", &interest), ("principal", &principal), ("balance", &balance)] {
            expected.push((format!("/rows/{period}/{name}"), value.clone()));
        }
    }
    expected.push(("/total_paid".to_owned(), &payment * Rational::from_integer(annuity.periods.into())));
    expected.push(("/total_interest".to_owned(), interest_sum));
    let rows = answer["rows"].as_array().map_or(0, Vec::len);
    if rows != annuity.periods {
        return Ok(finding("/rows", format!("{} rows", annuity.periods), format!("{rows} rows")));
    }
    let numbers = expected.len() as u64;
    let wrong = expected.into_iter().find_map(|(pointer, value)| {
        let actual = answer.pointer(&pointer).map(shown).unwrap_or_default();
        let expected = printed(&value);
        (expected != actual).then_some(Mismatch { pointer, expected, actual })
    });
    Ok(CalculatorFinding { numbers, mismatch: wrong })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(name: &str, input: &Value, answer: &Value) -> bool {
        check_calculator(name, input, answer).expect("an opinion").mismatch.is_none()
    }

    /// Published values, and the same with the last digit moved.
    #[test]
    fn known_values_hold_and_their_neighbours_do_not() {
        let flows = json!(["-120000", "39000", "30000", "21000", "37000", "46000"]);
        for (name, input, value) in [
            (
                "npv",
                json!({"rate": "0.05", "flows": ["-15000","1500","2500","3500","4500","6000"]}),
                "122.894854950943",
            ),
            ("pmt", json!({"rate": "0.08", "periods_per_year": 12, "periods": 60, "pv": "15000"}), "-304.145914326205"),
            ("fv", json!({"rate": "0.075", "periods": 20, "pmt": "-2000"}), "86609.362673043000"),
            ("fv", json!({"rate": "0.075", "periods": 20, "pmt": "-2000", "when": "begin"}), "93105.064873521225"),
            ("pv", json!({"rate": "0.07", "periods": 20, "pmt": "12000"}), "-127128.170946193933"),
            ("percentile", json!({"values": ["50","20","35","40","15"], "p": "0.4"}), "29.000000000000"),
            ("mirr", json!({"flows": flows, "finance_rate": "0.10", "reinvestment_rate": "0.12"}), "0.126094130366"),
            ("nper", json!({"rate": "0.07", "periods_per_year": 12, "pmt": "-150", "pv": "8000"}), "64.073348770662"),
            ("nper", json!({"rate": "0", "pmt": "-150", "pv": "600"}), "4.000000000000"),
        ] {
            assert!(holds(name, &input, &json!({"value": value})), "{name} {value}");
            let digits: BigInt = value.replace('.', "").parse().expect("digits");
            for moved in [&digits + 1u32, &digits - 1u32] {
                let moved = format_scaled(&moved, DIGITS);
                assert!(!holds(name, &input, &json!({"value": moved})), "{name} {moved}");
            }
            assert!(!holds(name, &input, &json!({"value": null})), "{name} null");
        }
    }

    #[test]
    fn input_out_of_bounds_gives_no_opinion_and_no_panic() {
        let flows = json!(["-1", "2"]);
        for (name, input) in [
            ("npv", json!({"rate": "-1", "flows": flows})),
            ("pmt", json!({"rate": "0.1", "periods_per_year": 0, "periods": 3, "pv": "1"})),
            ("pv", json!({"rate": "-1", "periods": 3, "pmt": "1"})),
            ("fv", json!({"rate": "0.1", "periods": 1_000_000_000, "pmt": "1"})),
            ("nper", json!({"rate": "-2", "pmt": "1", "pv": "1"})),
            ("mirr", json!({"flows": flows, "finance_rate": "-1", "reinvestment_rate": "0"})),
            ("amortisation", json!({"rate": "0.1", "periods": 0, "pv": "1"})),
            ("irr", json!({"flows": [1, 2]})),
            ("xirr", json!({"flows": flows})),
        ] {
            assert!(check_calculator(name, &input, &json!({"value": "1.000000000000"})).is_err(), "{name} {input}");
        }
    }

    #[test]
    fn what_has_no_value_is_null() {
        let never = json!({"rate": "0.1", "pmt": "0", "pv": "100", "fv": "50"});
        assert!(holds("nper", &never, &json!({"value": null})));
        let gains = json!({"flows": ["1", "2"], "finance_rate": "0", "reinvestment_rate": "0"});
        assert!(holds("mirr", &gains, &json!({"value": null})));
        assert!(!holds("mirr", &gains, &json!({"value": "0.000000000000"})));
    }

    #[test]
    fn all_roots_are_asked_for_each_in_its_place() {
        let input = json!({"flows": ["-5", "10.5", "1", "-8", "1"]});
        let irr = |roots: &[&str]| holds("irr", &input, &json!({"roots": roots}));
        let found = ["-0.870201247485", "0.088598338528", "0.709559527686"];
        assert!(irr(&found));
        assert!(
            !irr(&["-0.870201247", "0.088598339", "0.709559528"])
                && !irr(&found[..2])
                && !irr(&[found[0], found[2], found[1]])
        );
        assert!(holds("irr", &json!({"flows": ["-100", "110"]}), &json!({"roots": ["0.100000000000"]})));
        assert!(holds("irr", &json!({"flows": ["-100", "110", "0"]}), &json!({"roots": ["0.100000000000"]})));
        assert!(!holds("irr", &json!({"flows": ["-100", "110"]}), &json!({"roots": ["0.100000000001"]})));
        assert!(holds("irr", &json!({"flows": ["100", "110"]}), &json!({"roots": []})));
        assert!(holds("irr", &json!({"flows": ["0", "0"]}), &json!({"roots": []})));
        // (q - 2)²: one root that the curve only touches.
        assert!(holds("irr", &json!({"flows": ["1", "-4", "4"]}), &json!({"roots": ["1.000000000000"]})));
    }

    #[test]
    fn a_schedule_is_held_row_by_row() {
        let input = json!({"rate": "0.1", "periods": 2, "pv": "210"});
        let answer = json!({"payment": "-121.000000000000", "total_paid": "-242.000000000000",
            "total_interest": "-32.000000000000", "rows": [
            {"period": 1, "interest": "-21.000000000000", "principal": "-100.000000000000", "balance": "110.000000000000"},
            {"period": 2, "interest": "-11.000000000000", "principal": "-110.000000000000", "balance": "0.000000000000"}]});
        assert!(holds("amortisation", &input, &answer));
        let mut wrong = answer.clone();
        wrong["rows"][1]["interest"] = json!("-11.000000000001");
        assert!(!holds("amortisation", &input, &wrong));
        wrong["rows"] = json!([]);
        assert!(!holds("amortisation", &input, &wrong));
    }
}
