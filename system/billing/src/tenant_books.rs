//! One tenant's books, brought forward in the order in which things fall due: a change of plan, a draft, its
//! issue, a charge, an invoice given up.
//!
//! A charge ends the step, since its answer decides what comes after it: the intent is committed, the
//! provider asked outside, and the next step goes on. Every step is one transaction under the tenant's
//! lock, and every effect a row that can exist once, so a step that is lost is taken again.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use forecastle_domain::{BillingTerms, ChargePurpose, InvoiceId, MoneyError, Period, Plan, PlanHistory, TenantId};
use forecastle_store::closings::{self, Closed};
use forecastle_store::invoices::{self, OpenInvoice};
use forecastle_store::payments::{self, Payment, PaymentState};
use forecastle_store::periods::{self, BillingProfile};
use forecastle_store::plan_changes::{self, ChangeCause, PendingChange};
use forecastle_store::{Db, StoreError, TenantTx, books_check, dunning};

use crate::boundary::{self, Boundary};

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

/// What a step did, and what is left to collect.
#[derive(Default)]
pub(crate) struct Step {
    pub(crate) drafted: u64,
    pub(crate) issued: u64,
    /// Boundaries closed behind newer ones, and postings made late: gaps that should never have been.
    pub(crate) healed: u64,
    pub(crate) written_off: u64,
    pub(crate) mismatched: u64,
    /// The plan in force, or whose limits hold, is another one.
    pub(crate) plan_changed: bool,
    /// The next thing due changes the plan, and was left for a step that may.
    pub(crate) waits_for_announcement: bool,
    pub(crate) to_collect: Vec<Payment>,
    /// Nothing falls due any more up to the time asked for.
    pub(crate) is_last: bool,
}

/// What falls due next. Declared in the order in which things of one instant happen: a downgrade at a
/// period's end is in force when the next one is drafted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    PlanChange,
    Draft,
    Close,
    Charge(InvoiceId, u32),
    GiveUp(InvoiceId),
}

/// The tenant as the transaction found it and changed it since.
struct Timeline {
    profile: BillingProfile,
    history: PlanHistory,
    pending: Option<PendingChange>,
    closed: Closed,
    newest_at_start: Option<u32>,
    /// The first boundary that is not closed; `None` where it lies beyond the time asked for.
    boundary: Option<Boundary>,
    issued: Vec<OpenInvoice>,
}

/// Takes one step towards `as_of`. Invoices in `blocked` have a payment that stays unknown for now: they are
/// left alone, and everything else goes on. Unless it `may_change_plan`, the step ends before a change of it.
pub(crate) async fn advance(
    db: &Db,
    tenant: TenantId,
    as_of: DateTime<Utc>,
    terms: &BillingTerms,
    blocked: &BTreeSet<InvoiceId>,
    may_change_plan: bool,
) -> Result<Step, BooksError> {
    let mut tx = db.tenant(tenant).begin().await?;
    let profile = periods::lock_profile(&mut tx).await?;

    // What may have taken money already is settled before anything else is decided.
    let mut to_collect = payments::open(&mut tx).await?;
    to_collect.retain(|payment| !blocked.contains(&payment.invoice_id));
    if !to_collect.is_empty() {
        tx.rollback().await;
        return Ok(Step { to_collect, ..Step::default() });
    }

    let mut step = Step::default();
    let mut timeline = Timeline::read(&mut tx, profile).await?;
    while let Some((at, due)) = timeline.next_due(&mut tx, terms, blocked).await? {
        if at > as_of {
            break;
        }
        if !may_change_plan && matches!(due, Due::PlanChange | Due::GiveUp(_)) {
            step.waits_for_announcement = true;
            tx.commit().await?;
            return Ok(step);
        }
        if let Due::Charge(invoice, declined) = due {
            timeline.charge(&mut tx, invoice, declined, terms, &mut step).await?;
            if step.to_collect.is_empty() {
                continue;
            }
            tx.commit().await?;
            return Ok(step);
        }
        timeline.pass(&mut tx, at, due, &mut step).await?;
    }
    let check = books_check::check(&mut tx).await?;
    step.healed += check.posted;
    step.mismatched = check.mismatched;
    step.is_last = true;
    tx.commit().await?;
    Ok(step)
}

impl Timeline {
    async fn read(tx: &mut TenantTx, profile: BillingProfile) -> Result<Self, StoreError> {
        let closed = closings::closed(tx).await?;
        Ok(Self {
            history: plan_changes::history(tx, profile.plan).await?,
            pending: plan_changes::pending(tx).await?,
            newest_at_start: closed.newest,
            closed,
            boundary: None,
            issued: invoices::issued(tx).await?,
            profile,
        })
    }

    fn period(&self, index: u32) -> Period {
        self.profile.calendar.period(index)
    }

    /// What falls due next, and when.
    async fn next_due(
        &mut self,
        tx: &mut TenantTx,
        terms: &BillingTerms,
        blocked: &BTreeSet<InvoiceId>,
    ) -> Result<Option<(DateTime<Utc>, Due)>, StoreError> {
        if self.boundary.is_none() {
            let period = self.period(self.closed.next());
            self.boundary = Some(boundary::find(tx, period, terms).await?);
        }
        let boundary = self.boundary.iter().map(|boundary| match boundary.is_drafted() {
            false => (boundary.period.start, Due::Draft),
            true => (boundary.close_due_at, Due::Close),
        });
        let pending = self.pending.iter().map(|change| (change.effective_at, Due::PlanChange));
        let open = self.issued.iter().filter(|invoice| !blocked.contains(&invoice.invoice_id));
        let open = open.filter_map(|invoice| match (invoice.next_attempt_at, invoice.give_up_at) {
            (Some(at), _) => Some((at, Due::Charge(invoice.invoice_id, invoice.dunning_step))),
            (None, Some(at)) => Some((at, Due::GiveUp(invoice.invoice_id))),
            (None, None) => None,
        });
        Ok(boundary.chain(pending).chain(open).min())
    }

    /// Lets one thing that asks nobody happen.
    async fn pass(
        &mut self,
        tx: &mut TenantTx,
        at: DateTime<Utc>,
        due: Due,
        step: &mut Step,
    ) -> Result<(), BooksError> {
        match due {
            Due::PlanChange => {
                if let Some(change) = plan_changes::apply_due(tx, at).await? {
                    self.history.push(change);
                    self.profile.plan = change.to;
                    dunning::clear_past_due(tx).await?;
                    step.plan_changed = true;
                }
                self.pending = None;
            }
            Due::Draft => {
                if let Some(boundary) = &mut self.boundary {
                    step.drafted += u64::from(boundary.draft(tx, &self.profile, &self.history).await?);
                }
            }
            Due::Close => self.close(tx, step).await?,
            Due::GiveUp(invoice) => {
                self.issued.retain(|open| open.invoice_id != invoice);
                if dunning::write_off(tx, invoice, at).await? {
                    step.written_off += 1;
                    step.plan_changed = true;
                    self.end_on_free(tx, at).await?;
                }
            }
            Due::Charge(..) => {}
        }
        Ok(())
    }

    async fn close(&mut self, tx: &mut TenantTx, step: &mut Step) -> Result<(), BooksError> {
        let Some(boundary) = self.boundary.take() else { return Ok(()) };
        let done = boundary.close(tx, &self.profile, &self.history).await?;
        step.drafted += u64::from(done.drafted);
        step.issued += u64::from(done.issued.is_some());
        let is_gap = self.newest_at_start.is_some_and(|newest| newest > boundary.period.index);
        step.healed += u64::from(is_gap && !done.adopted);
        self.issued.extend(done.issued);
        self.closed.close_next();
        Ok(())
    }

    /// An invoice was given up: FREE from the end of the running period on, or of the newest that is billed
    /// already, whatever the customer had asked for.
    async fn end_on_free(&mut self, tx: &mut TenantTx, at: DateTime<Utc>) -> Result<(), BooksError> {
        if self.profile.plan == Plan::Free {
            dunning::clear_past_due(tx).await?;
            return Ok(());
        }
        let running = self.profile.calendar.period_containing(at).map_or(0, |period| period.index);
        let drafted = self.boundary.as_ref().filter(|boundary| boundary.is_drafted()).map(|b| b.period.index);
        let billed = self.closed.newest.max(drafted).unwrap_or(0);
        let effective_at = self.period(running.max(billed)).end;
        if self.pending.is_some_and(|change| change.cause == ChangeCause::Unpaid) {
            return Ok(());
        }
        plan_changes::cancel_pending(tx, at).await?;
        let change = PendingChange {
            change_id: uuid::Uuid::now_v7(),
            from: self.profile.plan,
            to: Plan::Free,
            effective_at,
            cause: ChangeCause::Unpaid,
        };
        plan_changes::schedule_downgrade(tx, &change, at).await?;
        self.pending = Some(change);
        Ok(())
    }

    /// Writes the intent of an invoice's next charge down. One that was declined before this one was due, by an
    /// instance of before dunning, moves the invoice on instead.
    async fn charge(
        &mut self,
        tx: &mut TenantTx,
        invoice: InvoiceId,
        declined: u32,
        terms: &BillingTerms,
        step: &mut Step,
    ) -> Result<(), BooksError> {
        let purpose = ChargePurpose::of_step(declined).ok_or(StoreError::Corrupt { what: "invoices.dunning_step" })?;
        let payment = payments::intend(tx, invoice, purpose).await?;
        match payment.state {
            PaymentState::Intended | PaymentState::Unknown => step.to_collect.push(payment),
            PaymentState::Failed => {
                dunning::declined(tx, invoice, purpose, terms).await?;
                self.issued = invoices::issued(tx).await?;
            }
            PaymentState::Succeeded => return Err(StoreError::Corrupt { what: "invoices.state" }.into()),
        }
        Ok(())
    }
}
