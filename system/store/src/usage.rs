//! Usage events and quota.
