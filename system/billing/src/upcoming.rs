//! The next subscription invoice as it would be now: made by the functions that the billing run makes it by.

use chrono::{DateTime, Utc};
use forecastle_domain::{AppliedChange, BillingTerms, Currency, InvoiceDraft, Period, Plan};
use forecastle_store::{TenantTx, closings, periods, plan_changes, usage};

use crate::boundary;
use crate::plan_change::ChangeError;

/// The next invoice, as of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upcoming {
    /// The period it starts.
    pub period: Period,
    /// When it will be issued.
    pub issue_due_at: DateTime<Utc>,
    /// The plan that period starts with.
    pub starting_plan: Plan,
    /// What it is billed in.
    pub currency: Currency,
    /// Usage that no invoice has counted yet.
    pub usage_events: u64,
    /// `None` where there is nothing to charge so far.
    pub content: Option<InvoiceDraft>,
}

/// Computes the invoice of the first boundary that is not closed, from the usage there is. Nothing is written,
/// and nobody is made to wait: `tx` is a snapshot ([`forecastle_store::TenantScope::begin_snapshot`]), so that
/// what is read of plan, closings and usage stands as of one moment.
///
/// # Errors
/// As [`ChangeError`] says.
pub async fn upcoming_invoice(tx: &mut TenantTx, terms: &BillingTerms) -> Result<Upcoming, ChangeError> {
    let profile = periods::read_profile(tx).await?;
    let mut history = plan_changes::history(tx, profile.plan).await?;
    let period = profile.calendar.period(closings::closed(tx).await?.next());
    if let Some(change) = plan_changes::pending(tx).await?.filter(|change| change.effective_at <= period.start) {
        history.push(AppliedChange { effective_at: change.effective_at, from: change.from, to: change.to });
    }
    let boundary = boundary::find(tx, period, terms).await?;
    let usage_events = usage::count_unbilled(tx, period.start).await?;
    let content = boundary.content(&profile, &history, usage_events).map_err(|error| match error {
        crate::tenant_books::BooksError::Store(error) => ChangeError::Store(error),
        crate::tenant_books::BooksError::Money(error) => ChangeError::Money(error),
    })?;
    Ok(Upcoming {
        period,
        issue_due_at: boundary.close_due_at,
        starting_plan: boundary.starting_plan(&profile, &history),
        currency: profile.currency,
        usage_events,
        content,
    })
}
