//! The only SQL and Redis of Forecastle; one module per aggregate.
//!
//! PostgreSQL is the truth; Redis only answers faster. Tenant tables are reached through
//! [`scope::TenantScope`] alone.

pub mod admission;
pub mod audit;
pub mod backlog;
pub mod books_check;
pub mod cache;
mod cache_debts;
mod cache_trust;
pub mod closings;
pub mod credit_note_views;
pub mod credit_notes;
pub mod dashboard;
pub mod dunning;
pub mod error;
pub mod events;
pub mod flags;
pub mod forecast_control;
pub mod forecast_request;
pub mod forecasts;
pub mod idempotency;
pub mod identity;
pub mod invoice_views;
pub mod invoices;
pub mod jobs;
pub mod ledger;
pub mod limiter;
pub mod listen;
pub mod login_role;
pub mod mail_outbox;
pub mod mail_tokens;
pub mod members;
pub mod migrate;
pub mod paging;
pub mod payment_methods;
pub mod payment_views;
pub mod payments;
pub mod periods;
pub mod plan_changes;
pub mod plan_upgrades;
pub mod pool;
mod read_index;
pub mod reads;
mod redis_link;
mod replica;
pub mod scenarios;
pub mod scope;
pub mod seed;
mod seed_rows;
pub mod sessions;
pub mod usage;
mod wal_position;
pub mod webhooks;

pub use cache::{Cache, CacheKey, CacheOptions, CacheUnavailable, Deletion, FillLease, Lookup, Peeked};
pub use error::{StoreError, UnavailableReason};
pub use pool::{Db, DbOptions, PoolStats};
pub use reads::{ReadFuture, Reads, ReplicaAddress, ReplicaOptions, ReplicaStats};
pub use scope::{TenantScope, TenantTx};
