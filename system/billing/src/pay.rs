//! An issued invoice paid because its customer asks for it, and not because its dunning is due.

use forecastle_domain::{BillingTerms, InvoiceId, TenantId};
use forecastle_store::payments::{self, Payment};
use forecastle_store::{Db, StoreError, TenantTx, invoice_views, invoices, payment_methods, periods};

use crate::cached::Cached;
use crate::charge::{Collected, collect};
use crate::patience::Patience;
use crate::provider::Provider;

/// What stands between a request to pay and the provider.
#[derive(Debug)]
pub enum PayStart {
    /// To be charged, once the transaction has committed.
    Charge(Box<Payment>),
    /// Paid already.
    Paid,
    /// No such invoice of this tenant.
    NotFound,
    /// A draft, void or given up: nothing is owed.
    NotOpen,
    /// There is nothing to charge.
    NoPaymentMethod,
}

/// How a charge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayOutcome {
    /// The money came.
    Paid,
    /// The provider said no.
    Declined,
    /// It is not known yet; the billing run goes on asking.
    Unknown,
}

/// Writes the intent to collect an invoice down, in the caller's transaction. What may have taken the money
/// already is settled under its own key first.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn begin_pay(tx: &mut TenantTx, invoice: InvoiceId) -> Result<PayStart, StoreError> {
    periods::lock_tenant(tx).await?;
    let Some(view) = invoice_views::read(tx, invoice).await? else { return Ok(PayStart::NotFound) };
    match view.head.state.as_str() {
        "paid" => return Ok(PayStart::Paid),
        "issued" => {}
        _ => return Ok(PayStart::NotOpen),
    }
    let open = payments::open(tx).await?;
    if let Some(payment) = open.into_iter().find(|payment| payment.invoice_id == invoice) {
        return Ok(PayStart::Charge(Box::new(payment)));
    }
    if payment_methods::current(tx).await?.is_none() {
        return Ok(PayStart::NoPaymentMethod);
    }
    let purpose = payments::next_pay_purpose(tx, invoice).await?;
    Ok(PayStart::Charge(Box::new(payments::intend(tx, invoice, purpose).await?)))
}

/// Asks the provider, outside of any transaction, and records what it says. The caller announces and deletes
/// what is cached of the tenant.
///
/// # Errors
/// As [`StoreError`] says; the charge stays open.
pub async fn finish_pay(
    db: &Db,
    provider: &Provider,
    tenant: TenantId,
    payment: &Payment,
    terms: &BillingTerms,
    patience: &Patience,
) -> Result<PayOutcome, StoreError> {
    match collect(db, provider, tenant, payment, terms, &Cached::by_the_caller(), patience).await? {
        Collected::Charged => Ok(PayOutcome::Paid),
        Collected::Declined => Ok(PayOutcome::Declined),
        Collected::Unknown => Ok(PayOutcome::Unknown),
        Collected::AlreadyRecorded | Collected::Credited => {
            let mut tx = db.tenant(tenant).begin().await?;
            let view = invoice_views::read(&mut tx, payment.invoice_id).await?;
            let is_paid = view.is_some_and(|view| view.head.state == "paid");
            Ok(if is_paid { PayOutcome::Paid } else { PayOutcome::Declined })
        }
    }
}

/// Tries everything that was declined once more, after the payment method was replaced; how many were paid.
///
/// # Errors
/// As [`StoreError`] says; what is left is for the customer or the billing run.
pub async fn pay_declined(
    db: &Db,
    provider: &Provider,
    tenant: TenantId,
    terms: &BillingTerms,
    patience: &Patience,
) -> Result<usize, StoreError> {
    let mut tx = db.tenant(tenant).begin().await?;
    let declined = invoices::issued(&mut tx).await?.into_iter().filter(|invoice| invoice.dunning_step > 0);
    let declined: Vec<InvoiceId> = declined.map(|invoice| invoice.invoice_id).collect();
    tx.rollback().await;
    let mut paid = 0;
    for invoice in declined {
        if !patience.lasts() {
            break;
        }
        let mut tx = db.tenant(tenant).begin().await?;
        let PayStart::Charge(payment) = begin_pay(&mut tx, invoice).await? else { continue };
        tx.commit().await?;
        if finish_pay(db, provider, tenant, &payment, terms, patience).await? == PayOutcome::Paid {
            paid += 1;
        }
    }
    Ok(paid)
}
