//! The rules of the month, one by one, with figures small enough to check by hand.

use serde_json::{Value, json};

use crate::scenario::{computed, empty, flat_revenue, monthly, text, with};

fn with_cost(cost: Value) -> Value {
    with(&empty(), "/costs", json!([cost]))
}

fn with_revenue(change: &[(&str, Value)]) -> Value {
    let line =
        change.iter().fold(flat_revenue(), |line, (field, value)| with(&line, &format!("/{field}"), value.clone()));
    with(&empty(), "/revenue", json!([line]))
}

#[test]
fn churn_comes_before_the_adds() {
    let input = with_revenue(&[
        ("opening_units", json!("100")),
        ("churn_monthly", json!("0.1")),
        ("adds_per_month", json!("10")),
        ("adds_growth_monthly", json!("0.5")),
    ]);
    let units = monthly(&computed(&input).result, "/revenue_lines/0/units")[..3]
        .iter()
        .map(|s| (*s).to_owned())
        .collect::<Vec<_>>();
    assert_eq!(units, ["100.000000", "105.000000", "117.000000"]);
}

#[test]
fn prices_step_every_twelfth_month_of_the_scenario() {
    let input = with(&with_revenue(&[("price_growth_annual", json!("0.1"))]), "/horizon_months", json!(25));
    let input = with(&input, "/start_month", json!("2024-07"));
    let result = computed(&input).result;
    let revenue = monthly(&result, "/revenue");
    assert_eq!(
        [revenue[0], revenue[11], revenue[12], revenue[23], revenue[24]],
        ["1.00", "1.00", "1.10", "1.10", "1.21"]
    );
}

#[test]
fn seasons_follow_the_calendar_not_the_horizon() {
    let factors: Vec<String> =
        (0..12).map(|m| m.to_string()).map(|m| if m.len() > 1 { format!("1.{m}") } else { m }).collect();
    let input = with(&with_revenue(&[("seasonality", json!(factors))]), "/start_month", json!("2023-11"));
    assert_eq!(monthly(&computed(&input).result, "/revenue")[..4], ["1.10", "1.11", "0.00", "1.00"]);
}

#[test]
fn a_lag_delays_money_and_not_revenue() {
    let input = with(&with_revenue(&[("collection_lag_months", json!(2))]), "/horizon_months", json!(4));
    let result = computed(&input).result;
    assert_eq!(monthly(&result, "/revenue"), ["1.00"; 4]);
    assert_eq!(monthly(&result, "/collected"), ["0.00", "0.00", "1.00", "1.00"]);
    assert_eq!(text(&result, "/totals/collected"), "2.00");
}

#[test]
fn half_a_cent_of_a_share_of_a_salary_goes_to_the_even_cent() {
    // 0.70 / 12 × 18/30 = 0.035 exactly.
    let hired = |day: &str| {
        let cost =
            json!({ "kind": "headcount", "role": "r", "annual_salary": "0.70", "burden_rate": "0", "start_date": day });
        monthly(&computed(&with_cost(cost)).result, "/costs")[3].to_owned()
    };
    assert_eq!(hired("2024-04-13"), "0.04");
    // 0.30 / 12 × 30/30 = 0.025.
    let whole = json!({ "kind": "headcount", "role": "r", "annual_salary": "0.30", "burden_rate": "0", "start_date": "2024-04-01" });
    assert_eq!(monthly(&computed(&with_cost(whole)).result, "/costs")[3], "0.02");
}

#[test]
fn headcount_counts_both_ends_and_leap_days() {
    let cost = json!({ "kind": "headcount", "role": "r", "annual_salary": "34800", "burden_rate": "0.5",
        "start_date": "2024-02-29", "end_date": "2024-04-15" });
    let input = with_cost(cost);
    // 34800 / 12 × 1.5 = 4350 a month: 1/29, then whole, then 15/30.
    assert_eq!(
        monthly(&computed(&input).result, "/costs")[..6],
        ["0.00", "150.00", "4350.00", "2175.00", "0.00", "0.00"]
    );
    let common = with(&with(&input, "/costs/0/start_date", json!("2023-02-28")), "/start_month", json!("2023-02"));
    assert_eq!(monthly(&computed(&common).result, "/costs")[..2], ["155.36", "4350.00"]);
}

#[test]
fn a_fixed_line_counts_its_years_from_its_own_start() {
    let cost = json!({ "kind": "fixed", "name": "f", "amount": "100", "growth_annual": "0.1", "start_month": "2022-03", "end_month": "2024-04" });
    assert_eq!(
        monthly(&computed(&with_cost(cost)).result, "/costs")[..5],
        ["110.00", "110.00", "121.00", "121.00", "0.00"]
    );
    let later =
        json!({ "kind": "fixed", "name": "f", "amount": "100", "growth_annual": "0.1", "start_month": "2024-11" });
    assert_eq!(monthly(&computed(&with_cost(later)).result, "/costs")[9..], ["0.00", "100.00", "100.00"]);
    let open = json!({ "kind": "fixed", "name": "f", "amount": "100", "growth_annual": "0.1" });
    let two_years = with(&with_cost(open), "/horizon_months", json!(13));
    assert_eq!(monthly(&computed(&two_years).result, "/costs")[11..], ["100.00", "110.00"]);
}

#[test]
fn lines_outside_the_horizon_have_no_effect() {
    let costs = json!([
        { "kind": "fixed", "name": "past", "amount": "9", "growth_annual": "0", "start_month": "2001-01", "end_month": "2023-12" },
        { "kind": "fixed", "name": "ended before the scenario", "amount": "9", "growth_annual": "0", "end_month": "2023-12" },
        { "kind": "fixed", "name": "future", "amount": "9", "growth_annual": "0", "start_month": "2025-01" },
        { "kind": "one_off", "name": "past", "amount": "9", "month": "2023-12" },
        { "kind": "one_off", "name": "future", "amount": "9", "month": "2025-01" },
        { "kind": "headcount", "role": "past", "annual_salary": "9", "burden_rate": "0", "start_date": "2000-01-01", "end_date": "2023-12-31" },
        { "kind": "headcount", "role": "future", "annual_salary": "9", "burden_rate": "0", "start_date": "2025-01-01" },
    ]);
    assert_eq!(text(&computed(&with(&empty(), "/costs", costs)).result, "/totals/costs"), "0.00");
}

#[test]
fn losses_pay_no_tax() {
    let input = with(&with_revenue(&[("price", json!("100"))]), "/tax_rate", json!("0.3"));
    let cost = json!([{ "kind": "one_off", "name": "o", "amount": "150", "month": "2024-02" }, { "kind": "percent_of_revenue", "name": "p", "rate": "0.2" }]);
    let result = computed(&with(&with(&input, "/costs", cost), "/horizon_months", json!(2))).result;
    assert_eq!(monthly(&result, "/ebitda"), ["80.00", "-70.00"]);
    assert_eq!(monthly(&result, "/tax"), ["24.00", "0.00"]);
    assert_eq!(monthly(&result, "/net_income"), ["56.00", "-70.00"]);
    assert_eq!(monthly(&result, "/cash"), ["56.00", "-14.00"]);
    assert_eq!(result["runway_months"], json!(1));
    assert_eq!(result["break_even_month_index"], json!(0));
}

#[test]
fn totals_are_summed_before_they_are_rounded() {
    let result = computed(&with_revenue(&[("price", json!("0.004"))])).result;
    assert_eq!(monthly(&result, "/revenue"), ["0.00"; 12]);
    assert_eq!(text(&result, "/totals/revenue"), "0.05");
    assert_eq!(text(&result, "/years/0/revenue"), "0.05");
}

#[test]
fn runway_and_break_even_look_at_unrounded_values() {
    let cost = json!({ "kind": "fixed", "name": "f", "amount": "0.000000000001", "growth_annual": "0" });
    let result = computed(&with_cost(cost)).result;
    assert_eq!(monthly(&result, "/cash")[0], "0.00");
    assert_eq!((&result["runway_months"], &result["break_even_month_index"]), (&json!(0), &Value::Null));
    let nothing = computed(&empty()).result;
    assert_eq!((&nothing["runway_months"], &nothing["break_even_month_index"]), (&Value::Null, &json!(0)));
}

#[test]
fn years_follow_the_calendar() {
    let input = with(&with(&with_revenue(&[]), "/start_month", json!("2023-11")), "/horizon_months", json!(15));
    let result = computed(&input).result;
    let years: Vec<_> = result["years"]
        .as_array()
        .unwrap()
        .iter()
        .map(|y| (y["year"].as_i64().unwrap(), text(y, "/revenue")))
        .collect();
    assert_eq!(years, [(2023, "2.00"), (2024, "12.00"), (2025, "1.00")]);
    assert_eq!(text(&result, "/months/14/month"), "2025-01");
}

#[test]
fn npv_discounts_the_first_month_once() {
    let input = with(&with_revenue(&[("price", json!("1212"))]), "/discount_rate_annual", json!("0.12"));
    let two = with(&input, "/horizon_months", json!(2));
    // 1212 / 1.01 + 1212 / 1.0201 = 1200 + 1188.1188…
    assert_eq!(text(&computed(&two).result, "/npv_end_of_month"), "2388.12");
}

#[test]
fn every_currency_prints_its_own_digits() {
    for (currency, printed) in
        [("USD", "1234.57"), ("EUR", "1234.57"), ("GBP", "1234.57"), ("JPY", "1235"), ("KWD", "1234.568")]
    {
        let input = with(&with_revenue(&[("price", json!("1234.5678"))]), "/currency", json!(currency));
        let result = computed(&input).result;
        assert_eq!((text(&result, "/currency"), text(&result, "/months/0/revenue")), (currency, printed));
    }
}

#[test]
fn a_rounded_away_loss_is_not_minus_zero() {
    let cost = json!({ "kind": "one_off", "name": "f", "amount": "0.004", "month": "2024-01" });
    let result = computed(&with_cost(cost)).result;
    assert_eq!(text(&result, "/months/0/ebitda"), "0.00");
    assert!(!result.to_string().contains("\"-0.00\""));
}

#[test]
fn the_result_has_exactly_the_documented_fields() {
    let result = computed(&with_cost(json!({ "kind": "percent_of_revenue", "name": "p", "rate": "0" }))).result;
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(
        keys(&result),
        "engine_version currency months years totals npv_end_of_month break_even_month_index runway_months uncertainty"
    );
    assert_eq!(
        keys(&result["months"][0]),
        "month revenue costs ebitda tax net_income collected net_cash cash revenue_lines cost_lines"
    );
    assert_eq!(keys(&result["years"][0]), "year revenue costs ebitda tax net_income collected net_cash");
    assert_eq!(keys(&result["totals"]), "revenue costs ebitda tax net_income collected net_cash");
    assert_eq!(keys(&result["months"][0]["cost_lines"][0]), "name amount");
}
