//! One tenant's books up to a time: every period from the first, drafted and issued where due, and the
//! intent to collect what was issued, all in one transaction under the tenant's lock.

use chrono::{DateTime, Duration, Utc};
use forecastle_domain::{EndedPeriod, InvoiceDraft, InvoiceId, InvoiceState, MoneyError, Period, SubscriptionCharge};
use forecastle_domain::{TenantId, subscription_invoice};
use forecastle_store::invoices::{self, InvoiceKey, InvoiceStanding};
use forecastle_store::payments::{self, Payment};
use forecastle_store::periods::{self, BillingProfile};
use forecastle_store::{Db, StoreError, TenantTx, ledger, usage};

/// From a period's start to the issue of its invoice.
const ISSUE_AFTER: Duration = Duration::hours(1);

/// Why a tenant's books could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BooksError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An amount left its range.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// What was done, and what is left to collect.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) drafted: u64,
    pub(crate) issued: u64,
    /// Of the drafted, those whose successor existed already: a gap that should never have been.
    pub(crate) healed: u64,
    pub(crate) to_collect: Vec<Payment>,
    pub(crate) payment_token: Option<String>,
}

pub(crate) async fn bring_up_to(db: &Db, tenant: TenantId, as_of: DateTime<Utc>) -> Result<Books, BooksError> {
    let mut tx = db.tenant(tenant).begin().await?;
    let profile = periods::lock_profile(&mut tx).await?;
    let standings = invoices::standings(&mut tx).await?;
    let newest = standings.last().map(|standing| standing.period_index);
    let mut books = Books { payment_token: profile.payment_token.clone(), ..Books::default() };

    for index in 0.. {
        let period = profile.calendar.period(index);
        if period.start > as_of {
            break;
        }
        let standing = standings.iter().find(|standing| standing.period_index == index).copied();
        if standing.is_some_and(|standing| standing.state != InvoiceState::Draft) {
            continue;
        }
        let standing = match standing {
            Some(standing) => standing,
            None => {
                let Some(standing) = draft(&mut tx, &profile, &period).await? else { continue };
                books.drafted += 1;
                books.healed += u64::from(newest.is_some_and(|newest| newest > index));
                standing
            }
        };
        if standing.issue_due_at <= as_of && issue(&mut tx, &profile, &period, &standing).await? {
            books.issued += 1;
        }
    }
    books.to_collect = payments::intend_all(&mut tx).await?;
    tx.commit().await?;
    Ok(books)
}

async fn draft(
    tx: &mut TenantTx,
    profile: &BillingProfile,
    period: &Period,
) -> Result<Option<InvoiceStanding>, BooksError> {
    let used = usage::count_uninvoiced(tx, period.start).await?;
    let Some(content) = content(profile, period, used)? else {
        return Ok(None);
    };
    let standing = InvoiceStanding {
        invoice_id: InvoiceId::from_uuid(uuid::Uuid::now_v7()),
        period_index: period.index,
        state: InvoiceState::Draft,
        issue_due_at: period.start + ISSUE_AFTER,
    };
    let key = InvoiceKey::SUBSCRIPTION;
    invoices::insert_draft(tx, standing.invoice_id, key, period, &content, period.start, standing.issue_due_at).await?;
    Ok(Some(standing))
}

/// Counts usage again: what committed since the draft with an earlier stamp belongs to it.
async fn issue(
    tx: &mut TenantTx,
    profile: &BillingProfile,
    period: &Period,
    standing: &InvoiceStanding,
) -> Result<bool, BooksError> {
    let used = usage::put_on_invoice(tx, period.start, standing.invoice_id).await?;
    let Some(content) = content(profile, period, used)? else {
        return Ok(false);
    };
    invoices::issue(tx, standing.invoice_id, &content, standing.issue_due_at).await?;
    let tax_minor = content.lines.iter().map(|line| line.tax_minor).sum();
    ledger::post_invoice_issued(tx, standing.invoice_id, content.total.currency, content.total.amount_minor, tax_minor)
        .await?;
    Ok(true)
}

fn content(profile: &BillingProfile, period: &Period, used: u64) -> Result<Option<InvoiceDraft>, MoneyError> {
    subscription_invoice(&SubscriptionCharge {
        currency: profile.currency,
        tax_rate_ppm: profile.tax_rate_ppm,
        ended: (period.index > 0).then_some(EndedPeriod { plan: profile.plan, usage_events: used }),
        starting_plan: Some(profile.plan),
    })
}
