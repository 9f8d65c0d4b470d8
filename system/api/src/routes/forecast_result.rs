//! What a forecast comes to, for the document. Written by the forecast crate; how each figure is made and
//! rounded stands in its `MODEL.md`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::texts::{CurrencyCode, MonthText, ResultAmount, ResultRatio, ResultUnits, ShortText};

macro_rules! parts {
    ($($(#[$meta:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Serialize, ToSchema)]
            #[allow(dead_code, reason = "documents the answer, which the forecast crate writes")]
            pub(crate) struct $name { $($(#[$of_field])* $field: $kind,)* }
        )*
    };
}

parts! {
    /// A forecast's result. Amounts are strings in the currency's digits.
    ForecastResult {
        /// Changes whenever the result of some input would.
        #[schema(example = "1")]
        engine_version: String,
        currency: CurrencyCode,
        /// Every month of the horizon.
        months: Vec<ResultMonth>,
        /// Every calendar year of the horizon.
        years: Vec<ResultYear>,
        totals: ResultFlows,
        npv_end_of_month: ResultAmount,
        /// The first month that does not lose money; null where there is none.
        break_even_month_index: Option<u32>,
        /// The first month that ends without cash; null where there is none.
        runway_months: Option<u32>,
        /// Null where the input has none.
        uncertainty: Option<ResultUncertainty>,
    }
    /// One month.
    ResultMonth {
        month: MonthText,
        revenue: ResultAmount,
        costs: ResultAmount,
        ebitda: ResultAmount,
        tax: ResultAmount,
        net_income: ResultAmount,
        collected: ResultAmount,
        net_cash: ResultAmount,
        /// At the month's end.
        cash: ResultAmount,
        /// In the input's order.
        revenue_lines: Vec<ResultRevenueLine>,
        /// In the input's order.
        cost_lines: Vec<ResultCostLine>,
    }
    /// One calendar year, as far as it lies in the horizon.
    ResultYear {
        year: i32,
        revenue: ResultAmount,
        costs: ResultAmount,
        ebitda: ResultAmount,
        tax: ResultAmount,
        net_income: ResultAmount,
        collected: ResultAmount,
        net_cash: ResultAmount,
    }
    /// All months together.
    ResultFlows {
        revenue: ResultAmount,
        costs: ResultAmount,
        ebitda: ResultAmount,
        tax: ResultAmount,
        net_income: ResultAmount,
        collected: ResultAmount,
        net_cash: ResultAmount,
    }
    /// One revenue line in one month.
    ResultRevenueLine {
        name: ShortText,
        units: ResultUnits,
        amount: ResultAmount,
    }
    /// One cost line in one month.
    ResultCostLine {
        /// A headcount line's role.
        name: ShortText,
        amount: ResultAmount,
    }
    /// What the simulated paths come to.
    ResultUncertainty {
        paths: u32,
        /// Of every month.
        revenue: Vec<ResultSpread>,
        /// At the end of every month.
        cash: Vec<ResultSpread>,
        /// Share of the paths that end some month without cash.
        probability_cash_negative: ResultRatio,
    }
    /// How an amount spreads over the paths.
    ResultSpread {
        p5: ResultAmount,
        p25: ResultAmount,
        p50: ResultAmount,
        p75: ResultAmount,
        p95: ResultAmount,
        mean: ResultAmount,
        /// Of the mean, with six digits more.
        standard_error: ResultAmount,
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;
    use serde_json::{Value, json};

    /// Holds a value against a schema of the document: every field named, none missing, every text of its form.
    fn hold(document: &Value, schema: &Value, value: &Value, at: &str) {
        if let Some(name) = schema["$ref"].as_str() {
            return hold(document, document.pointer(&name[1..]).unwrap(), value, at);
        }
        if let Some(forms) = schema["oneOf"].as_array() {
            let is_null = |form: &&Value| form["type"] == "null";
            let form = forms.iter().find(|form| is_null(form) == value.is_null());
            return hold(document, form.unwrap_or_else(|| panic!("{at}: {value}")), value, at);
        }
        match value {
            Value::Object(members) => {
                let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{at}: {schema}"));
                let mut names: [Vec<_>; 2] = [members.keys().collect(), properties.keys().collect()];
                names.iter_mut().for_each(|names| names.sort());
                assert_eq!(names[0], names[1], "{at}");
                for (name, member) in members {
                    hold(document, &properties[name], member, &format!("{at}/{name}"));
                }
            }
            Value::Array(items) => {
                items.iter().for_each(|item| hold(document, &schema["items"], item, &format!("{at}/*")))
            }
            Value::String(text) => {
                assert_eq!(schema["type"], "string", "{at}");
                let pattern = schema["pattern"].as_str().map(|pattern| Regex::new(pattern).unwrap());
                assert!(pattern.is_none_or(|pattern| pattern.is_match(text)), "{at}: {text} is not {schema}");
                let words = schema["enum"].as_array();
                assert!(words.is_none_or(|words| words.contains(value)), "{at}: {text} is not {schema}");
            }
            Value::Number(_) => assert!(schema["type"].to_string().contains("integer"), "{at}: {schema}"),
            Value::Null => assert!(schema["type"].to_string().contains("null"), "{at}: {schema}"),
            Value::Bool(_) => panic!("{at}: {value}"),
        }
    }

    fn input(currency: &str, uncertainty: &Value) -> Value {
        json!({
            "currency": currency, "start_month": "2026-11", "horizon_months": 15, "opening_cash": "-1.5",
            "discount_rate_annual": "0.08", "tax_rate": "0.25",
            "revenue": [{
                "name": "Seats", "opening_units": "100", "adds_per_month": "10", "adds_growth_monthly": "0.01",
                "churn_monthly": "0.02", "price": "25", "price_growth_annual": "0.03", "collection_lag_months": 1,
            }],
            "costs": [{"kind": "one_off", "name": "Desk", "amount": "10000000", "month": "2027-01"}],
            "uncertainty": uncertainty,
        })
    }

    #[test]
    fn a_result_has_the_form_that_the_document_gives_it() {
        let document: Value = serde_json::from_str(&crate::openapi::openapi()).unwrap();
        let schema = &document["components"]["schemas"]["ForecastResult"];
        let sigma =
            |sigma: &str| json!({"paths": 50, "price_sigma_monthly": sigma, "adds_sigma_monthly": "0", "seed": "7"});
        for currency in ["USD", "JPY", "KWD"] {
            for uncertainty in [Value::Null, sigma("0"), sigma("0.1")] {
                let outcome = forecastle_forecast::run(&input(currency, &uncertainty), 1, &|| false).unwrap();
                hold(&document, schema, &outcome.result, "");
            }
        }
    }
}
