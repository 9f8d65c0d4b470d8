//! What an event of the provider changes. It races the run and the request that made the charge; whoever
//! is first writes, under the tenant's lock, and the others find it written.

use forecastle_domain::BillingTerms;
use forecastle_store::payments::{self, PaymentState, Received};
use forecastle_store::webhooks::{self, ChargedPayment, EventRecord};
use forecastle_store::{Db, StoreError, TenantTx, periods};

use crate::charge::record_charged;
use crate::webhook_event::{ChargeEvent, EventKind};

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOutcome {
    /// It changed the books.
    Applied,
    /// It says what is known, or what a later event or answer has overtaken.
    NothingNew,
    /// It was taken in before.
    Duplicate,
    /// It is about no charge of ours; nothing is written.
    UnknownCharge,
    /// It is about a charge of ours, but tells of another amount, currency or charge.
    Mismatch,
}

impl EventOutcome {
    /// A stable word for rows and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::NothingNew => "nothing_new",
            Self::Duplicate => "duplicate",
            Self::UnknownCharge => "unknown_charge",
            Self::Mismatch => "mismatch",
        }
    }
}

/// Takes an event in, once: it is written down first, and what it changes commits with it.
///
/// # Errors
/// As [`StoreError`] says; the same event may then be sent again.
pub async fn take_in_event(db: &Db, event: &ChargeEvent, terms: &BillingTerms) -> Result<EventOutcome, StoreError> {
    let mut tx = db.tenant(event.tenant).begin().await?;
    match periods::lock_tenant(&mut tx).await {
        Err(StoreError::NotFound) => return Ok(EventOutcome::UnknownCharge),
        locked => locked?,
    };
    let Some(charged) = webhooks::lock_payment(&mut tx, event.invoice, &event.key).await? else {
        return Ok(EventOutcome::UnknownCharge);
    };
    let record = EventRecord {
        event_id: &event.event_id,
        kind: event.kind.as_str(),
        charge_key: &event.key,
        sent_at: event.sent_at,
    };
    if !webhooks::note(&mut tx, &record).await? {
        return Ok(EventOutcome::Duplicate);
    }
    let outcome = apply(&mut tx, event, &charged, terms).await?;
    webhooks::set_outcome(&mut tx, &event.event_id, outcome.as_str()).await?;
    tx.commit().await?;
    if outcome == EventOutcome::Mismatch {
        tracing::error!(event = event.kind.as_str(), "an event does not fit the charge it is about");
    }
    Ok(outcome)
}

async fn apply(
    tx: &mut TenantTx,
    event: &ChargeEvent,
    charged: &ChargedPayment,
    terms: &BillingTerms,
) -> Result<EventOutcome, StoreError> {
    let payment = &charged.payment;
    let is_another = charged.charge_id.as_deref().is_some_and(|known| known != event.charge_id);
    if event.amount_minor != payment.amount_minor || event.currency != payment.currency.as_str() || is_another {
        return Ok(EventOutcome::Mismatch);
    }
    let changed = match event.kind {
        EventKind::Succeeded => record_charged(tx, payment, &event.charge_id).await? != Received::Known,
        // Only what was asked and not answered: a decline is final for its key.
        EventKind::Failed if payment.state == PaymentState::Unknown => {
            payments::record_decline(tx, payment, terms).await?
        }
        EventKind::Failed => false,
        EventKind::Refunded if !(0..=payment.amount_minor).contains(&event.refunded_minor) => {
            return Ok(EventOutcome::Mismatch);
        }
        EventKind::Refunded => {
            // Out of order: the refund tells of the charge as well.
            let is_news = record_charged(tx, payment, &event.charge_id).await? != Received::Known;
            let mut charged = charged.clone();
            if payment.state != PaymentState::Failed {
                charged.payment.state = PaymentState::Succeeded;
            }
            webhooks::record_refund(tx, &charged, event.refunded_minor).await? || is_news
        }
    };
    Ok(if changed { EventOutcome::Applied } else { EventOutcome::NothingNew })
}
