//! Who may come in.

pub mod fails_closed;

pub use fails_closed::FailsClosed;
