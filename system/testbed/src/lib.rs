//! Private PostgreSQL, Redis and mail servers for Forecastle's own integration tests: each on a free port of
//! the loopback address, in a scratch directory, gone with the value that stands for it.
//!
//! Not for the product: only `dev-dependencies` name this crate. A missing server fails the test that
//! needs it and says how to mend that; nothing is skipped.

pub mod books;
pub mod customers;
mod postgres;
pub mod provider;
mod redis;
mod relay;
mod replica;
mod scratch;
mod server;
mod smtp;

pub use postgres::Postgres;
pub use redis::Redis;
pub use relay::Relay;
pub use replica::Replica;
pub use smtp::{ReceivedMail, SmtpMode, SmtpServer};
