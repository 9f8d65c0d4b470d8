//! The rows of seeded customers, in COPY's text format: each as the interface, a worker and the billing run
//! would have left it.
//!
//! Of the books: every boundary between periods whose closing was due by the plan's present is closed, at
//! one plan from the sign-up on; each invoice was issued at that instant and paid by the first charge.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use chrono::{DateTime, Duration, TimeDelta, Utc};
use chrono_tz::Tz;
use forecastle_domain::{
    BillingCalendar, BillingTerms, ChargePurpose, Currency, EndedPeriod, InvoiceDraft, InvoiceId, Period, Plan,
    SubscriptionCharge, TenantId, subscription_invoice,
};
use rand::RngExt as _;
use rand::rngs::StdRng;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::error::StoreError;
use crate::payments::idempotency_key;
use crate::seed::{SeedPlan, SeedSummary, copy, history};

/// Where seeded customers are, by number.
const ZONES: [Tz; 5] = [Tz::UTC, Tz::Europe__Berlin, Tz::America__New_York, Tz::Asia__Tokyo, Tz::Australia__Sydney];
/// What they are taxed, parts per million, by number.
const TAX_RATES_PPM: [i64; 3] = [0, 190_000, 77_000];
/// From a forecast's request to its end, and from an invoice's issue to its payment.
const SHORTLY: TimeDelta = TimeDelta::seconds(2);

/// What all customers have in common, escaped once.
#[derive(Clone)]
pub(crate) struct Shared {
    input: Arc<str>,
    result: Arc<str>,
    password_hash: Arc<str>,
    engine_version: Arc<str>,
    email_prefix: Arc<str>,
    issue_after: Duration,
}

impl Shared {
    pub(crate) fn of(plan: &SeedPlan) -> Self {
        Self {
            input: escape(&plan.input.to_string()).into(),
            result: escape(&plan.result.to_string()).into(),
            password_hash: escape(&plan.password_hash).into(),
            engine_version: escape(&plan.engine_version).into(),
            email_prefix: escape(&plan.email_prefix).into(),
            issue_after: BillingTerms::default().issue_after,
        }
    }
}

/// Rows of one batch, one buffer for each table.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) summary: SeedSummary,
    tenants: String,
    users: String,
    scenarios: String,
    forecasts: String,
    jobs: String,
    quotas: String,
    invoices: String,
    invoice_lines: String,
    usage: String,
    payments: String,
    ledger: String,
    closings: String,
}

/// One customer while its rows are made.
struct Customer {
    tenant: Uuid,
    user: Uuid,
    plan: Plan,
    currency: Currency,
    tax_rate_ppm: i64,
    calendar: BillingCalendar,
    signed_up_at: DateTime<Utc>,
    payment_token: String,
}

/// A forecast that succeeded.
struct Finished {
    forecast: Uuid,
    at: DateTime<Utc>,
    billed: Option<(u32, Option<Uuid>)>,
}

impl Rows {
    pub(crate) fn add_customer(
        &mut self,
        plan: &SeedPlan,
        shared: &Shared,
        number: u32,
        rng: &mut StdRng,
    ) -> Result<(), StoreError> {
        let tier = match number % 10 {
            0..=5 => Plan::Free,
            6..=8 => Plan::Starter,
            _ => Plan::Pro,
        };
        let turn = number as usize / 10;
        let past = history(plan).mul_f64(rng.random::<f64>());
        let signed_up_at = microseconds(plan.at - TimeDelta::from_std(past).unwrap_or_default());
        let customer = Customer {
            tenant: id_at(signed_up_at, rng),
            user: id_at(signed_up_at, rng),
            plan: tier,
            currency: Currency::ALL[turn % Currency::ALL.len()],
            tax_rate_ppm: TAX_RATES_PPM[turn % TAX_RATES_PPM.len()],
            calendar: BillingCalendar::from_sign_up(ZONES[turn / Currency::ALL.len() % ZONES.len()], signed_up_at),
            signed_up_at,
            payment_token: if tier == Plan::Free { "\\N".to_owned() } else { format!("tok_seed_{number}") },
        };
        let mut finished = self.add_work(plan, shared, &customer, rng)?;
        let invoices = self.add_books(plan, shared, &customer, &mut finished, rng)?;
        for done in &finished {
            let (billed, invoice) = done.billed.map_or((None, None), |(index, invoice)| (Some(index), invoice));
            line(
                &mut self.usage,
                &[
                    &customer.tenant,
                    &id_at(done.at, rng),
                    &done.forecast,
                    &done.at.to_rfc3339(),
                    &or_null(invoice),
                    &or_null(billed),
                ],
            );
        }
        let Customer { tenant, user, .. } = customer;
        let at = signed_up_at.to_rfc3339();
        line(
            &mut self.tenants,
            &[
                &tenant,
                &format_args!("Customer {number}"),
                &tier,
                &customer.currency,
                &customer.calendar.zone.name(),
                &customer.tax_rate_ppm,
                &customer.calendar.anchor_date,
                &at,
                &customer.payment_token,
                &(invoices + 1),
            ],
        );
        let email = format!("{}-{number}@seed.example", shared.email_prefix);
        let name = format_args!("Owner {number}");
        line(&mut self.users, &[&tenant, &user, &email, &name, &shared.password_hash, &"owner", &at]);
        self.summary.customers += 1;
        Ok(())
    }

    /// Scenarios, finished forecasts with their jobs, and what they took of the quota.
    fn add_work(
        &mut self,
        plan: &SeedPlan,
        shared: &Shared,
        customer: &Customer,
        rng: &mut StdRng,
    ) -> Result<Vec<Finished>, StoreError> {
        let Customer { tenant, user, signed_up_at, .. } = customer;
        let at = signed_up_at.to_rfc3339();
        let mut first_scenario = None;
        for index in 0..plan.scenarios_each.min(customer.plan.scenario_limit().unwrap_or(u32::MAX)) {
            let scenario = id_at(*signed_up_at, rng);
            first_scenario.get_or_insert(scenario);
            let name = format_args!("Scenario {index}");
            line(&mut self.scenarios, &[tenant, &scenario, &name, &shared.input, &1, &at, &at]);
            self.summary.scenarios += 1;
        }
        let Some(scenario) = first_scenario else { return Ok(Vec::new()) };

        // No more in all than one period admits, so that no period admits too many.
        let count = plan.forecasts_each.min(customer.plan.forecast_cap().unwrap_or(u32::MAX));
        let span = (plan.at - *signed_up_at).to_std().unwrap_or_default();
        let mut times: Vec<_> = (0..count)
            .map(|_| microseconds(*signed_up_at + TimeDelta::from_std(span.mul_f64(rng.random())).unwrap_or_default()))
            .collect();
        times.sort_unstable();
        let mut finished = Vec::new();
        let mut taken: Vec<(u32, u32)> = Vec::new();
        for requested_at in times {
            let at = (requested_at + SHORTLY).min(plan.at.max(requested_at));
            let period = customer.calendar.period_containing(requested_at);
            let index = period.ok_or(StoreError::Corrupt { what: "a seeded time before the sign-up" })?.index;
            match taken.last_mut() {
                Some((last, count)) if *last == index => *count += 1,
                _ => taken.push((index, 1)),
            }
            let forecast = id_at(requested_at, rng);
            let (requested, ended) = (requested_at.to_rfc3339(), at.to_rfc3339());
            line(
                &mut self.forecasts,
                &[
                    tenant,
                    &forecast,
                    &scenario,
                    &1,
                    user,
                    &shared.input,
                    &"succeeded",
                    &shared.engine_version,
                    &shared.result,
                    &plan.result_hash,
                    &requested,
                    &requested,
                    &ended,
                    &index,
                    &"consumed",
                ],
            );
            let job: [&dyn Display; 9] =
                [tenant, &forecast, &"forecast", &forecast, &"succeeded", &0, &requested, &requested, &ended];
            line(&mut self.jobs, &job);
            finished.push(Finished { forecast, at, billed: None });
            self.summary.forecasts += 1;
        }
        for (index, count) in taken {
            line(&mut self.quotas, &[tenant, &index, &count]);
        }
        Ok(finished)
    }

    /// Closes every boundary that was due; how many invoices that made.
    fn add_books(
        &mut self,
        plan: &SeedPlan,
        shared: &Shared,
        customer: &Customer,
        finished: &mut [Finished],
        rng: &mut StdRng,
    ) -> Result<i64, StoreError> {
        let mut invoices = 0;
        for index in 0.. {
            let period = customer.calendar.period(index);
            let closed_at = period.start + shared.issue_after;
            // The payment follows the issue, and both lie in the past.
            if closed_at + SHORTLY > plan.at {
                break;
            }
            let counted = finished.iter().filter(|done| done.at < period.start && done.billed.is_none()).count();
            let charge = SubscriptionCharge {
                currency: customer.currency,
                tax_rate_ppm: customer.tax_rate_ppm,
                ended: (index > 0).then_some(EndedPeriod { plan: customer.plan, usage_events: counted as u64 }),
                starting_plan: Some(customer.plan),
            };
            let draft = subscription_invoice(&charge).map_err(|_| StoreError::Corrupt { what: "a seeded amount" })?;
            let invoice = draft.map(|draft| {
                invoices += 1;
                self.add_invoice(customer, &period, closed_at, invoices, &draft, rng)
            });
            for done in finished.iter_mut().filter(|done| done.at < period.start && done.billed.is_none()) {
                done.billed = Some((index, invoice));
            }
            let ended_plan = (index > 0).then_some(customer.plan);
            line(
                &mut self.closings,
                &[
                    &customer.tenant,
                    &index,
                    &or_null(ended_plan),
                    &customer.plan,
                    &counted,
                    &or_null(invoice),
                    &closed_at.to_rfc3339(),
                ],
            );
            self.summary.closings += 1;
        }
        Ok(invoices)
    }

    /// Issued, charged at once, posted twice.
    fn add_invoice(
        &mut self,
        customer: &Customer,
        period: &Period,
        issued_at: DateTime<Utc>,
        number: i64,
        draft: &InvoiceDraft,
        rng: &mut StdRng,
    ) -> Uuid {
        let (tenant, currency) = (customer.tenant, customer.currency);
        let (invoice, payment) = (id_at(issued_at, rng), id_at(issued_at, rng));
        let total = draft.total.amount_minor;
        let tax: i64 = draft.lines.iter().map(|line| line.tax_minor).sum();
        let (start, end) = (period.start.to_rfc3339(), period.end.to_rfc3339());
        let (issued, paid) = (issued_at.to_rfc3339(), (issued_at + SHORTLY).to_rfc3339());
        line(
            &mut self.invoices,
            &[
                &tenant,
                &invoice,
                &period.index,
                &"subscription",
                &0,
                &start,
                &end,
                &currency,
                &"paid",
                &number,
                &tax,
                &total,
                &start,
                &issued,
                &issued,
                &paid,
            ],
        );
        for (line_no, item) in (1..).zip(&draft.lines) {
            line(
                &mut self.invoice_lines,
                &[
                    &tenant,
                    &invoice,
                    &line_no as &dyn Display,
                    &item.kind,
                    &item.description,
                    &item.quantity,
                    &item.unit_price_minor,
                    &item.amount_minor,
                    &item.tax_minor,
                ],
            );
        }
        let key = idempotency_key(TenantId::from_uuid(tenant), InvoiceId::from_uuid(invoice), ChargePurpose::Invoice);
        line(
            &mut self.payments,
            &[
                &tenant,
                &payment,
                &invoice,
                &ChargePurpose::Invoice,
                &key,
                &total,
                &currency,
                &customer.payment_token,
                &"succeeded",
                &format_args!("ch_seed_{}", payment.simple()),
                &issued,
                &paid,
            ],
        );
        let owed = ("invoice_issued", invoice, &issued);
        self.post(customer, owed, "accounts_receivable", total, 0, rng);
        self.post(customer, owed, "revenue", 0, total - tax, rng);
        self.post(customer, owed, "tax_payable", 0, tax, rng);
        let received = ("payment_received", payment, &paid);
        self.post(customer, received, "cash", total, 0, rng);
        self.post(customer, received, "accounts_receivable", 0, total, rng);
        self.summary.invoices += 1;
        invoice
    }

    /// One entry; one of nothing is left out, as in [`crate::ledger`].
    fn post(
        &mut self,
        customer: &Customer,
        (kind, reference, at): (&str, Uuid, &String),
        account: &str,
        debit: i64,
        credit: i64,
        rng: &mut StdRng,
    ) {
        if debit != credit {
            let entry = id_at(customer.signed_up_at, rng);
            let row: [&dyn Display; 9] =
                [&customer.tenant, &entry, &kind, &reference, &account, &customer.currency, &debit, &credit, at];
            line(&mut self.ledger, &row);
        }
    }

    /// Parents first; the books' triggers look when the transaction commits.
    pub(crate) async fn copy_all(&self, admin: &mut PgConnection) -> Result<(), StoreError> {
        let tables = [
            (
                "COPY app.tenants (tenant_id, organization, plan, currency, time_zone, tax_rate_ppm, anchor_date, \
                 signed_up_at, payment_token, next_invoice_number) FROM STDIN",
                &self.tenants,
            ),
            (
                "COPY app.users (tenant_id, user_id, email, name, password_hash, role, created_at) FROM STDIN",
                &self.users,
            ),
            (
                "COPY app.scenarios (tenant_id, scenario_id, name, input, version, created_at, updated_at) FROM STDIN",
                &self.scenarios,
            ),
            (
                "COPY app.forecasts (tenant_id, forecast_id, scenario_id, scenario_version, requested_by, input, \
                 state, engine_version, result_json, result_hash, requested_at, started_at, finished_at, quota_period, \
                 quota_state) FROM STDIN",
                &self.forecasts,
            ),
            (
                "COPY app.jobs (tenant_id, job_id, kind, subject_id, state, attempts, ready_at, enqueued_at, \
                 finished_at) FROM STDIN",
                &self.jobs,
            ),
            ("COPY app.quota_periods (tenant_id, period_index, taken) FROM STDIN", &self.quotas),
            (
                "COPY app.invoices (tenant_id, invoice_id, period_index, kind, sequence, period_start, period_end, \
                 currency, state, number, tax_minor, total_minor, drafted_at, issue_due_at, issued_at, paid_at) \
                 FROM STDIN",
                &self.invoices,
            ),
            (
                "COPY app.invoice_lines (tenant_id, invoice_id, line_no, kind, description, quantity, \
                 unit_price_minor, amount_minor, tax_minor) FROM STDIN",
                &self.invoice_lines,
            ),
            (
                "COPY app.usage_events (tenant_id, usage_event_id, forecast_id, occurred_at, invoice_id, \
                 billed_period_index) FROM STDIN",
                &self.usage,
            ),
            (
                "COPY app.payments (tenant_id, payment_id, invoice_id, purpose, idempotency_key, amount_minor, \
                 currency, payment_token, state, provider_charge_id, created_at, updated_at) FROM STDIN",
                &self.payments,
            ),
            (
                "COPY app.ledger_entries (tenant_id, entry_id, posting_kind, posting_ref, account, currency, \
                 debit_minor, credit_minor, posted_at) FROM STDIN",
                &self.ledger,
            ),
            (
                "COPY app.period_closings (tenant_id, period_index, ended_plan, started_plan, usage_events, \
                 invoice_id, closed_at) FROM STDIN",
                &self.closings,
            ),
        ];
        for (statement, rows) in tables {
            copy(admin, statement, rows).await?;
        }
        Ok(())
    }
}

/// An id of version 7 for a moment, its random part from the seed.
fn id_at(at: DateTime<Utc>, rng: &mut StdRng) -> Uuid {
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &rng.random()).into_uuid()
}

/// What the database keeps of a time.
fn microseconds(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(at.timestamp_micros()).unwrap_or(at)
}

fn or_null(value: Option<impl Display>) -> String {
    value.map_or_else(|| "\\N".to_owned(), |value| value.to_string())
}

fn line(buffer: &mut String, fields: &[&dyn Display]) {
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            buffer.push('\t');
        }
        let _ = write!(buffer, "{field}");
    }
    buffer.push('\n');
}

/// COPY's text format gives meaning to these four characters.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_break_out_of_their_row() {
        assert_eq!(escape("a\tb\nc\\d\r"), "a\\tb\\nc\\\\d\\r");
    }

    #[test]
    fn ids_of_one_seed_are_the_same_and_of_two_are_not() {
        use rand::SeedableRng as _;
        let of = |seed| id_at(DateTime::UNIX_EPOCH, &mut StdRng::seed_from_u64(seed));
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_eq!(of(1).get_version_num(), 7);
    }
}
