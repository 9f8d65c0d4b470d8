//! The sender against a real PostgreSQL and a mail server that can misbehave.

mod delivery;
