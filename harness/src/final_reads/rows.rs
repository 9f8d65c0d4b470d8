//! Rows of the system's tables, as JSON made by the server, in one read-only snapshot.
//!
//! The statements name the columns of the schema contract and alias them to the fields of the final state; a column that
//! is missing is an error of the run, never an empty list.

use anyhow::Context;
use nogo_invariants::Canaries;
use nogo_invariants::final_state::{
    FinalState, ForecastRow, IdempotencyKeyRow, InvoiceRow, JobAttemptRow, JobRow, LedgerEntryRow, PaymentRow,
    PlanUpgradeRow, QuotaPeriodRow, RefreshTokenRow, ScenarioRow, SessionRow, TenantRow, UsageEventRow, UserRow,
    WebhookEventRow,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sqlx::{Connection, PgConnection};

const TENANTS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'plan', plan, 'currency', currency,
    'zone', time_zone, 'tax_rate_ppm', tax_rate_ppm, 'payment_token', payment_token,
    'signed_up_us', (extract(epoch from signed_up_at) * 1000000)::bigint, 'text', organization)::text
    FROM app.tenants ORDER BY tenant_id";

const USERS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'user_id', user_id, 'role', role)::text
    FROM app.users ORDER BY tenant_id, user_id";

const SESSIONS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'session_id', session_id, 'user_id', user_id,
    'revoked_us', (extract(epoch from revoked_at) * 1000000)::bigint)::text
    FROM app.sessions ORDER BY tenant_id, session_id";

const SCENARIOS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'scenario_id', scenario_id,
    'version', version, 'text', concat_ws(' ', name, notes, input::text))::text
    FROM app.scenarios ORDER BY tenant_id, scenario_id";

const FORECASTS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'forecast_id', forecast_id,
    'scenario_id', scenario_id, 'scenario_version', scenario_version, 'requested_by', requested_by, 'state', state,
    'engine_version', engine_version, 'input', input, 'result', coalesce(result_json, result::json), 'result_hash', result_hash,
    'error_code', error_code, 'quota_state', quota_state, 'quota_period', quota_period,
    'requested_us', (extract(epoch from requested_at) * 1000000)::bigint,
    'started_us', (extract(epoch from started_at) * 1000000)::bigint,
    'finished_us', (extract(epoch from finished_at) * 1000000)::bigint,
    'text', concat_ws(' ', input::text, result::text, result_json::text))::text
    FROM app.forecasts ORDER BY tenant_id, forecast_id";

const JOBS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'job_id', job_id, 'subject_id', subject_id,
    'state', state, 'attempts', attempts, 'fence', fence, 'seq', seq, 'last_error_code', last_error_code,
    'enqueued_us', (extract(epoch from enqueued_at) * 1000000)::bigint,
    'finished_us', (extract(epoch from finished_at) * 1000000)::bigint)::text
    FROM app.jobs WHERE kind = 'forecast' ORDER BY tenant_id, job_id";

const JOB_ATTEMPTS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'job_id', job_id, 'attempt', attempt,
    'fence', fence, 'worker', worker, 'outcome', outcome,
    'claimed_us', (extract(epoch from claimed_at) * 1000000)::bigint,
    'ended_us', (extract(epoch from ended_at) * 1000000)::bigint)::text
    FROM app.job_attempts ORDER BY tenant_id, job_id, attempt";

const USAGE_EVENTS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'usage_event_id', usage_event_id,
    'forecast_id', forecast_id, 'invoice_id', invoice_id,
    'occurred_us', (extract(epoch from occurred_at) * 1000000)::bigint)::text
    FROM app.usage_events ORDER BY tenant_id, usage_event_id";

const QUOTA_PERIODS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'period_index', period_index,
    'taken', taken)::text FROM app.quota_periods ORDER BY tenant_id, period_index";

const IDEMPOTENCY_KEYS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'user_id', user_id, 'key', key,
    'state', state, 'status', status, 'text', response)::text
    FROM app.idempotency_keys ORDER BY tenant_id, user_id, key";

const INVOICES: &str = "SELECT json_build_object('tenant_id', i.tenant_id, 'invoice_id', i.invoice_id,
    'period_index', i.period_index, 'kind', i.kind, 'currency', i.currency, 'state', i.state, 'number', i.number,
    'tax_minor', i.tax_minor, 'total_minor', i.total_minor,
    'period_start_us', (extract(epoch from i.period_start) * 1000000)::bigint,
    'period_end_us', (extract(epoch from i.period_end) * 1000000)::bigint,
    'lines', coalesce((SELECT json_agg(json_build_object('line_no', l.line_no, 'kind', l.kind, 'quantity', l.quantity,
        'unit_price_minor', l.unit_price_minor, 'amount_minor', l.amount_minor, 'tax_minor', l.tax_minor)
        ORDER BY l.line_no) FROM app.invoice_lines l
        WHERE l.tenant_id = i.tenant_id AND l.invoice_id = i.invoice_id), '[]'::json))::text
    FROM app.invoices i ORDER BY i.tenant_id, i.invoice_id";

const PAYMENTS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'payment_id', payment_id,
    'invoice_id', invoice_id, 'purpose', purpose, 'idempotency_key', idempotency_key, 'amount_minor', amount_minor,
    'currency', currency, 'state', state, 'provider_charge_id', provider_charge_id)::text
    FROM app.payments ORDER BY tenant_id, payment_id";

const LEDGER_ENTRIES: &str = "SELECT json_build_object('tenant_id', tenant_id, 'entry_id', entry_id,
    'posting_kind', posting_kind, 'posting_ref', posting_ref, 'account', account, 'currency', currency,
    'debit_minor', debit_minor, 'credit_minor', credit_minor)::text
    FROM app.ledger_entries ORDER BY tenant_id, entry_id";

const REFRESH_TOKENS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'token', encode(token_hash, 'hex'),
    'parent', encode(parent_hash, 'hex'), 'session_id', session_id,
    'rotated_us', (extract(epoch from rotated_at) * 1000000)::bigint)::text
    FROM app.refresh_tokens ORDER BY tenant_id, token_hash";

const PLAN_UPGRADES: &str = "SELECT json_build_object('tenant_id', tenant_id, 'change_id', change_id,
    'from_plan', from_plan, 'to_plan', to_plan, 'state', state, 'invoice_id', invoice_id)::text
    FROM app.plan_upgrades ORDER BY tenant_id, change_id";

const WEBHOOK_EVENTS: &str = "SELECT json_build_object('tenant_id', tenant_id, 'event_id', event_id, 'kind', kind,
    'outcome', outcome)::text FROM app.webhook_events ORDER BY tenant_id, event_id";

/// A row with text that is searched and then dropped.
#[derive(Deserialize)]
struct WithText<R> {
    #[serde(flatten)]
    row: R,
    text: Option<String>,
}

/// All rows, through the read-only role of `read_url`; what does not come from tables is left empty.
///
/// # Errors
/// Where the database cannot be read, or its schema is not the contract's.
pub async fn read_rows(read_url: &str, canaries: &Canaries) -> anyhow::Result<FinalState> {
    let mut connection = PgConnection::connect(read_url).await.context("connect as the reading role")?;
    sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .execute(&mut connection)
        .await
        .context("begin the final reads")?;
    let mut state = FinalState {
        rows_read: true,
        users: read::<UserRow>(&mut connection, "users", USERS).await?,
        sessions: read::<SessionRow>(&mut connection, "sessions", SESSIONS).await?,
        jobs: read::<JobRow>(&mut connection, "jobs", JOBS).await?,
        job_attempts: read::<JobAttemptRow>(&mut connection, "job_attempts", JOB_ATTEMPTS).await?,
        usage_events: read::<UsageEventRow>(&mut connection, "usage_events", USAGE_EVENTS).await?,
        quota_periods: read::<QuotaPeriodRow>(&mut connection, "quota_periods", QUOTA_PERIODS).await?,
        invoices: read::<InvoiceRow>(&mut connection, "invoices", INVOICES).await?,
        payments: read::<PaymentRow>(&mut connection, "payments", PAYMENTS).await?,
        ledger_entries: read::<LedgerEntryRow>(&mut connection, "ledger_entries", LEDGER_ENTRIES).await?,
        refresh_tokens: read::<RefreshTokenRow>(&mut connection, "refresh_tokens", REFRESH_TOKENS).await?,
        plan_upgrades: read::<PlanUpgradeRow>(&mut connection, "plan_upgrades", PLAN_UPGRADES).await?,
        webhook_events: read::<WebhookEventRow>(&mut connection, "webhook_events", WEBHOOK_EVENTS).await?,
        ..FinalState::default()
    };
    let owners = |text: Option<String>| -> Vec<String> {
        canaries.search(text.unwrap_or_default().as_bytes()).owners.into_keys().collect()
    };
    for found in read::<WithText<TenantRow>>(&mut connection, "tenants", TENANTS).await? {
        let label = owners(found.text).into_iter().next().unwrap_or_default();
        let declines = found.row.payment_token.as_deref().is_some_and(|token| token.starts_with("tok_declined"));
        state.tenants.push(TenantRow { label, payment_declines: declines, ..found.row });
    }
    for found in read::<WithText<ScenarioRow>>(&mut connection, "scenarios", SCENARIOS).await? {
        state.scenarios.push(ScenarioRow { owners_found: owners(found.text), ..found.row });
    }
    for found in read::<WithText<ForecastRow>>(&mut connection, "forecasts", FORECASTS).await? {
        state.forecasts.push(ForecastRow { owners_found: owners(found.text), ..found.row });
    }
    for found in read::<WithText<IdempotencyKeyRow>>(&mut connection, "idempotency_keys", IDEMPOTENCY_KEYS).await? {
        let resource_id = found.text.as_deref().and_then(id_inside);
        state.idempotency_keys.push(IdempotencyKeyRow { resource_id, ..found.row });
    }
    sqlx::query("COMMIT").execute(&mut connection).await.context("end the final reads")?;
    connection.close().await.context("close the reading connection")?;
    Ok(state)
}

async fn read<R: DeserializeOwned>(
    connection: &mut PgConnection,
    table: &str,
    statement: &'static str,
) -> anyhow::Result<Vec<R>> {
    let rows: Vec<String> =
        sqlx::query_scalar(statement).fetch_all(connection).await.with_context(|| format!("read {table}"))?;
    rows.iter().map(|row| serde_json::from_str(row).with_context(|| format!("read a row of {table}"))).collect()
}

/// The `id` of a stored answer, which may be a body or wrap one.
fn id_inside(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    let body = match value.get("body") {
        Some(serde_json::Value::String(inner)) => serde_json::from_str(inner).ok()?,
        Some(inner) => inner.clone(),
        None => value,
    };
    body["id"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_with_text_reads_both() {
        let text = r#"{"tenant_id":"t","scenario_id":"s","version":3,"text":"n"}"#;
        let found: WithText<ScenarioRow> = serde_json::from_str(text).expect("row");
        assert_eq!((found.row.version, found.text.as_deref()), (3, Some("n")));
    }

    #[test]
    fn the_id_of_a_stored_answer_is_found_wrapped_or_bare() {
        assert_eq!(id_inside(r#"{"id":"a"}"#).as_deref(), Some("a"));
        assert_eq!(id_inside(r#"{"status":201,"body":{"id":"b"}}"#).as_deref(), Some("b"));
        assert_eq!(id_inside(r#"{"body":"{\"id\":\"c\"}"}"#).as_deref(), Some("c"));
        assert_eq!(id_inside("not json"), None);
    }
}
