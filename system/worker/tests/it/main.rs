//! A worker against a real PostgreSQL and a real Redis.

mod control;
mod life;
