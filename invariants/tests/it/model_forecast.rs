//! Forecasts worked out by hand, and identities that need no reference.

use nogo_invariants::model::{
    AMOUNT_OUT_OF_RANGE, Expected, OracleError, compare, compare_failure, forecast, forecast_as,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A scenario without lines: EUR, from `start`, `horizon` months.
fn scenario(start: &str, horizon: u32) -> Value {
    json!({
        "currency": "EUR", "start_month": start, "horizon_months": horizon,
        "opening_cash": "0", "discount_rate_annual": "0", "tax_rate": "0",
        "revenue": [], "costs": []
    })
}

/// A revenue line of `units` that stay, at `price`.
fn flat(name: &str, units: &str, price: &str) -> Value {
    json!({
        "name": name, "opening_units": units, "adds_per_month": "0", "adds_growth_monthly": "0",
        "churn_monthly": "0", "price": price, "price_growth_annual": "0",
        "collection_lag_months": 0
    })
}

fn result(input: &Value) -> Value {
    match forecast(input).expect("a readable input") {
        Expected::Result(result) => result,
        Expected::Failed { code } => panic!("failed with {code}"),
    }
}

fn months(result: &Value, field: &str) -> Vec<String> {
    let months = result["months"].as_array().expect("months");
    months.iter().map(|month| month[field].as_str().expect("an amount").to_owned()).collect()
}

fn at<'a>(result: &'a Value, pointer: &str) -> &'a str {
    let found = result.pointer(pointer);
    found.and_then(Value::as_str).expect(pointer)
}

#[test]
fn two_months_with_everything_in_them_agree_with_pencil_and_paper() {
    let input = json!({
        "currency": "USD", "start_month": "2025-12", "horizon_months": 2,
        "opening_cash": "100", "discount_rate_annual": "0.12", "tax_rate": "0.25",
        "revenue": [{
            "name": "seats", "opening_units": "100", "adds_per_month": "10",
            "adds_growth_monthly": "0.5", "churn_monthly": "0.1", "price": "2.5",
            "price_growth_annual": "0.2", "collection_lag_months": 1,
            "seasonality": ["2","1","1","1","1","1","1","1","1","1","1","0.5"]
        }],
        "costs": [
            {"kind": "fixed", "name": "rent", "amount": "20", "growth_annual": "0.1",
             "start_month": "2025-01"},
            {"kind": "percent_of_revenue", "name": "fees", "rate": "0.03"},
            {"kind": "headcount", "role": "clerk", "annual_salary": "1200", "burden_rate": "0.24",
             "start_date": "2025-12-17", "end_date": "2026-01-15"},
            {"kind": "one_off", "name": "desk", "amount": "33.335", "month": "2026-01"}
        ]
    });
    // units:   0: 100*0.9 + 10 = 100          1: 100*0.9 + 10*1.5 = 105
    // revenue: 0: 100*2.5*0.5 = 125           1: 105*2.5*2 = 525
    // rent:    0: k = 11, year 0: 20          1: k = 12, year 1: 22
    // fees:    0: 3.75                        1: 15.75
    // clerk:   1200/12*1.24 = 124 a month; 17th to 31st: 124*15/31 = 60, 1st to 15th: 60
    // desk:    0: 0                           1: 33.335 -> 33.34 (33.335 is a tie; 4 is even)
    // costs:   0: 83.75                       1: 22+15.75+60+33.335 = 131.085 -> 131.08
    // ebitda:  0: 41.25                       1: 393.915 -> 393.92
    // tax:     0: 10.3125 -> 10.31            1: 98.47875 -> 98.48
    // net:     0: 30.9375 -> 30.94            1: 295.43625 -> 295.44
    // collected: 0: 0                         1: 125
    // net_cash:  0: -83.75-10.3125 = -94.0625 -> -94.06   1: 125-131.085-98.47875 = -104.56375
    // cash:      0: 5.9375 -> 5.94            1: -98.62625 -> -98.63
    // npv: -94.0625/1.01 - 104.56375/1.0201 = -93.131188... - 102.503431... = -195.634619...
    let expected = json!({
        "currency": "USD",
        "months": [
            {"month": "2025-12", "revenue": "125.00", "costs": "83.75", "ebitda": "41.25",
             "tax": "10.31", "net_income": "30.94", "collected": "0.00", "net_cash": "-94.06",
             "cash": "5.94",
             "revenue_lines": [{"name": "seats", "units": "100.000000", "amount": "125.00"}],
             "cost_lines": [{"name": "rent", "amount": "20.00"}, {"name": "fees", "amount": "3.75"},
                            {"name": "clerk", "amount": "60.00"}, {"name": "desk", "amount": "0.00"}]},
            {"month": "2026-01", "revenue": "525.00", "costs": "131.08", "ebitda": "393.92",
             "tax": "98.48", "net_income": "295.44", "collected": "125.00", "net_cash": "-104.56",
             "cash": "-98.63",
             "revenue_lines": [{"name": "seats", "units": "105.000000", "amount": "525.00"}],
             "cost_lines": [{"name": "rent", "amount": "22.00"}, {"name": "fees", "amount": "15.75"},
                            {"name": "clerk", "amount": "60.00"}, {"name": "desk", "amount": "33.34"}]}
        ],
        "years": [
            {"year": 2025, "revenue": "125.00", "costs": "83.75", "ebitda": "41.25", "tax": "10.31",
             "net_income": "30.94", "collected": "0.00", "net_cash": "-94.06"},
            {"year": 2026, "revenue": "525.00", "costs": "131.08", "ebitda": "393.92", "tax": "98.48",
             "net_income": "295.44", "collected": "125.00", "net_cash": "-104.56"}
        ],
        // 214.835 -> 214.84 (tie, 4 even); 435.165 -> 435.16 (tie, 6 even); 108.79125; 326.37375;
        // -198.62625.
        "totals": {"revenue": "650.00", "costs": "214.84", "ebitda": "435.16", "tax": "108.79",
                   "net_income": "326.37", "collected": "125.00", "net_cash": "-198.63"},
        "npv_end_of_month": "-195.63",
        "break_even_month_index": 0,
        "runway_months": 1,
        "uncertainty": null
    });
    assert_eq!(result(&input), expected);
}

#[test]
fn half_a_salary_month_that_is_a_tie_goes_to_the_even_cent() {
    // 0.70 / 12 * 18/30 = 0.035 -> 0.04, where 28 significant digits see 0.03499...
    let mut input = scenario("2025-06", 1);
    input["costs"] = json!([{"kind": "headcount", "role": "r", "annual_salary": "0.70",
        "burden_rate": "0", "start_date": "2025-06-13"}]);
    assert_eq!(at(&result(&input), "/months/0/cost_lines/0/amount"), "0.04");
    // 0.50 / 12 * 18/30 = 0.025 -> 0.02.
    input["costs"][0]["annual_salary"] = json!("0.50");
    assert_eq!(at(&result(&input), "/months/0/cost_lines/0/amount"), "0.02");
}

#[test]
fn a_leap_day_is_a_working_day() {
    let hired = |start: &str| {
        let mut input = scenario(start, 1);
        input["costs"] = json!([{"kind": "headcount", "role": "r", "annual_salary": "10440",
            "burden_rate": "0", "start_date": format!("{start}-28")}]);
        at(&result(&input), "/months/0/costs").to_owned()
    };
    // 870 a month: 2 of 29 days = 60.00; 1 of 28 days = 31.0714...
    assert_eq!(hired("2024-02"), "60.00");
    assert_eq!(hired("2023-02"), "31.07");
}

#[test]
fn employment_outside_the_horizon_has_no_effect_and_one_day_is_one_day() {
    let mut input = scenario("2025-03", 3);
    let clerk = |from: &str, to: &str| {
        json!({"kind": "headcount", "role": "r", "annual_salary": "3720", "burden_rate": "0",
               "start_date": from, "end_date": to})
    };
    // 310 a month. 1 day of 31 = 10; of 30 = 10.33.
    input["costs"] = json!([
        clerk("2024-01-01", "2025-02-28"),
        clerk("2025-06-01", "2025-07-31"),
        clerk("2025-03-31", "2025-03-31"),
        clerk("2025-03-31", "2025-05-01"),
    ]);
    let result = result(&input);
    let line = |n: usize| -> Vec<&str> {
        (0..3).map(|t| at(&result, &format!("/months/{t}/cost_lines/{n}/amount"))).collect()
    };
    assert_eq!(line(0), ["0.00", "0.00", "0.00"]);
    assert_eq!(line(1), ["0.00", "0.00", "0.00"]);
    assert_eq!(line(2), ["10.00", "0.00", "0.00"]);
    assert_eq!(line(3), ["10.00", "310.00", "10.00"]);
}

#[test]
fn prices_grow_by_the_year_of_the_scenario_and_fixed_costs_by_their_own() {
    let mut input = scenario("2025-07", 25);
    input["revenue"] = json!([flat("a", "1", "100")]);
    input["revenue"][0]["price_growth_annual"] = json!("0.1");
    input["costs"] = json!([
        {"kind": "fixed", "name": "late", "amount": "10", "growth_annual": "1", "start_month": "2025-10",
         "end_month": "2027-01"},
        {"kind": "fixed", "name": "own", "amount": "10", "growth_annual": "1"},
    ]);
    let result = result(&input);
    let revenue = months(&result, "revenue");
    assert_eq!((&*revenue[11], &*revenue[12], &*revenue[24]), ("100.00", "110.00", "121.00"));
    let line = |n: usize, t: usize| at(&result, &format!("/months/{t}/cost_lines/{n}/amount"));
    // "late": from t = 3, doubled from t = 15, gone after 2027-01, which is t = 18.
    assert_eq!([2, 3, 14, 15, 18, 19].map(|t| line(0, t)), ["0.00", "10.00", "10.00", "20.00", "20.00", "0.00"]);
    assert_eq!([0, 11, 12, 24].map(|t| line(1, t)), ["10.00", "10.00", "20.00", "40.00"]);
}

#[test]
fn totals_are_sums_of_the_unrounded_months() {
    let mut input = scenario("2025-01", 3);
    input["revenue"] = json!([flat("a", "1", "0.005")]);
    let result = result(&input);
    // Each month 0.005 -> 0.00 (tie to even); the total 0.015 -> 0.02.
    assert_eq!(months(&result, "revenue"), ["0.00", "0.00", "0.00"]);
    assert_eq!(at(&result, "/totals/revenue"), "0.02");
    assert_eq!(at(&result, "/years/0/revenue"), "0.02");
}

#[test]
fn each_currency_is_written_with_its_own_digits_and_never_as_minus_zero() {
    for (currency, cash) in [("USD", "0.00"), ("JPY", "0"), ("KWD", "0.000")] {
        let mut input = scenario("2025-01", 1);
        input["currency"] = json!(currency);
        input["opening_cash"] = json!("-0.0001");
        let result = result(&input);
        assert_eq!(at(&result, "/months/0/cash"), cash);
        // Unrounded, the cash is below 0.
        assert_eq!(result["runway_months"], json!(0));
    }
}

#[test]
fn break_even_and_runway_are_null_where_they_never_come() {
    let mut input = scenario("2025-01", 3);
    input["opening_cash"] = json!("100");
    input["costs"] = json!([{"kind": "fixed", "name": "f", "amount": "50", "growth_annual": "0"}]);
    let losing = result(&input);
    assert_eq!(losing["break_even_month_index"], Value::Null);
    // 50, 0, -50: nought is not negative.
    assert_eq!(losing["runway_months"], json!(2));
    input["revenue"] = json!([flat("a", "1", "50")]);
    let even = result(&input);
    assert_eq!(even["break_even_month_index"], json!(0));
    assert_eq!(even["runway_months"], Value::Null);
}

#[test]
fn an_amount_may_reach_1e15_and_not_pass_it() {
    let mut input = scenario("2025-01", 1);
    input["revenue"] = json!([flat("a", "1000000000", "1000000")]);
    assert_eq!(at(&result(&input), "/months/0/revenue"), "1000000000000000.00");
    assert!(compare_failure(&input, AMOUNT_OUT_OF_RANGE).expect("readable").mismatches_total == 1);
    input["revenue"][0]["price"] = json!("1000000.000000000001");
    assert_eq!(forecast(&input), Ok(Expected::Failed { code: AMOUNT_OUT_OF_RANGE }));
    assert_eq!(compare_failure(&input, AMOUNT_OUT_OF_RANGE).expect("readable").mismatches_total, 0);
    assert_eq!(compare_failure(&input, "deadline").expect("readable").mismatches_total, 1);
    assert_eq!(compare(&input, &json!({})).expect("readable").mismatches_total, 1);
}

#[test]
fn wrong_input_is_named_by_its_pointer() {
    let cases: [(&str, Value, &str); 9] = [
        ("currency", json!("CHF"), "/currency"),
        ("start_month", json!("1969-12"), "/start_month"),
        ("horizon_months", json!(121), "/horizon_months"),
        ("opening_cash", json!(5), "/opening_cash"),
        ("tax_rate", json!("1.000000000001"), "/tax_rate"),
        ("discount_rate_annual", json!("0.0000000000001"), "/discount_rate_annual"),
        ("revenue", json!([{"name": "a"}]), "/revenue/0/opening_units"),
        ("costs", json!([{"kind": "bribe"}]), "/costs/0/kind"),
        ("uncertainty", json!({"paths": 0}), "/uncertainty/paths"),
    ];
    for (field, value, pointer) in cases {
        let mut input = scenario("2025-01", 2);
        input[field] = value;
        let refused = forecast(&input);
        let Err(OracleError::Input { pointer: found, .. }) = refused else {
            panic!("{field}: {refused:?}");
        };
        assert_eq!(found, pointer);
    }
    for nonsense in [json!(null), json!([]), json!("x")] {
        assert!(forecast(&nonsense).is_err());
    }
}

#[test]
fn the_engine_version_is_added_and_nothing_else() {
    let input = scenario("2025-01", 1);
    let Ok(Expected::Result(mut named)) = forecast_as(&input, "7") else {
        panic!("no result");
    };
    assert_eq!(named["engine_version"], json!("7"));
    named.as_object_mut().expect("an object").remove("engine_version");
    assert_eq!(named, result(&input));
}

/// `-25` becomes `-0.025`.
fn thousandths(count: i32) -> String {
    let sign = if count < 0 { "-" } else { "" };
    format!("{sign}0.{:03}", count.abs())
}

/// Any decimal of `whole` at most, with up to `digits` fractional digits.
fn decimal(whole: u64, digits: u32) -> impl Strategy<Value = String> {
    (0..=whole, 0..10u64.pow(digits))
        .prop_map(move |(whole, part)| format!("{whole}.{part:0>width$}", width = digits as usize))
}

prop_compose! {
    fn any_revenue()(
        units in decimal(9_999, 3), adds in decimal(99, 3), growth in -300..300i32,
        churn in decimal(0, 4), price in decimal(999, 4), yearly in decimal(0, 3),
        season in proptest::collection::vec(decimal(2, 2), 12), lag in 0..13u32,
    ) -> Value {
        json!({
            "name": "r", "opening_units": units, "adds_per_month": adds,
            "adds_growth_monthly": thousandths(growth), "churn_monthly": churn, "price": price,
            "price_growth_annual": yearly, "seasonality": season, "collection_lag_months": lag
        })
    }
}

fn any_cost() -> impl Strategy<Value = Value> {
    prop_oneof![
        (decimal(99_999, 3), decimal(0, 3), 1..13u32).prop_map(|(amount, growth, month)| json!({
            "kind": "fixed", "name": "f", "amount": amount, "growth_annual": growth,
            "start_month": format!("2024-{month:02}")
        })),
        decimal(0, 4).prop_map(|rate| json!({"kind": "percent_of_revenue", "name": "p", "rate": rate})),
        (decimal(99_999, 2), decimal(0, 4), 1..29u32).prop_map(|(salary, burden, day)| json!({
            "kind": "headcount", "role": "h", "annual_salary": salary, "burden_rate": burden,
            "start_date": format!("2025-02-{day:02}")
        })),
        decimal(9_999, 3).prop_map(|amount| json!({
            "kind": "one_off", "name": "o", "amount": amount, "month": "2025-03"
        })),
    ]
}

prop_compose! {
    fn any_scenario()(
        horizon in 1..40u32, cash in decimal(99_999, 2), discount in decimal(0, 3), tax in decimal(0, 3),
        revenue in proptest::collection::vec(any_revenue(), 0..4),
        costs in proptest::collection::vec(any_cost(), 0..5),
    ) -> Value {
        let mut input = scenario("2025-01", horizon);
        input["opening_cash"] = json!(cash);
        input["discount_rate_annual"] = json!(discount);
        input["tax_rate"] = json!(tax);
        input["revenue"] = json!(revenue);
        input["costs"] = json!(costs);
        input
    }
}

/// Every amount of the aggregates, lines and labels left out.
fn aggregates(result: &Value) -> Value {
    let mut result = result.clone();
    for month in result["months"].as_array_mut().expect("months") {
        let month = month.as_object_mut().expect("a month");
        month.remove("revenue_lines");
        month.remove("cost_lines");
    }
    result
}

/// `1.25` becomes `125`: the amount in hundredths.
fn hundredths(text: &str) -> i128 {
    text.replace('.', "").parse().expect("two fractional digits")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lines_may_be_permuted(input in any_scenario()) {
        let mut turned = input.clone();
        turned["revenue"].as_array_mut().expect("lines").reverse();
        turned["costs"].as_array_mut().expect("lines").reverse();
        prop_assert_eq!(aggregates(&result(&input)), aggregates(&result(&turned)));
    }

    #[test]
    fn a_line_may_be_split_in_two_equal_halves(input in any_scenario(), line in any_revenue()) {
        let mut whole = input.clone();
        whole["revenue"].as_array_mut().expect("lines").push(line.clone());
        let mut halved = line;
        // Halving the price is exact: four fractional digits become five.
        let price: f64 = halved["price"].as_str().expect("text").parse().expect("number");
        halved["price"] = json!(format!("{:.5}", price / 2.0));
        let mut split = input;
        let lines = split["revenue"].as_array_mut().expect("lines");
        lines.push(halved.clone());
        lines.push(halved);
        prop_assert_eq!(aggregates(&result(&whole)), aggregates(&result(&split)));
    }

    #[test]
    fn tenfold_money_in_a_currency_with_one_digit_less_prints_the_same_digits(input in any_scenario()) {
        // KWD has three fractional digits and USD two: the scenario in KWD, times 10, in USD
        // must print the same digits, for what scales in money.
        let mut kwd = input;
        kwd["currency"] = json!("KWD");
        let mut usd = kwd.clone();
        usd["currency"] = json!("USD");
        let ten = |value: &mut Value| {
            if let Some(text) = value.as_str() {
                let (whole, part) = text.split_once('.').expect("a point");
                *value = json!(format!("{whole}{}.{}", &part[..1], &part[1..]));
            }
        };
        ten(&mut usd["opening_cash"]);
        for line in usd["revenue"].as_array_mut().expect("lines") {
            ten(&mut line["price"]);
        }
        for line in usd["costs"].as_array_mut().expect("lines") {
            for field in ["amount", "annual_salary"] {
                if line.get(field).is_some() {
                    ten(&mut line[field]);
                }
            }
        }
        let (kwd, usd) = (result(&kwd), result(&usd));
        let plain = |text: &str| text.replace('.', "").parse::<i128>().expect("an amount");
        for field in ["revenue", "costs", "tax", "net_cash", "cash"] {
            let kwd: Vec<i128> = months(&kwd, field).iter().map(|text| plain(text)).collect();
            let usd: Vec<i128> = months(&usd, field).iter().map(|text| plain(text)).collect();
            prop_assert_eq!(kwd, usd, "{}", field);
        }
        prop_assert_eq!(plain(at(&kwd, "/npv_end_of_month")), plain(at(&usd, "/npv_end_of_month")));
    }

    #[test]
    fn cash_moves_by_the_sum_of_the_flows(input in any_scenario()) {
        let result = result(&input);
        let opening = hundredths(input["opening_cash"].as_str().expect("text"));
        let last = hundredths(months(&result, "cash").last().expect("a month"));
        let moved = hundredths(at(&result, "/totals/net_cash"));
        // Two figures rounded once each: at most one cent apart.
        prop_assert!((last - opening - moved).abs() <= 1);
        let sum: i128 = months(&result, "net_cash").iter().map(|text| hundredths(text)).sum();
        prop_assert!((sum - moved).abs() <= months(&result, "cash").len() as i128);
    }

    #[test]
    fn without_discounting_the_npv_is_the_total_net_cash(input in any_scenario()) {
        let mut input = input;
        input["discount_rate_annual"] = json!("0");
        let result = result(&input);
        prop_assert_eq!(at(&result, "/npv_end_of_month"), at(&result, "/totals/net_cash"));
    }

    #[test]
    fn what_the_oracle_expects_passes_and_one_minor_unit_off_does_not(
        input in any_scenario(), pick in any::<prop::sample::Index>(),
    ) {
        let Ok(Expected::Result(right)) = forecast_as(&input, "1") else {
            return Err(TestCaseError::fail("no result"));
        };
        let found = compare(&input, &right).expect("readable");
        prop_assert!(found.holds());
        let pointers = amounts(&right);
        prop_assert_eq!(found.amounts_compared, pointers.len() as u64);
        let pointer = pick.get(&pointers);
        let mut wrong = right.clone();
        let text = at(&right, pointer).to_owned();
        let digits = text.split_once('.').expect("a point").1.len();
        let moved = text.replace('.', "").parse::<i128>().expect("an amount") + 1;
        let sign = if moved < 0 { "-" } else { "" };
        let padded = format!("{:0>width$}", moved.abs(), width = digits + 1);
        let (whole, part) = padded.split_at(padded.len() - digits);
        *wrong.pointer_mut(pointer).expect("there") = json!(format!("{sign}{whole}.{part}"));
        let found = compare(&input, &wrong).expect("readable");
        prop_assert_eq!(found.mismatches_total, 1);
        prop_assert_eq!(&found.mismatches[0].pointer, pointer);
    }
}

/// Pointers of every amount and unit count of a result.
fn amounts(result: &Value) -> Vec<String> {
    fn walk(value: &Value, pointer: String, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    if !["name", "month", "currency", "engine_version"].contains(&key.as_str()) {
                        walk(value, format!("{pointer}/{key}"), found);
                    }
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    walk(value, format!("{pointer}/{index}"), found);
                }
            }
            Value::String(_) => found.push(pointer),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(result, String::new(), &mut found);
    found
}
