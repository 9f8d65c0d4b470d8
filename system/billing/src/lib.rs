//! Metering, invoices, charges and the billing run.
