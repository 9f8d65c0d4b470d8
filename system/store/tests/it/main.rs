//! The store against a real PostgreSQL and a real Redis of each test's own.

mod admission;
mod cache;
mod debts;
mod events;
mod forecast_control;
mod forecast_request;
mod limiter;
mod listen;
mod mail;
mod migrations;
mod pool;
mod queue;
mod queue_laws;
mod reads;
mod replicas;
mod support;
mod tenancy;
