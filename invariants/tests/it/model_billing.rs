//! Invoices worked out by hand.

use jiff::Timestamp;
use nogo_invariants::model::{
    BillingError, ExpectedInvoice, LineKind, Plan, TenantFacts, UsageEvent, expected_invoices,
};
use proptest::prelude::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

fn tenant(plan: Plan, currency: &str, tax_rate_ppm: u32) -> TenantFacts {
    TenantFacts {
        zone: "UTC".to_owned(),
        signup: at("2026-01-15T10:00:00Z"),
        currency: currency.to_owned(),
        tax_rate_ppm,
        plans: vec![(at("2026-01-15T10:00:00Z"), plan)],
        usage: Vec::new(),
    }
}

fn used(count: usize, stamp: &str) -> Vec<UsageEvent> {
    vec![UsageEvent { at: at(stamp), committed_at: None }; count]
}

fn invoices(facts: &TenantFacts, as_of: &str) -> Vec<ExpectedInvoice> {
    expected_invoices(facts, at(as_of)).expect("readable facts")
}

fn totals(facts: &TenantFacts, as_of: &str) -> Vec<(u32, i64)> {
    let all = invoices(facts, as_of);
    all.iter().map(|invoice| (invoice.period_index, invoice.total_minor)).collect()
}

#[test]
fn base_in_advance_and_overage_of_the_period_that_ended() {
    let mut facts = tenant(Plan::Starter, "EUR", 190_000);
    facts.usage = used(103, "2026-01-20T00:00:00Z");
    let all = invoices(&facts, "2026-02-15T01:00:00Z");
    // Period 0: base 27.00, tax 19 % = 5.13.
    assert_eq!((all[0].total_minor, all[0].tax_minor, all[0].lines.len()), (3_213, 513, 1));
    // Period 1: base as above, and 3 x 0.19 = 0.57, tax 0.1083 -> 0.11: 32.13 + 0.68.
    assert_eq!((all[1].total_minor, all[1].tax_minor, all[1].lines.len()), (3_281, 524, 2));
    let overage = &all[1].lines[1];
    assert_eq!((overage.kind, overage.quantity, overage.unit_minor), (LineKind::Overage, 3, 19));
    assert_eq!((overage.amount_minor, overage.tax_minor), (57, 11));
    assert_eq!(all[1].period_start, at("2026-02-15T00:00:00Z"));
    assert_eq!(all[1].period_end, at("2026-03-15T00:00:00Z"));
    assert_eq!(all[1].kind, "subscription");
    assert!(all[1].is_final);
    assert_eq!(all.len(), 2);
}

#[test]
fn a_draft_is_final_after_an_hour_and_not_before() {
    let facts = tenant(Plan::Pro, "USD", 0);
    assert!(!invoices(&facts, "2026-02-15T00:59:59Z")[1].is_final);
    assert!(invoices(&facts, "2026-02-15T01:00:00Z")[1].is_final);
    assert_eq!(invoices(&facts, "2026-02-14T23:59:59Z").len(), 1);
}

#[test]
fn tax_is_rounded_per_line_half_away_from_zero() {
    let mut facts = tenant(Plan::Starter, "JPY", 75_000);
    facts.usage = used(101, "2026-01-20T00:00:00Z");
    // 4300 * 7.5 % = 322.5 -> 323; 30 * 7.5 % = 2.25 -> 2. Taxed as a sum: 324.75 -> 325.
    assert_eq!(totals(&facts, "2026-02-15T00:00:00Z"), [(0, 4_623), (1, 4_655)]);
}

#[test]
fn the_whole_price_table_is_as_written() {
    let prices = |plan: Plan| ["USD", "EUR", "GBP", "JPY", "KWD"].map(|c| (plan.base_minor(c), plan.further_minor(c)));
    let some = |base: i64, further: i64| (Some(base), Some(further));
    assert_eq!(prices(Plan::Free), [(Some(0), None); 5]);
    assert_eq!(prices(Plan::Starter), [some(2900, 20), some(2700, 19), some(2400, 16), some(4300, 30), some(8900, 61)]);
    assert_eq!(prices(Plan::Pro), [some(9900, 10), some(9200, 9), some(8200, 8), some(14800, 15), some(30400, 31)]);
    assert_eq!([Plan::Free, Plan::Starter, Plan::Pro].map(Plan::included), [5, 100, 1_000]);
    assert_eq!([Plan::Free, Plan::Starter, Plan::Pro].map(Plan::hard_cap), [Some(5), None, None]);
    assert_eq!(Plan::named("starter"), Some(Plan::Starter));
    assert_eq!(Plan::named("gold"), None);
}

#[test]
fn free_is_never_invoiced() {
    let mut facts = tenant(Plan::Free, "USD", 190_000);
    facts.usage = used(5, "2026-01-20T00:00:00Z");
    assert_eq!(totals(&facts, "2027-01-15T00:00:00Z"), []);
}

#[test]
fn usage_at_the_very_end_belongs_to_the_next_period() {
    let mut facts = tenant(Plan::Starter, "USD", 0);
    facts.usage = used(100, "2026-02-14T23:59:59.999999999Z");
    facts.usage.extend(used(101, "2026-02-15T00:00:00Z"));
    assert_eq!(totals(&facts, "2026-03-15T00:00:00Z"), [(0, 2_900), (1, 2_900), (2, 2_920)]);
}

#[test]
fn a_commit_within_the_hour_joins_the_draft_and_a_later_one_the_next_period() {
    let with_commit = |committed: &str| {
        let mut facts = tenant(Plan::Starter, "USD", 0);
        facts.usage = used(100, "2026-02-01T00:00:00Z");
        facts.usage.push(UsageEvent { at: at("2026-02-14T23:59:00Z"), committed_at: Some(at(committed)) });
        facts.usage.extend(used(100, "2026-03-01T00:00:00Z"));
        totals(&facts, "2026-03-15T00:00:00Z")
    };
    assert_eq!(with_commit("2026-02-15T00:59:59Z"), [(0, 2_900), (1, 2_920), (2, 2_900)]);
    assert_eq!(with_commit("2026-02-15T01:00:00Z"), [(0, 2_900), (1, 2_900), (2, 2_920)]);
    // Later than the next period's draft as well: one further, and not yet invoiced here.
    assert_eq!(with_commit("2026-03-15T01:00:00Z"), [(0, 2_900), (1, 2_900), (2, 2_900)]);
}

#[test]
fn overage_is_at_the_old_plan_and_base_at_the_new_one() {
    let mut facts = tenant(Plan::Pro, "GBP", 0);
    facts.usage = used(1_002, "2026-02-01T00:00:00Z");
    facts.plans.push((at("2026-02-15T00:00:00Z"), Plan::Starter));
    // Downgraded at the period's end: 24.00 for STARTER and 2 x 0.08 at PRO's price.
    assert_eq!(totals(&facts, "2026-02-15T00:00:00Z"), [(0, 8_200), (1, 2_416)]);
    // Upgraded a moment before the end: PRO's included forecasts and PRO's base.
    let mut facts = tenant(Plan::Starter, "GBP", 0);
    facts.usage = used(1_002, "2026-02-01T00:00:00Z");
    facts.plans.insert(0, (at("2026-02-14T23:59:59Z"), Plan::Pro));
    assert_eq!(totals(&facts, "2026-02-15T00:00:00Z"), [(0, 2_400), (1, 8_216)]);
}

#[test]
fn facts_that_make_no_sense_are_errors() {
    let as_of = at("2026-02-15T00:00:00Z");
    let facts = tenant(Plan::Pro, "CHF", 0);
    assert_eq!(expected_invoices(&facts, as_of), Err(BillingError::Currency("CHF".to_owned())));
    let facts = tenant(Plan::Pro, "USD", 1_000_001);
    assert_eq!(expected_invoices(&facts, as_of), Err(BillingError::TaxRate(1_000_001)));
    let mut facts = tenant(Plan::Pro, "USD", 0);
    facts.plans.clear();
    assert_eq!(expected_invoices(&facts, as_of), Err(BillingError::NoPlan));
    let mut facts = tenant(Plan::Pro, "USD", 0);
    facts.zone = "Nowhere/Land".to_owned();
    assert!(matches!(expected_invoices(&facts, as_of), Err(BillingError::Calendar(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_forecast_beyond_the_included_ones_is_charged_exactly_once(
        offsets in proptest::collection::vec(0i64..180 * 86_400, 0..600), tax in 0u32..=1_000_000,
    ) {
        let mut facts = tenant(Plan::Starter, "USD", tax);
        let start = facts.signup.as_second();
        facts.usage = offsets
            .iter()
            .map(|offset| UsageEvent {
                at: Timestamp::from_second(start + offset).expect("in range"),
                committed_at: None,
            })
            .collect();
        let all = invoices(&facts, "2026-09-15T00:00:00Z");
        let starts: Vec<Timestamp> = all.iter().map(|invoice| invoice.period_start).collect();
        let mut over = 0;
        for pair in starts.windows(2) {
            let within = facts.usage.iter().filter(|e| pair[0] <= e.at && e.at < pair[1]).count();
            over += within.saturating_sub(100);
        }
        let charged: u64 = all
            .iter()
            .flat_map(|invoice| &invoice.lines)
            .filter(|line| line.kind == LineKind::Overage)
            .map(|line| line.quantity)
            .sum();
        prop_assert_eq!(charged, over as u64);
        for invoice in &all {
            let sum: i64 = invoice.lines.iter().map(|line| line.amount_minor + line.tax_minor).sum();
            prop_assert_eq!(sum, invoice.total_minor);
        }
        // The order of the events does not matter.
        facts.usage.reverse();
        prop_assert_eq!(all, invoices(&facts, "2026-09-15T00:00:00Z"));
    }
}
