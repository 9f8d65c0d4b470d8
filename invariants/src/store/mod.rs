//! What was acknowledged is there, and connections are left clean.

pub mod connection_hygiene;
pub mod read_your_writes;

pub use connection_hygiene::ConnectionsClean;
pub use read_your_writes::ReadYourWrites;
