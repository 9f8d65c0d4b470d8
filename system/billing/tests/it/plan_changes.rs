//! Changes of plan as customers ask for them, near a period's end and across a boundary that is drafted.

use forecastle_billing::{ChangeRequest, Requested, request_change};
use forecastle_domain::Plan;
use forecastle_store::plan_upgrades::{UpgradeRequest, UpgradeState};
use forecastle_testbed::customers::Customer;

use crate::bed::{Bed, bed};

pub(crate) async fn ask(bed: &Bed, customer: &Customer, to: Plan, key: &str) -> Requested {
    let mut tx = bed.tx(customer).await;
    let by = UpgradeRequest { user: customer.user.into(), key };
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
