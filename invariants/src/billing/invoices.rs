//! Each period that is due has exactly one invoice, with the lines and the total the oracle computes.

use std::collections::BTreeMap;

use super::exactly_once::Books;
use crate::checker::{Breach, Case, Finding};
use crate::final_state::{InvoiceRow, TenantRow};
use crate::history::F;
use crate::model::{ExpectedInvoice, LineKind};

/// Kind, quantity, unit price, amount, tax.
type Line = (String, i64, i64, i64, i64);

pub(super) fn judge(case: &Case<'_>, books: &Books<'_>, found: &mut Finding) {
    for (tenant_id, (tenant, expected)) in &books.tenants {
        let actual = books.invoices.get(tenant_id).map_or(&[][..], Vec::as_slice);
        let mut by_period: BTreeMap<i64, Vec<&InvoiceRow>> = BTreeMap::new();
        for invoice in actual {
            by_period.entry(invoice.period_index).or_default().push(invoice);
        }
        for invoice in expected {
            let rows = by_period.remove(&i64::from(invoice.period_index)).unwrap_or_default();
            judge_period(books, tenant, invoice, &rows, found);
        }
        for (period, rows) in by_period {
            let what = format!("{} has an invoice for period {period}, for which none is due", tenant.label);
            let total = rows.iter().map(|row| row.total_minor).sum::<i64>();
            found.breach(Breach::new("invoice_not_due", what, "none", format!("total {total}")).of(&tenant.label));
        }
        judge_numbers(tenant, actual, found);
        judge_attachment(case, tenant_id, tenant, actual, found);
    }
    judge_shown(case, found);
}

fn judge_period(
    books: &Books<'_>,
    tenant: &TenantRow,
    expected: &ExpectedInvoice,
    rows: &[&InvoiceRow],
    found: &mut Finding,
) {
    let period = expected.period_index;
    let mut breach = |shape, what: String, expected: String, actual: String| {
        found.breach(Breach::new(shape, what, expected, actual).of(&tenant.label));
    };
    let [row] = rows else {
        let what = format!("{} has {} invoices for period {period}", tenant.label, rows.len());
        match rows.len() {
            0 if books.is_complete => breach("invoice_missed", what, "1".into(), "0".into()),
            0 => {}
            many => breach("invoice_doubled", what, "1".into(), many.to_string()),
        }
        return;
    };
    let bounds = |start: i64, end: i64| format!("{start} to {end}");
    let due = bounds(expected.period_start.as_microsecond(), expected.period_end.as_microsecond());
    let stated = bounds(row.period_start_us, row.period_end_us);
    if due != stated {
        breach("period_differs", format!("period {period} of {} has other bounds", tenant.label), due, stated);
    }
    if row.currency != expected.currency {
        let what = format!("invoice of {} for period {period} is in another currency", tenant.label);
        breach("invoice_currency_differs", what, expected.currency.clone(), row.currency.clone());
    }
    if !expected.is_final {
        return;
    }
    if row.state == "draft" {
        let what = format!("invoice of {} for period {period} was due to be issued", tenant.label);
        if books.is_complete {
            breach("invoice_never_issued", what, "issued".into(), "draft".into());
        }
        return;
    }
    let lines = |lines: &[Line]| lines.iter().map(|line| format!("{line:?}")).collect::<Vec<_>>().join(" ");
    let mut wanted: Vec<Line> = expected.lines.iter().map(line_of).collect();
    let mut stated: Vec<Line> = row
        .lines
        .iter()
        .map(|l| (l.kind.clone(), l.quantity, l.unit_price_minor, l.amount_minor, l.tax_minor))
        .collect();
    wanted.sort();
    stated.sort();
    if wanted != stated {
        let what = format!("the lines of {}'s invoice for period {period} are not the oracle's", tenant.label);
        breach("invoice_lines_differ", what, lines(&wanted), lines(&stated));
    }
    let (total, tax) = (expected.total_minor, expected.tax_minor);
    if (row.total_minor, row.tax_minor) != (total, tax) {
        let what = format!("the total of {}'s invoice for period {period} is not the oracle's", tenant.label);
        let stated = format!("{} with tax {}", row.total_minor, row.tax_minor);
        breach("invoice_total_differs", what, format!("{total} with tax {tax}"), stated);
    }
    found.saw_many("bills", 1);
}

fn line_of(line: &crate::model::ExpectedLine) -> Line {
    let kind = match line.kind {
        LineKind::Base => "base",
        LineKind::Overage => "usage",
    };
    let quantity = i64::try_from(line.quantity).unwrap_or(i64::MAX);
    (kind.to_owned(), quantity, line.unit_minor, line.amount_minor, line.tax_minor)
}

/// Numbers of issued invoices are 1, 2, 3, … without a gap.
fn judge_numbers(tenant: &TenantRow, invoices: &[&InvoiceRow], found: &mut Finding) {
    let issued = invoices.iter().filter(|invoice| invoice.state != "draft");
    let mut numbers: Vec<i64> = issued.map(|invoice| invoice.number.unwrap_or(0)).collect();
    numbers.sort_unstable();
    if !numbers.iter().copied().eq(1..=numbers.len() as i64) {
        let what = format!("the invoices of {} are not numbered without gaps", tenant.label);
        let expected = format!("1 to {}", numbers.len());
        found.breach(Breach::new("numbers_have_gaps", what, expected, format!("{numbers:?}")).of(&tenant.label));
    }
}

/// A usage event hangs on the invoice of the period after its own, once that is issued, or on none.
fn judge_attachment(
    case: &Case<'_>,
    tenant_id: &str,
    tenant: &TenantRow,
    invoices: &[&InvoiceRow],
    found: &mut Finding,
) {
    for event in case.evidence.final_state.usage_events.iter().filter(|event| event.tenant_id == tenant_id) {
        // The invoice that charges a stamp is that of the period beginning at or after it.
        let due = invoices
            .iter()
            .filter(|invoice| invoice.period_index > 0 && invoice.period_start_us > event.occurred_us)
            .min_by_key(|invoice| invoice.period_start_us);
        let is_next = |invoice: &&&InvoiceRow| {
            let before = invoices.iter().find(|other| other.period_index == invoice.period_index - 1);
            before.is_none_or(|before| before.period_start_us <= event.occurred_us)
        };
        let due = due.filter(is_next);
        let attached = event.invoice_id.as_deref();
        let is_right = match (due, attached) {
            (_, None) => due.is_none_or(|due| due.state == "draft"),
            (Some(due), Some(attached)) => due.invoice_id == attached,
            (None, Some(_)) => false,
        };
        if !is_right {
            let what = format!("usage of forecast {} of {} is on the wrong invoice", event.forecast_id, tenant.label);
            let expected = due.map_or("none", |due| due.invoice_id.as_str());
            let breach = Breach::new("usage_on_wrong_invoice", what, expected, attached.unwrap_or("none"));
            found.breach(breach.of(&tenant.label));
        }
    }
}

/// What a client was shown of an issued invoice is what is stored.
fn judge_shown(case: &Case<'_>, found: &mut Finding) {
    for op in case.timeline.ops.values().filter(|op| op.f() == F::InvoiceRead) {
        let Some(answer) = op.answer() else {
            continue;
        };
        let (Some(id), Some(shown)) = (answer.id.as_deref(), &answer.invoice) else {
            continue;
        };
        let Some(row) = case.rows.invoices.get(id).filter(|_| shown.state != "draft") else {
            continue;
        };
        found.saw("shown", &case.timeline, op.ended_ns(), op.f().name());
        let of_row: Vec<Line> = row
            .lines
            .iter()
            .map(|l| (l.kind.clone(), l.quantity, l.unit_price_minor, l.amount_minor, l.tax_minor))
            .collect();
        let of_answer: Vec<Line> = shown
            .lines
            .iter()
            .map(|l| (l.kind.clone(), l.quantity, l.unit_price_minor, l.amount_minor, l.tax_minor))
            .collect();
        let stored = (row.total_minor, row.tax_minor, &row.currency, row.number, of_row);
        let got = (shown.total_minor, shown.tax_minor, &shown.currency, shown.number, of_answer);
        if stored != got {
            let what = format!("{} was shown another invoice {id} than the one stored", op.who());
            let breach = Breach::new("shown_invoice_differs", what, format!("{stored:?}"), format!("{got:?}"));
            found.breach(breach.shown_by(op).of(op.who()));
        }
    }
}
