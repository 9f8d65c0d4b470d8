//! The store against a real PostgreSQL and a real Redis of each test's own.

mod cache;
mod mail;
mod pool;
mod queue;
mod reads;
mod support;
mod tenancy;
