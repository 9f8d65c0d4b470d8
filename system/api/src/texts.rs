//! Forms of text that bodies are made of, for the document: what is accepted of each, to the character.
//!
//! Not for reading: that is done field by field, where every wrong one is named. The patterns say the same
//! bounds; a test holds them against the readers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! texts {
    ($($(#[$meta:meta])* $name:ident;)*) => {
        $(
            #[derive(Deserialize, Serialize, ToSchema)]
            $(#[$meta])*
            #[allow(dead_code, reason = "documents a field, which is read otherwise")]
            pub(crate) struct $name(String);
        )*
    };
}

texts! {
    /// 1 to 200 characters, none of them a control character.
    #[schema(min_length = 1, max_length = 200, pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$", example = "Seats")]
    ShortText;
    /// An e-mail address in ASCII, at most 254 characters, 64 of them before the @; none below `.invalid`.
    #[schema(format = "email", max_length = 254, example = "ada@example.com",
        pattern = r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")]
    EmailText;
    /// A decimal from 0 to 1, at most 12 digits after the point.
    #[schema(pattern = r"^(-?0(\.0{1,12})?|0\.[0-9]{1,12}|1(\.0{1,12})?)$", example = "0.25")]
    Share;
    /// A decimal from 0 to 2, at most 12 digits after the point.
    #[schema(pattern = r"^(-?0(\.0{1,12})?|[01](\.[0-9]{1,12})?|2(\.0{1,12})?)$", example = "0.05")]
    Sigma;
    /// A decimal from 0 to 10, at most 12 digits after the point.
    #[schema(pattern = r"^(-?0(\.0{1,12})?|[0-9](\.[0-9]{1,12})?|10(\.0{1,12})?)$", example = "1.2")]
    Factor;
    /// A decimal from -0.99 to 1, at most 12 digits after the point.
    #[schema(pattern = r"^(-?0(\.0{1,12})?|0\.[0-9]{1,12}|1(\.0{1,12})?|-0\.([0-8][0-9]{0,11}|9([0-8][0-9]{0,10}|90{0,10})?))$", example = "0.03")]
    Growth;
    /// A decimal from -0.99 to 10, at most 12 digits after the point: a rate of a period, or of a year.
    #[schema(pattern = r"^(-?0(\.0{1,12})?|[0-9](\.[0-9]{1,12})?|10(\.0{1,12})?|-0\.([0-8][0-9]{0,11}|9([0-8][0-9]{0,10}|90{0,10})?))$", example = "0.08")]
    RateText;
    /// A decimal from 0 to 10^9, at most 12 digits after the point.
    #[schema(pattern = r"^(-?0(\.0{1,12})?|(0|[1-9][0-9]{0,8})(\.[0-9]{1,12})?|1000000000(\.0{1,12})?)$", example = "100")]
    Units;
    /// A decimal from 0 to 10^12, at most 12 digits after the point.
    #[schema(pattern = r"^(-?0(\.0{1,12})?|(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?|1000000000000(\.0{1,12})?)$", example = "2500.00")]
    Amount;
    /// A decimal from -10^12 to 10^12, at most 12 digits after the point.
    #[schema(pattern = r"^-?((0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?|1000000000000(\.0{1,12})?)$", example = "-1500.50")]
    MoneyText;
    /// A month of the years 0001 to 9999.
    #[schema(pattern = r"^([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-(0[1-9]|1[0-2])$", example = "2026-07")]
    MonthText;
    /// A month from 1970-01 to 2199-12.
    #[schema(pattern = r"^(19[7-9][0-9]|2[01][0-9]{2})-(0[1-9]|1[0-2])$", example = "2026-01")]
    StartMonth;
    /// A day that exists, of the years 0001 to 9999.
    #[schema(format = "date", pattern = r"^([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$", example = "2026-03-15")]
    DayText;
    /// A whole number from 0 to 2^64 - 1.
    #[schema(pattern = r"^(0|[1-9][0-9]{0,18}|1[0-7][0-9]{18}|18[0-3][0-9]{17}|184[0-3][0-9]{16}|1844[0-5][0-9]{15}|18446[0-6][0-9]{14}|184467[0-3][0-9]{13}|1844674[0-3][0-9]{12}|184467440[0-6][0-9]{10}|1844674407[0-2][0-9]{9}|18446744073[0-6][0-9]{8}|1844674407370[0-8][0-9]{6}|18446744073709[0-4][0-9]{5}|184467440737095[0-4][0-9]{4}|18446744073709550[0-9]{3}|18446744073709551[0-5][0-9]{2}|1844674407370955160[0-9]|1844674407370955161[0-5])$", example = "42")]
    SeedText;
    /// An amount of a result: as many digits after the point as the currency has, six more in a standard error.
    #[schema(pattern = r"^-?(0|[1-9][0-9]*)(\.([0-9]{2}|[0-9]{3}|[0-9]{6}|[0-9]{8}|[0-9]{9}))?$", example = "1234.50")]
    ResultAmount;
    /// Units of a result: six digits after the point.
    #[schema(pattern = r"^-?(0|[1-9][0-9]*)\.[0-9]{6}$", example = "110.656600")]
    ResultUnits;
    /// From 0 to 1, six digits after the point.
    #[schema(pattern = r"^(0\.[0-9]{6}|1\.000000)$", example = "0.042500")]
    ResultRatio;
}

/// ISO 4217.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(dead_code, reason = "documents a field, which is read otherwise")]
#[schema(example = "EUR")]
pub(crate) enum CurrencyCode {
    Usd,
    Eur,
    Gbp,
    Jpy,
    Kwd,
}

/// What a customer pays for.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(dead_code, reason = "documents a field, which is read otherwise")]
#[schema(example = "STARTER")]
pub(crate) enum PlanName {
    Free,
    Starter,
    Pro,
}

/// What a user may do.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents a field, which is read otherwise")]
#[schema(example = "editor")]
pub(crate) enum RoleName {
    Owner,
    Editor,
    Viewer,
}

#[cfg(test)]
mod tests {
    use forecastle_forecast::{Calculator, validate};
    use regex::Regex;
    use serde_json::{Value, json};

    /// A form's pattern, as the document has it.
    fn pattern_of(name: &str) -> Regex {
        let document: Value = serde_json::from_str(&crate::openapi::openapi()).unwrap();
        let schema = &document["components"]["schemas"][name];
        Regex::new(schema["pattern"].as_str().unwrap_or_else(|| panic!("{name} has no pattern"))).unwrap()
    }

    /// A scenario in which every form stands somewhere.
    fn scenario(at: &str, text: &str) -> Value {
        let mut input = json!({
            "currency": "EUR", "start_month": "2026-01", "horizon_months": 12, "opening_cash": "0",
            "discount_rate_annual": "0", "tax_rate": "0",
            "revenue": [{
                "name": "Seats", "opening_units": "0", "adds_per_month": "0", "adds_growth_monthly": "0",
                "churn_monthly": "0", "price": "0", "price_growth_annual": "0", "collection_lag_months": 0,
            }],
            "costs": [
                {"kind": "fixed", "name": "Rent", "amount": "0", "growth_annual": "0"},
                {"kind": "percent_of_revenue", "name": "Fees", "rate": "0"},
                {"kind": "headcount", "role": "Clerk", "annual_salary": "0", "burden_rate": "0", "start_date": "2026-01-01"},
                {"kind": "one_off", "name": "Desk", "amount": "0", "month": "2026-01"},
            ],
            "uncertainty": {"paths": 1, "price_sigma_monthly": "0", "adds_sigma_monthly": "0", "seed": "0"},
        });
        assert!(validate(&input).is_ok());
        *input.pointer_mut(at).unwrap() = text.into();
        input
    }

    #[test]
    fn a_pattern_takes_exactly_what_the_reader_takes() {
        let wholes = ["0", "1", "2", "9", "10", "11", "99", "1000000000", "999999999", "1000000001", "999999999999"];
        let far = [
            "1000000000000",
            "1000000000001",
            "9999999999999",
            "01",
            "00",
            "",
            "+1",
            "1e3",
            " 1",
            "1 ",
            "\u{661}",
            ".",
        ];
        let fractions = [
            "",
            ".",
            ".0",
            ".5",
            ".9",
            ".98",
            ".99",
            ".990",
            ".991",
            ".000000000000",
            ".000000000001",
            ".989999999999",
            ".0000000000000",
        ];
        let decimals: Vec<String> = ["", "-"]
            .iter()
            .flat_map(|sign| wholes.iter().chain(&far).map(move |whole| format!("{sign}{whole}")))
            .flat_map(|whole| fractions.map(|fraction| format!("{whole}{fraction}")))
            .collect();
        let months = [
            "0000-01", "0001-01", "1969-12", "1970-01", "2026-00", "2026-13", "2026-1", "2199-12", "2200-01",
            "9999-12", "10000-01",
        ];
        let days = [
            "0000-01-01",
            "0001-01-01",
            "2026-00-10",
            "2026-10-00",
            "2026-01-32",
            "2026-12-31",
            "2026-1-01",
            "9999-12-31",
        ];
        let seeds = [
            "0",
            "00",
            "01",
            "-1",
            "7",
            "9999999999999999999",
            "18446744073709551614",
            "18446744073709551615",
            "18446744073709551616",
            "18446744073709551620",
            "18446744073709551700",
            "18446744073709552000",
            "18446744073710000000",
            "18446744080000000000",
            "18446745000000000000",
            "18500000000000000000",
            "20000000000000000000",
            "100000000000000000000",
        ];
        let longest = "\u{fc}".repeat(200);
        let names = [
            "",
            "a",
            " ",
            &longest,
            &format!("{longest}a"),
            "a\nb",
            "\u{7f}",
            "\u{9f}",
            "\u{a0}",
            "\u{1f}",
            "\u{1f600}",
        ];
        let as_given = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();

        let forms = [
            ("Share", "/tax_rate", decimals.clone()),
            ("Sigma", "/uncertainty/adds_sigma_monthly", decimals.clone()),
            ("Factor", "/costs/1/rate", decimals.clone()),
            ("Growth", "/revenue/0/adds_growth_monthly", decimals.clone()),
            ("Units", "/revenue/0/price", decimals.clone()),
            ("Amount", "/costs/0/amount", decimals.clone()),
            ("MoneyText", "/opening_cash", decimals.clone()),
            ("StartMonth", "/start_month", as_given(&months)),
            ("MonthText", "/costs/3/month", as_given(&months)),
            ("DayText", "/costs/2/start_date", as_given(&days)),
            ("SeedText", "/uncertainty/seed", as_given(&seeds)),
            ("ShortText", "/revenue/0/name", as_given(&names)),
        ];
        for (name, at, texts) in forms {
            let pattern = pattern_of(name);
            let fits = |text: &str| name != "ShortText" || (1..=200).contains(&text.chars().count());
            let mut taken = 0;
            for text in texts {
                let is_read = validate(&scenario(at, &text)).is_ok();
                assert_eq!(pattern.is_match(&text) && fits(&text), is_read, "{name} {text:?}");
                taken += usize::from(is_read);
            }
            assert!(taken >= 2, "{name}: {taken}");
        }
        let pattern = pattern_of("RateText");
        for text in decimals {
            let is_read = Calculator::Npv.evaluate(&json!({"rate": text, "flows": ["0"]})).is_ok();
            assert_eq!(pattern.is_match(&text), is_read, "rate {text:?}");
        }
    }

    #[test]
    fn an_address_is_described_as_it_is_read() {
        let pattern = pattern_of("EmailText");
        let label = "b".repeat(63);
        let texts = [
            "a@b.c",
            "Ada.L+x@Example.CO.uk",
            "!#$%&'*+-/=?^_`{|}~@a.b",
            &format!("a@{label}.c"),
            &format!("a@{label}b.c"),
            "",
            "a",
            "@b.c",
            "a@",
            "a@b",
            "a@@b.c",
            "a@b..c",
            ".a@b.c",
            "a.@b.c",
            "a b@c.d",
            " a@b.c",
            "a@b.c\n",
            "a@-b.c",
            "a@b-.c",
            "\u{e4}@b.c",
            "a@b@c.d",
            "\"a\"@b.c",
            "a@b.c.",
        ];
        for text in texts {
            assert_eq!(pattern.is_match(text), forecastle_domain::Email::parse(text).is_ok(), "{text:?}");
        }
    }
}
