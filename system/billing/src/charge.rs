//! Collects one payment. The intent is committed already; the provider is asked outside any transaction;
//! what it answers is recorded by a change of state that can happen once.

use std::time::Duration;

use forecastle_domain::{BillingTerms, TenantId};
use forecastle_store::payments::{self, Payment, PaymentState, Received};
use forecastle_store::{Db, StoreError, TenantTx, periods};

use crate::cached::Cached;
use crate::patience::{Patience, PaymentPatience};
use crate::provider::{ChargeAnswer, LookUp, Provider};

/// Requests for one charge in one run; all with the same key.
const CHARGE_ROUNDS_MAX: u32 = 3;
/// Questions after an unclear answer, before the charge is asked for again.
const LOOK_UPS_MAX: u32 = 3;
/// First pause between questions; doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Tries to record an answer while the database does not take it.
const RECORD_TRIES_MAX: u32 = 6;

/// How a payment stands after the run's work on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collected {
    /// Paid, and this run recorded it.
    Charged,
    /// Paid, and another run recorded it.
    AlreadyRecorded,
    /// The money is the customer's credit, and this run recorded it: the payment counts as declined.
    Credited,
    /// Still not known.
    Unknown,
    /// The provider said no, and this run recorded it.
    Declined,
}

/// Asks for the charge until the answer is clear, at most three times and as long as patience lasts, and records
/// it. What was not asked for stays as it was, and counts as unknown.
pub(crate) async fn collect(
    db: &Db,
    provider: &Provider,
    tenant: TenantId,
    payment: &Payment,
    terms: &BillingTerms,
    cached: &Cached,
    patience: &Patience,
) -> Result<Collected, StoreError> {
    let record = async |answer: Answer| match answer {
        Answer::Unknown => record(db, tenant, payment, &answer, terms).await,
        // Either may change the plan, or whose limits hold.
        Answer::Charged(_) | Answer::Declined => {
            cached.announce(tenant).await;
            let recorded = record(db, tenant, payment, &answer, terms).await;
            match &recorded {
                // It may be committed yet: the cached values stay blocked for longer than that can take.
                Err(error) if error.is_unavailable() => cached.announce(tenant).await,
                _ => cached.delete(tenant).await,
            }
            recorded
        }
    };
    let Some(token) = payment.payment_token.as_deref() else { return record(Answer::Declined).await };
    let mut ask_first = payment.state == PaymentState::Unknown;
    let mut patience = patience.for_payment();
    for _ in 0..CHARGE_ROUNDS_MAX {
        if ask_first && let LookUp::Found { provider_charge_id } = find(provider, payment, &mut patience).await {
            return record(Answer::Charged(provider_charge_id)).await;
        }
        if !patience.lasts() {
            return Ok(Collected::Unknown);
        }
        match patience.ask(ChargeAnswer::Unclear, provider.charge(payment, token)).await {
            ChargeAnswer::Charged { provider_charge_id } => {
                return record(Answer::Charged(provider_charge_id)).await;
            }
            ChargeAnswer::Declined => return record(Answer::Declined).await,
            answer @ (ChargeAnswer::Refused | ChargeAnswer::Unclear) => {
                // Written before the question: a run killed here leaves "unknown", not "intended".
                record(Answer::Unknown).await?;
                if answer == ChargeAnswer::Refused {
                    match find(provider, payment, &mut patience).await {
                        LookUp::Found { provider_charge_id } => {
                            return record(Answer::Charged(provider_charge_id)).await;
                        }
                        LookUp::Absent => return record(Answer::Declined).await,
                        LookUp::Unclear => {}
                    }
                }
                metrics::counter!("forecastle_charges_unclear_total").increment(1);
                ask_first = true;
            }
        }
    }
    match find(provider, payment, &mut patience).await {
        LookUp::Found { provider_charge_id } => record(Answer::Charged(provider_charge_id)).await,
        LookUp::Absent | LookUp::Unclear => Ok(Collected::Unknown),
    }
}

/// What the provider holds for the key; asked again while it does not say so clearly.
async fn find(provider: &Provider, payment: &Payment, patience: &mut PaymentPatience<'_>) -> LookUp {
    let mut pause = PAUSE_MIN;
    for _ in 0..LOOK_UPS_MAX {
        if !patience.lasts() {
            break;
        }
        match patience.ask(LookUp::Unclear, provider.look_up(payment)).await {
            LookUp::Unclear => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            clear => return clear,
        }
    }
    LookUp::Unclear
}

enum Answer {
    Charged(String),
    Unknown,
    Declined,
}

/// Safe to repeat, so a lost answer of the database is simply tried again.
async fn record(
    db: &Db,
    tenant: TenantId,
    payment: &Payment,
    answer: &Answer,
    terms: &BillingTerms,
) -> Result<Collected, StoreError> {
    let mut pause = PAUSE_MIN;
    for _ in 1..RECORD_TRIES_MAX {
        match record_once(db, tenant, payment, answer, terms).await {
            Err(error) if error.is_unavailable() => {
                tracing::warn!(error = %error, "record payment");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
    record_once(db, tenant, payment, answer, terms).await
}

async fn record_once(
    db: &Db,
    tenant: TenantId,
    payment: &Payment,
    answer: &Answer,
    terms: &BillingTerms,
) -> Result<Collected, StoreError> {
    let mut tx = db.tenant(tenant).begin().await?;
    periods::lock_tenant(&mut tx).await?;
    let outcome = match answer {
        Answer::Charged(id) => match record_charged(&mut tx, payment, id).await? {
            Received::Paid => Collected::Charged,
            Received::Credited => Collected::Credited,
            Received::Known => Collected::AlreadyRecorded,
        },
        Answer::Unknown => {
            payments::record_unknown(&mut tx, payment.payment_id).await?;
            Collected::Unknown
        }
        Answer::Declined => match payments::record_decline(&mut tx, payment, terms).await? {
            true => Collected::Declined,
            false => Collected::AlreadyRecorded,
        },
    };
    tx.commit().await?;
    Ok(outcome)
}

/// Records that the provider took the money, whoever heard of it.
pub(crate) async fn record_charged(
    tx: &mut TenantTx,
    payment: &Payment,
    charge_id: &str,
) -> Result<Received, StoreError> {
    let received = payments::record_success(tx, payment, charge_id).await?;
    if received == Received::Credited {
        tracing::error!("the provider took money for a charge that had been declined; credited");
    }
    Ok(received)
}
