//! The last rows, indexed by id. Not for judging.

use std::collections::BTreeMap;

use crate::final_state::{FinalState, ForecastRow, InvoiceRow, JobAttemptRow, JobRow, TenantRow, UsageEventRow};

/// The last rows, indexed.
#[derive(Debug)]
pub struct Rows<'a> {
    /// Tenants by id.
    pub tenants: BTreeMap<&'a str, &'a TenantRow>,
    /// Tenants' ids by label.
    pub tenant_ids: BTreeMap<&'a str, &'a str>,
    /// Forecasts by id.
    pub forecasts: BTreeMap<&'a str, &'a ForecastRow>,
    /// Jobs by the forecast's id.
    pub jobs: BTreeMap<&'a str, Vec<&'a JobRow>>,
    /// Attempts by the job's id, in order.
    pub attempts: BTreeMap<&'a str, Vec<&'a JobAttemptRow>>,
    /// Usage events by the forecast's id.
    pub usage: BTreeMap<&'a str, Vec<&'a UsageEventRow>>,
    /// Invoices by id.
    pub invoices: BTreeMap<&'a str, &'a InvoiceRow>,
    /// Owner's tenant id of every scenario, forecast and invoice.
    pub owners: BTreeMap<&'a str, &'a str>,
}

impl<'a> Rows<'a> {
    /// Indexes the rows. Time O(n log n).
    pub fn of(state: &'a FinalState) -> Self {
        let mut rows = Self {
            tenants: state.tenants.iter().map(|row| (row.tenant_id.as_str(), row)).collect(),
            tenant_ids: state.tenants.iter().map(|row| (row.label.as_str(), row.tenant_id.as_str())).collect(),
            forecasts: state.forecasts.iter().map(|row| (row.forecast_id.as_str(), row)).collect(),
            jobs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            usage: BTreeMap::new(),
            invoices: state.invoices.iter().map(|row| (row.invoice_id.as_str(), row)).collect(),
            owners: BTreeMap::new(),
        };
        for job in &state.jobs {
            rows.jobs.entry(&job.subject_id).or_default().push(job);
        }
        for attempt in &state.job_attempts {
            rows.attempts.entry(&attempt.job_id).or_default().push(attempt);
        }
        for attempts in rows.attempts.values_mut() {
            attempts.sort_by_key(|attempt| attempt.attempt);
        }
        for event in &state.usage_events {
            rows.usage.entry(&event.forecast_id).or_default().push(event);
        }
        let scenarios = state.scenarios.iter().map(|row| (row.scenario_id.as_str(), row.tenant_id.as_str()));
        let forecasts = state.forecasts.iter().map(|row| (row.forecast_id.as_str(), row.tenant_id.as_str()));
        let invoices = state.invoices.iter().map(|row| (row.invoice_id.as_str(), row.tenant_id.as_str()));
        rows.owners.extend(scenarios.chain(forecasts).chain(invoices));
        rows
    }

    /// The label of a tenant by its id; the id where there is no such row.
    pub fn label(&self, tenant_id: &'a str) -> &'a str {
        self.tenants.get(tenant_id).map_or(tenant_id, |row| row.label.as_str())
    }
}
