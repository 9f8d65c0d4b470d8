//! One boundary between two periods: the draft at its instant, and the closing an hour later.
//!
//! The base is the plan's the new period starts with, in advance; the usage is the ended period's, at the
//! plan in force when it ended. Usage is counted for the draft and counted for good at the closing: what
//! committed in between with an earlier stamp belongs to it, what comes later to the next one. The base stays
//! the drafted one, whatever is dated at the boundary afterwards.

use chrono::{DateTime, Utc};
use forecastle_domain::{
    BillingTerms, EndedPeriod, InvoiceDraft, InvoiceId, InvoiceState, LineKind, Period, Plan, PlanHistory,
    SubscriptionCharge, subscription_invoice,
};
use forecastle_store::closings::{self, Closing};
use forecastle_store::invoices::{self, InvoiceKey, OpenInvoice};
use forecastle_store::periods::BillingProfile;
use forecastle_store::{StoreError, TenantTx, usage};

use crate::tenant_books::BooksError;

/// A boundary that is not closed.
pub(crate) struct Boundary {
    /// The period that starts.
    pub(crate) period: Period,
    /// When it is closed.
    pub(crate) close_due_at: DateTime<Utc>,
    state: BoundaryState,
}

enum BoundaryState {
    /// Its instant has not been worked on.
    Ahead,
    /// There was nothing to charge so far.
    NothingYet,
    /// There is a draft, with this base, minor units.
    Drafted(InvoiceId, Option<i64>),
    /// An instance of before closings has issued its invoice.
    IssuedBefore(InvoiceId),
}

/// What closing a boundary did.
pub(crate) struct BoundaryClosed {
    pub(crate) drafted: bool,
    /// Closed before, but not written down as such.
    pub(crate) adopted: bool,
    /// The invoice, if it waits for money.
    pub(crate) issued: Option<OpenInvoice>,
}

/// How the boundary at a period's start stands.
pub(crate) async fn find(tx: &mut TenantTx, period: Period, terms: &BillingTerms) -> Result<Boundary, StoreError> {
    let close_due_at = period.start + terms.issue_after;
    Ok(match invoices::of_period(tx, period.index).await? {
        None => Boundary { period, close_due_at, state: BoundaryState::Ahead },
        Some((invoice, InvoiceState::Draft)) => {
            let base_minor = invoices::drafted_base_minor(tx, invoice.invoice_id).await?;
            let state = BoundaryState::Drafted(invoice.invoice_id, base_minor);
            Boundary { period, close_due_at: invoice.issue_due_at, state }
        }
        Some((invoice, _)) => Boundary {
            period,
            close_due_at: invoice.issue_due_at,
            state: BoundaryState::IssuedBefore(invoice.invoice_id),
        },
    })
}

impl Boundary {
    /// Whether its instant was worked on.
    pub(crate) const fn is_drafted(&self) -> bool {
        !matches!(self.state, BoundaryState::Ahead)
    }

    /// Drafts what there is to charge so far; whether there was anything.
    pub(crate) async fn draft(
        &mut self,
        tx: &mut TenantTx,
        profile: &BillingProfile,
        history: &PlanHistory,
    ) -> Result<bool, BooksError> {
        let used = usage::count_unbilled(tx, self.period.start).await?;
        let content = self.content(profile, history, used)?;
        self.state = match &content {
            Some(content) => BoundaryState::Drafted(self.insert_draft(tx, content).await?, base_minor(content)),
            None => BoundaryState::NothingYet,
        };
        Ok(content.is_some())
    }

    async fn insert_draft(&self, tx: &mut TenantTx, content: &InvoiceDraft) -> Result<InvoiceId, StoreError> {
        let invoice = InvoiceId::from_uuid(uuid::Uuid::now_v7());
        let (key, period) = (InvoiceKey::SUBSCRIPTION, &self.period);
        invoices::insert_draft(tx, invoice, key, period, content, period.start, self.close_due_at).await?;
        Ok(invoice)
    }

    /// Counts the usage for good, issues the invoice, and writes the closing down.
    pub(crate) async fn close(
        &self,
        tx: &mut TenantTx,
        profile: &BillingProfile,
        history: &PlanHistory,
    ) -> Result<BoundaryClosed, BooksError> {
        let index = self.period.index;
        let mut closing = Closing {
            period_index: index,
            ended_plan: self.ended_plan(history),
            started_plan: self.starting_plan(profile, history),
            usage_events: 0,
            invoice_id: None,
            closed_at: self.close_due_at,
        };
        let mut done = BoundaryClosed { drafted: false, adopted: false, issued: None };
        if let BoundaryState::IssuedBefore(invoice) = self.state {
            closing.usage_events = usage::adopt(tx, index, invoice).await?;
            closing.invoice_id = Some(invoice);
            done.adopted = true;
            closings::insert(tx, &closing).await?;
            return Ok(done);
        }
        closing.usage_events = usage::bill(tx, self.period.start, index).await?;
        let invoice = match (self.content(profile, history, closing.usage_events)?, &self.state) {
            (None, BoundaryState::Drafted(..)) => {
                // Lines only grow between draft and issue.
                return Err(StoreError::Corrupt { what: "invoices: a draft of nothing" }.into());
            }
            (None, _) => None,
            (Some(content), BoundaryState::Drafted(invoice, _)) => Some((*invoice, content)),
            (Some(content), _) => {
                done.drafted = true;
                Some((self.insert_draft(tx, &content).await?, content))
            }
        };
        if let Some((invoice, content)) = invoice {
            usage::put_on_invoice(tx, index, invoice).await?;
            let issued = invoices::issue(tx, invoice, &content, self.close_due_at).await?;
            closing.invoice_id = Some(invoice);
            done.issued = Some(OpenInvoice {
                invoice_id: invoice,
                is_issued: true,
                issue_due_at: self.close_due_at,
                dunning_step: 0,
                next_attempt_at: (issued.due_minor > 0).then_some(self.close_due_at),
                give_up_at: None,
            });
        }
        closings::insert(tx, &closing).await?;
        Ok(done)
    }

    /// The plan in force at the ended period's last instant; none ended at the sign-up.
    fn ended_plan(&self, history: &PlanHistory) -> Option<Plan> {
        (self.period.index > 0).then(|| history.before(self.period.start))
    }

    /// The plan whose base the boundary charges: that of the draft where there is one, else the one in force at
    /// the period's first instant.
    pub(crate) fn starting_plan(&self, profile: &BillingProfile, history: &PlanHistory) -> Plan {
        let drafted = match self.state {
            BoundaryState::Drafted(_, base_minor) => {
                let base_minor = base_minor.unwrap_or(0);
                Plan::ALL.iter().copied().find(|plan| plan.base_price_minor(profile.currency) == base_minor)
            }
            _ => None,
        };
        drafted.unwrap_or_else(|| history.at(self.period.start))
    }

    /// What the boundary charges with so much usage; `None` if nothing.
    pub(crate) fn content(
        &self,
        profile: &BillingProfile,
        history: &PlanHistory,
        used: u64,
    ) -> Result<Option<InvoiceDraft>, BooksError> {
        let charge = SubscriptionCharge {
            currency: profile.currency,
            tax_rate_ppm: profile.tax_rate_ppm,
            ended: self.ended_plan(history).map(|plan| EndedPeriod { plan, usage_events: used }),
            starting_plan: Some(self.starting_plan(profile, history)),
        };
        Ok(subscription_invoice(&charge)?)
    }
}

/// The base that a draft charges.
fn base_minor(draft: &InvoiceDraft) -> Option<i64> {
    draft.lines.iter().find(|line| line.kind == LineKind::Base).map(|line| line.unit_price_minor)
}
