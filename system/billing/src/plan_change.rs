//! A change of plan as its customer asks for it.
//!
//! An upgrade is given for money: its proration is issued and its charge written down in the transaction
//! of the request, the provider is asked outside of it, and the transaction that records the money is the
//! one that changes the plan (`forecastle_store::plan_upgrades`). A decline voids the invoice and changes
//! nothing; an answer that is lost leaves the upgrade waiting until whoever asks next knows: the request
//! again, the provider's event, or the billing run. A downgrade waits for the period's end.

use chrono::{DateTime, Utc};
use forecastle_domain::{
    AuditAction, BillingState, BillingTerms, ChargePurpose, InvoiceId, MoneyError, Plan, PlanChangeKind,
    ProrationCharge, TenantId, UserId, proration_invoice,
};
use forecastle_store::audit::{self, AuditEvent};
use forecastle_store::invoices::Issued;
use forecastle_store::payments::{self, Payment};
use forecastle_store::periods::{self, BillingProfile};
use forecastle_store::plan_changes::{self, ChangeCause, PendingChange};
use forecastle_store::plan_upgrades::{self, Upgrade, UpgradeRequest, UpgradeState};
use forecastle_store::{Db, StoreError, TenantTx, closings, dunning, identity, invoices, payment_methods};
use uuid::Uuid;

use crate::cached::Cached;
use crate::charge::collect;
use crate::patience::Patience;
use crate::provider::Provider;

/// Why a change could not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An amount left its range.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// Why a change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// It is the plan in force.
    SamePlan,
    /// Another upgrade waits for its money.
    InProgress,
    /// Something is overdue; it comes first.
    PastDue,
    /// There is nothing to charge.
    NoPaymentMethod,
    /// The books were brought beyond this period already.
    PeriodBilled,
    /// An unpaid invoice ends the plan with the period, and the customer cannot take that back.
    Ending,
}

/// What came of asking for a change.
#[derive(Debug)]
pub enum Requested {
    /// In force when the transaction commits: there was nothing to charge.
    Applied(Upgrade),
    /// To be charged, once the transaction has committed.
    Charge(Upgrade, Box<Payment>),
    /// In force when the period ends.
    Scheduled(PendingChange),
    /// Nothing was written.
    Refused(ChangeRefusal),
}

/// What was asked for, by whom, under which key.
#[derive(Debug, Clone, Copy)]
pub struct ChangeRequest<'a> {
    /// The plan.
    pub to: Plan,
    /// Who asks, under which key.
    pub by: UpgradeRequest<'a>,
    /// Digest of the request.
    pub fingerprint: [u8; 32],
}

/// Works on a request in the caller's transaction, which it commits unless the change is refused.
///
/// # Errors
/// As [`ChangeError`] says.
pub async fn request_change(tx: &mut TenantTx, request: &ChangeRequest<'_>) -> Result<Requested, ChangeError> {
    let mut profile = periods::lock_profile(tx).await?;
    // After the lock: changes are dated in the order in which they happen.
    let now = plan_upgrades::clock(tx).await?;
    if let Some(due) = plan_changes::apply_due(tx, now).await? {
        profile.plan = due.to;
        dunning::clear_past_due(tx).await?;
    }
    let refused = |why| Ok(Requested::Refused(why));
    let Some(kind) = PlanChangeKind::of(profile.plan, request.to) else {
        return refused(ChangeRefusal::SamePlan);
    };
    if plan_upgrades::waiting(tx).await?.is_some() {
        return refused(ChangeRefusal::InProgress);
    }
    if plan_changes::pending(tx).await?.is_some_and(|pending| pending.cause == ChangeCause::Unpaid) {
        return refused(ChangeRefusal::Ending);
    }
    match kind {
        PlanChangeKind::Downgrade => schedule(tx, &profile, request, now).await,
        PlanChangeKind::Upgrade => upgrade(tx, &profile, request, now).await,
    }
}

async fn schedule(
    tx: &mut TenantTx,
    profile: &BillingProfile,
    request: &ChangeRequest<'_>,
    now: DateTime<Utc>,
) -> Result<Requested, ChangeError> {
    let running = period_index(profile, now)?;
    let billed = invoices::newest_drafted(tx).await?.max(closings::closed(tx).await?.newest).unwrap_or(0);
    let effective_at = profile.calendar.period(running.max(billed)).end;
    plan_changes::cancel_pending(tx, now).await?;
    let (from, to) = (profile.plan, request.to);
    let change = PendingChange { change_id: Uuid::now_v7(), from, to, effective_at, cause: ChangeCause::Customer };
    plan_changes::schedule_downgrade(tx, &change, now).await?;
    let event = AuditEvent::of_tenant(AuditAction::PlanChangeScheduled).by(request.by.user);
    audit::record(tx, event.changed(from.as_str(), to.as_str())).await?;
    Ok(Requested::Scheduled(change))
}

async fn upgrade(
    tx: &mut TenantTx,
    profile: &BillingProfile,
    request: &ChangeRequest<'_>,
    now: DateTime<Utc>,
) -> Result<Requested, ChangeError> {
    let refused = |why| Ok(Requested::Refused(why));
    if identity::terms_in(tx).await?.billing_state == BillingState::PastDue {
        return refused(ChangeRefusal::PastDue);
    }
    if payment_methods::current(tx).await?.is_none() {
        return refused(ChangeRefusal::NoPaymentMethod);
    }
    let index = period_index(profile, now)?;
    let period = profile.calendar.period(index);
    if plan_upgrades::is_billed_beyond(tx, index).await? {
        return refused(ChangeRefusal::PeriodBilled);
    }
    let charge = ProrationCharge {
        currency: profile.currency,
        tax_rate_ppm: profile.tax_rate_ppm,
        from: profile.plan,
        to: request.to,
        period,
        at: now,
    };
    let mut upgrade = Upgrade {
        change_id: Uuid::now_v7(),
        from: profile.plan,
        to: request.to,
        period_index: index,
        state: UpgradeState::AwaitingPayment,
        requested_by: request.by.user,
        fingerprint: request.fingerprint.to_vec(),
        requested_at: now,
        invoice: None,
    };
    let mut due_minor = 0;
    if let Some(content) = proration_invoice(&charge)? {
        let invoice = InvoiceId::from_uuid(Uuid::now_v7());
        let key = invoices::next_proration(tx, index).await?;
        invoices::insert_draft(tx, invoice, key, &period, &content, now, now).await?;
        let issued: Issued = invoices::issue(tx, invoice, &content, now).await?;
        upgrade.invoice = Some(invoice);
        due_minor = issued.due_minor;
    }
    if upgrade.invoice.is_none() {
        // Nothing to wait for: there is no invoice that money could come for.
        upgrade.state = UpgradeState::Applied;
    }
    plan_upgrades::insert(tx, &upgrade, request.by).await?;
    match upgrade.invoice {
        Some(invoice) if due_minor > 0 => {
            let payment = payments::intend(tx, invoice, ChargePurpose::Invoice).await?;
            Ok(Requested::Charge(upgrade, Box::new(payment)))
        }
        // Nothing to charge, or the customer's credit has paid for it.
        _ => {
            plan_upgrades::apply(tx, &upgrade).await?;
            upgrade.state = UpgradeState::Applied;
            Ok(Requested::Applied(upgrade))
        }
    }
}

fn period_index(profile: &BillingProfile, now: DateTime<Utc>) -> Result<u32, StoreError> {
    let period = profile.calendar.period_containing(now);
    period.map(|period| period.index).ok_or(StoreError::Corrupt { what: "tenants.anchor_date" })
}

/// The charge that a waiting upgrade waits for; `None` if it is settled.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn open_charge(tx: &mut TenantTx, upgrade: &Upgrade) -> Result<Option<Payment>, StoreError> {
    let open = payments::open(tx).await?;
    Ok(open.into_iter().find(|payment| Some(payment.invoice_id) == upgrade.invoice))
}

/// Asks the provider for an upgrade's charge, outside of any transaction, and records what it says, with all
/// that follows from it. How the upgrade stands then is in its row. The caller announces and deletes what is
/// cached of the tenant.
///
/// # Errors
/// As [`StoreError`] says; the charge stays open, for whoever asks next.
pub async fn settle_charge(
    db: &Db,
    provider: &Provider,
    tenant: TenantId,
    payment: &Payment,
    terms: &BillingTerms,
    patience: &Patience,
) -> Result<(), StoreError> {
    collect(db, provider, tenant, payment, terms, &Cached::by_the_caller(), patience).await.map(drop)
}

/// What came of taking a waiting downgrade back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// It is, when the transaction commits.
    Done,
    /// None waits.
    NothingPending,
    /// An unpaid invoice caused it.
    Ending,
}

/// Takes a waiting downgrade back, in the caller's transaction.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn withdraw_change(tx: &mut TenantTx, by: UserId) -> Result<Withdrawn, StoreError> {
    periods::lock_tenant(tx).await?;
    let now = plan_upgrades::clock(tx).await?;
    match plan_changes::pending(tx).await? {
        // One whose time has come is in force, whether or not the run has written that yet.
        Some(change) if change.effective_at > now => {
            if change.cause == ChangeCause::Unpaid {
                return Ok(Withdrawn::Ending);
            }
            plan_changes::cancel_pending(tx, now).await?;
            let event = AuditEvent::of_tenant(AuditAction::PlanChangeCancelled).by(by);
            audit::record(tx, event.changed(change.to.as_str(), change.from.as_str())).await?;
            Ok(Withdrawn::Done)
        }
        _ => Ok(Withdrawn::NothingPending),
    }
}
