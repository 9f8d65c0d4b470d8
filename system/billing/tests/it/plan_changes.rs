//! Changes of plan as customers ask for them, near a period's end and across a boundary that is drafted.

use std::time::Duration;

use forecastle_billing::{ChangeRequest, Requested, request_change};
use forecastle_domain::Plan;
use forecastle_store::plan_upgrades::{UpgradeRequest, UpgradeState};
use forecastle_testbed::customers::Customer;

use crate::bed::{Bed, bed};

pub(crate) async fn ask(bed: &Bed, customer: &Customer, to: Plan, key: &str) -> Requested {
    let mut tx = bed.tx(customer).await;
    let by = UpgradeRequest { user: customer.user.into(), key, kept: Duration::from_secs(3_600) };
    let requested = request_change(&mut tx, &ChangeRequest { to, by, fingerprint: [7; 32] }).await.unwrap();
    tx.commit().await.unwrap();
    requested
}

#[tokio::test]
async fn an_upgrade_in_the_last_minute_of_a_period_costs_nothing_and_is_in_force() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    bed.bill_to_each(&["2026-01-02T00:00:00Z"]).await;
    bed.set_clock("2026-01-31T23:59:00Z").await;
    let Requested::Applied(upgrade) = ask(&bed, &customer, Plan::Pro, "up-1").await else { panic!("applied") };
    assert_eq!((upgrade.state, upgrade.invoice), (UpgradeState::Applied, None));
    let stored = "SELECT concat_ws(' ', state, settled_at = requested_at, invoice_id) FROM app.plan_upgrades";
    assert_eq!(bed.words(stored).await, ["applied t"]);
    assert_eq!(bed.words("SELECT plan FROM app.tenants").await, ["PRO"]);
    bed.bill_to_each(&["2026-02-02T00:00:00Z"]).await;
    let bases = "SELECT concat_ws(' ', i.period_index, l.unit_price_minor)
                 FROM app.invoices i JOIN app.invoice_lines l USING (tenant_id, invoice_id) ORDER BY 1";
    assert_eq!(bed.words(bases).await, ["0 2900", "1 9900"]);
    bed.assert_square().await;
}

const LINES: &str = "SELECT concat_ws(' ', i.period_index, i.state, l.kind, l.unit_price_minor, l.amount_minor)
    FROM app.invoices i JOIN app.invoice_lines l USING (tenant_id, invoice_id) ORDER BY i.period_index, l.line_no";

#[tokio::test]
async fn a_downgrade_asked_for_behind_the_next_draft_waits_for_the_period_that_is_drafted() {
    let mut bed = bed().await;
    let customer = bed.customer("STARTER", "USD", "2026-01-01 00:00+00").await;
    bed.bill_to_each(&["2026-02-01T00:00:00Z"]).await;
    // The database's clock is behind the run's.
    bed.set_clock("2026-01-31T23:59:59Z").await;
    let Requested::Scheduled(change) = ask(&bed, &customer, Plan::Free, "down-1").await else { panic!("scheduled") };
    assert_eq!(change.effective_at.to_rfc3339(), "2026-03-01T00:00:00+00:00");
    bed.bill_to_each(&["2026-02-01T02:00:00Z", "2026-03-02T00:00:00Z"]).await;
    assert_eq!(bed.words(LINES).await, ["0 paid base 2900 2900", "1 paid base 2900 2900"]);
    assert_eq!(bed.words("SELECT plan FROM app.tenants").await, ["FREE"]);
    bed.assert_square().await;
}

#[tokio::test]
async fn a_draft_keeps_its_base_under_a_change_that_was_dated_at_its_boundary() {
    for to in [Plan::Free, Plan::Starter] {
        let mut bed = bed().await;
        let customer = bed.customer("PRO", "USD", "2026-01-01 00:00+00").await;
        bed.bill_to_each(&["2026-02-01T00:00:00Z"]).await;
        // Written by an instance that did not look at drafts.
        bed.does(&format!(
            "INSERT INTO app.plan_changes (tenant_id, change_id, from_plan, to_plan, kind, cause, state, requested_at,
                                           effective_at)
             VALUES ('{}', gen_random_uuid(), 'PRO', '{to}', 'downgrade', 'customer', 'pending',
                     '2026-01-31 23:59:59+00', '2026-02-01 00:00+00')",
            customer.tenant
        ))
        .await;
        bed.bill_to_each(&["2026-02-01T02:00:00Z"]).await;
        assert_eq!(bed.words(LINES).await, ["0 paid base 9900 9900", "1 paid base 9900 9900"], "{to}");
        assert_eq!(bed.words("SELECT plan FROM app.tenants").await, [to.to_string()]);
        bed.bill_to_each(&["2026-03-02T00:00:00Z"]).await;
        bed.assert_square().await;
    }
}
