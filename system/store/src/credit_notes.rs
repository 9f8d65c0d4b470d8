//! Credit notes: what corrects an issued invoice, which itself never changes.
//!
//! What the invoice still owed is owed no more; what was paid beyond that becomes the customer's credit,
//! which the next invoices use up when they are issued. Per line at most what the line has left, and its
//! tax in proportion, so that a line credited in parts ends with exactly its tax. The database checks both
//! at commit. Every function that writes expects the tenant's lock ([`crate::periods::lock_tenant`]).

use forecastle_domain::{Currency, InvoiceId, round_half_away};
use sqlx::FromRow;
use uuid::Uuid;

use crate::error::StoreError;
use crate::scope::TenantTx;
use crate::{dunning, ledger};

/// Of one line of an invoice, what is to be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineCredit {
    /// The invoice's line, from 1.
    pub line_no: i32,
    /// Before tax, in minor units; of the line's own sign, and not 0.
    pub amount_minor: i64,
}

/// A credit note as it was made.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct CreditNote {
    credit_note_id: Uuid,
    /// Without gaps per tenant, counted apart from invoices.
    pub number: i64,
    /// With tax, minor units.
    pub total_minor: i64,
    /// Of it, what was still owed and is not any more.
    pub to_receivable_minor: i64,
    /// Of it, what was paid and is the customer's credit now.
    pub to_balance_minor: i64,
}

impl CreditNote {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.credit_note_id
    }
}

/// What came of asking for a credit note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credited {
    /// Made, now or by an earlier request of the same key.
    Note(CreditNote),
    /// A charge of the invoice is open: whether it is paid must be known first.
    ChargeOpen,
    /// The invoice is a draft, void or uncollectible: there is nothing to correct.
    NotCreditable,
    /// More than a line has left, a line that is not there, the wrong sign, or nothing in all.
    OutOfBounds,
}

#[derive(FromRow)]
struct InvoiceRow {
    state: String,
    currency: String,
    total_minor: i64,
    credited_minor: i64,
    credit_applied_minor: i64,
    has_open_payment: bool,
}

#[derive(FromRow)]
struct LineRow {
    line_no: i32,
    amount_minor: i64,
    tax_minor: i64,
    credited_minor: i64,
    credited_tax_minor: i64,
}

/// Credits all that an invoice has left.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn credit_all(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    reason: &str,
    request_key: &str,
) -> Result<Credited, StoreError> {
    let lines = lines_of(tx, invoice).await?;
    let wanted: Vec<LineCredit> = lines
        .iter()
        .map(|line| LineCredit { line_no: line.line_no, amount_minor: line.amount_minor - line.credited_minor })
        .filter(|credit| credit.amount_minor != 0)
        .collect();
    credit(tx, invoice, &wanted, reason, request_key).await
}

/// Makes a credit note over some lines of an issued or paid invoice; `request_key` makes it once, whatever
/// is asked for the second time. An invoice that was unpaid and is credited in full is void.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn credit(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    wanted: &[LineCredit],
    reason: &str,
    request_key: &str,
) -> Result<Credited, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    if let Some(made) = of_request(tx, request_key).await? {
        return Ok(Credited::Note(made));
    }
    let head = sqlx::query_as(
        "SELECT i.state, i.currency, i.total_minor, i.credited_minor, i.credit_applied_minor,
                EXISTS (SELECT 1 FROM app.payments p
                        WHERE p.tenant_id = i.tenant_id AND p.invoice_id = i.invoice_id
                          AND p.state IN ('intended', 'unknown')) AS has_open_payment
         FROM app.invoices i WHERE i.tenant_id = $1 AND i.invoice_id = $2 FOR NO KEY UPDATE OF i",
    );
    let head: InvoiceRow = tx.one(head.bind(tenant).bind(invoice.as_uuid())).await?;
    if head.has_open_payment {
        return Ok(Credited::ChargeOpen);
    }
    if !matches!(head.state.as_str(), "issued" | "paid") {
        return Ok(Credited::NotCreditable);
    }
    let Some(lines) = fit(&lines_of(tx, invoice).await?, wanted) else { return Ok(Credited::OutOfBounds) };
    let tax_minor: i64 = lines.iter().map(|line| line.tax_minor).sum();
    let total_minor: i64 = lines.iter().map(|line| line.amount_minor + line.tax_minor).sum();
    if total_minor <= 0 || total_minor > head.total_minor - head.credited_minor {
        return Ok(Credited::OutOfBounds);
    }
    let due = match head.state.as_str() {
        "issued" => (head.total_minor - head.credit_applied_minor - head.credited_minor).max(0),
        _ => 0,
    };
    let note =
        insert(tx, invoice, &head, &lines, (tax_minor, total_minor, total_minor.min(due)), (reason, request_key))
            .await?;
    let currency: Currency = head.currency.parse().map_err(|_| StoreError::Corrupt { what: "invoices.currency" })?;
    ledger::post_credit_note(tx, note.id(), currency, tax_minor, &note).await?;
    move_invoice(tx, invoice, &head, total_minor).await?;
    let balance =
        sqlx::query("UPDATE app.tenants SET credit_balance_minor = credit_balance_minor + $2 WHERE tenant_id = $1");
    tx.execute(balance.bind(tenant).bind(note.to_balance_minor)).await?;
    dunning::clear_past_due(tx).await?;
    Ok(Credited::Note(note))
}

/// The credit note a request made.
///
/// # Errors
/// As [`StoreError`] says.
pub async fn of_request(tx: &mut TenantTx, request_key: &str) -> Result<Option<CreditNote>, StoreError> {
    let query = sqlx::query_as(
        "SELECT credit_note_id, number, total_minor, to_receivable_minor, to_balance_minor
         FROM app.credit_notes WHERE tenant_id = $1 AND request_key = $2",
    );
    tx.optional(query.bind(tx.tenant_id().as_uuid()).bind(request_key)).await
}

/// Uses the tenant's credit for an invoice that was just issued, as far as it goes; what is still owed.
///
/// # Errors
/// As [`StoreError`] says.
pub(crate) async fn apply_balance(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    currency: Currency,
    total_minor: i64,
) -> Result<i64, StoreError> {
    let query = sqlx::query_as(
        "UPDATE app.tenants t SET credit_balance_minor = t.credit_balance_minor - least(t.credit_balance_minor, $2)
         FROM (SELECT tenant_id, credit_balance_minor AS before FROM app.tenants WHERE tenant_id = $1) old
         WHERE t.tenant_id = old.tenant_id AND old.before > 0
         RETURNING least(old.before, $2)",
    );
    let used: Option<(i64,)> = tx.optional(query.bind(tx.tenant_id().as_uuid()).bind(total_minor)).await?;
    let Some((used_minor,)) = used else { return Ok(total_minor) };
    let query = sqlx::query(
        "UPDATE app.invoices
         SET credit_applied_minor = $3,
             state = CASE WHEN $3 = total_minor THEN 'paid' ELSE state END,
             paid_at = CASE WHEN $3 = total_minor THEN issued_at END
         WHERE tenant_id = $1 AND invoice_id = $2",
    );
    tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid()).bind(used_minor)).await?;
    ledger::post_credit_applied(tx, invoice, currency, used_minor).await?;
    Ok(total_minor - used_minor)
}

async fn lines_of(tx: &mut TenantTx, invoice: InvoiceId) -> Result<Vec<LineRow>, StoreError> {
    let query = sqlx::query_as(
        "SELECT l.line_no, l.amount_minor, l.tax_minor, coalesce(sum(c.amount_minor), 0)::bigint AS credited_minor,
                coalesce(sum(c.tax_minor), 0)::bigint AS credited_tax_minor
         FROM app.invoice_lines l
         LEFT JOIN app.credit_note_lines c
           ON c.tenant_id = l.tenant_id AND c.invoice_id = l.invoice_id AND c.invoice_line_no = l.line_no
         WHERE l.tenant_id = $1 AND l.invoice_id = $2
         GROUP BY l.line_no, l.amount_minor, l.tax_minor ORDER BY l.line_no",
    );
    tx.all(query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid())).await
}

struct NoteLine {
    line_no: i32,
    amount_minor: i64,
    tax_minor: i64,
}

/// The note's lines with their taxes; `None` where one does not fit.
fn fit(lines: &[LineRow], wanted: &[LineCredit]) -> Option<Vec<NoteLine>> {
    let mut fitted: Vec<NoteLine> = Vec::with_capacity(wanted.len());
    for credit in wanted {
        let line = lines.iter().find(|line| line.line_no == credit.line_no)?;
        let after = line.credited_minor.checked_add(credit.amount_minor)?;
        let same_sign = credit.amount_minor.signum() == line.amount_minor.signum() && credit.amount_minor != 0;
        if !same_sign || after.abs() > line.amount_minor.abs() || fitted.iter().any(|f| f.line_no == line.line_no) {
            return None;
        }
        // The tax on all that was credited of the line so far, less what was given back of it already.
        let sign = i128::from(line.amount_minor.signum());
        let tax = i128::from(line.tax_minor) * i128::from(after) * sign;
        let tax = round_half_away(tax, i128::from(line.amount_minor) * sign).ok()?;
        fitted.push(NoteLine {
            line_no: line.line_no,
            amount_minor: credit.amount_minor,
            tax_minor: tax - line.credited_tax_minor,
        });
    }
    Some(fitted)
}

async fn insert(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    head: &InvoiceRow,
    lines: &[NoteLine],
    (tax_minor, total_minor, to_receivable_minor): (i64, i64, i64),
    (reason, request_key): (&str, &str),
) -> Result<CreditNote, StoreError> {
    let tenant = tx.tenant_id().as_uuid();
    let query = sqlx::query_as(
        "WITH taken AS (
             UPDATE app.tenants SET next_credit_note_number = next_credit_note_number + 1
             WHERE tenant_id = $1 RETURNING next_credit_note_number - 1 AS number)
         INSERT INTO app.credit_notes (tenant_id, credit_note_id, invoice_id, number, request_key, reason, currency,
                                       tax_minor, total_minor, to_receivable_minor, to_balance_minor, issued_at)
         SELECT $1, $2, $3, taken.number, $4, $5, $6, $7, $8, $9, $8 - $9, now() FROM taken
         RETURNING credit_note_id, number, total_minor, to_receivable_minor, to_balance_minor",
    );
    let query = query
        .bind(tenant)
        .bind(Uuid::now_v7())
        .bind(invoice.as_uuid())
        .bind(request_key)
        .bind(reason)
        .bind(&head.currency)
        .bind(tax_minor)
        .bind(total_minor)
        .bind(to_receivable_minor);
    let note: CreditNote = tx.one(query).await?;
    for (line_no, line) in (1_i32..).zip(lines) {
        let query = sqlx::query(
            "INSERT INTO app.credit_note_lines (tenant_id, credit_note_id, line_no, invoice_id, invoice_line_no,
                                                amount_minor, tax_minor)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        );
        let query = query
            .bind(tenant)
            .bind(note.id())
            .bind(line_no)
            .bind(invoice.as_uuid())
            .bind(line.line_no)
            .bind(line.amount_minor)
            .bind(line.tax_minor);
        tx.execute(query).await?;
    }
    Ok(note)
}

/// Adds to what the invoice was credited. One that owes nothing any more is void if it was credited in full,
/// and paid if the customer's credit had covered a part.
async fn move_invoice(
    tx: &mut TenantTx,
    invoice: InvoiceId,
    head: &InvoiceRow,
    credit_minor: i64,
) -> Result<(), StoreError> {
    let credited = head.credited_minor + credit_minor;
    let next = match head.state.as_str() {
        "issued" if credited == head.total_minor => "void",
        "issued" if credited + head.credit_applied_minor >= head.total_minor => "paid",
        unchanged => unchanged,
    };
    let query = sqlx::query(
        "UPDATE app.invoices
         SET credited_minor = $3, state = $4,
             voided_at = CASE WHEN $4 = 'void' THEN greatest(now(), issued_at) END,
             paid_at = CASE WHEN $4 = 'paid' THEN coalesce(paid_at, greatest(now(), issued_at)) END,
             next_attempt_at = CASE WHEN $4 = 'issued' THEN next_attempt_at END
         WHERE tenant_id = $1 AND invoice_id = $2",
    );
    tx.execute(query.bind(tx.tenant_id().as_uuid()).bind(invoice.as_uuid()).bind(credited).bind(next)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(amount_minor: i64, tax_minor: i64, credited: (i64, i64)) -> LineRow {
        LineRow { line_no: 1, amount_minor, tax_minor, credited_minor: credited.0, credited_tax_minor: credited.1 }
    }

    fn tax_of(line: &LineRow, amount_minor: i64) -> Option<i64> {
        fit(std::slice::from_ref(line), &[LineCredit { line_no: 1, amount_minor }]).map(|lines| lines[0].tax_minor)
    }

    #[test]
    fn a_line_credited_in_parts_gives_back_exactly_its_tax() {
        let mut credited = (0, 0);
        for part in [1_000, 1, 999, 900] {
            let tax = tax_of(&line(2_900, 551, credited), part).unwrap();
            credited = (credited.0 + part, credited.1 + tax);
        }
        assert_eq!(credited, (2_900, 551));
        let mut negative = (0, 0);
        for part in [-7, -3] {
            let tax = tax_of(&line(-10, -2, negative), part).unwrap();
            negative = (negative.0 + part, negative.1 + tax);
        }
        assert_eq!(negative, (-10, -2));
    }

    #[test]
    fn more_than_is_left_the_wrong_sign_and_an_absent_line_do_not_fit() {
        assert_eq!(tax_of(&line(2_900, 551, (2_000, 380)), 901), None);
        assert_eq!(tax_of(&line(2_900, 551, (0, 0)), -1), None);
        assert_eq!(tax_of(&line(2_900, 551, (0, 0)), 0), None);
        assert_eq!(tax_of(&line(2_900, 551, (0, 0)), i64::MAX), None);
        assert!(fit(&[line(1, 0, (0, 0))], &[LineCredit { line_no: 2, amount_minor: 1 }]).is_none());
        let twice = [LineCredit { line_no: 1, amount_minor: 1 }; 2];
        assert!(fit(&[line(10, 0, (0, 0))], &twice).is_none());
    }
}
