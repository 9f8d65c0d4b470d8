//! Subscription invoices from draft to issue.
