//! What leaves the process about itself: error reports by Sentry's protocol, and product analytics.
//!
//! Law: nobody who works for a customer ever waits for a sink. Events go into a bounded queue; a full
//! one drops them and counts that. Nothing about a person leaves: reports are made of fields that are
//! listed, analytics of event names and keyed digests.
//!
//! Sinks are spoken to in plain HTTP: a relay or an agent on the same host or network does the TLS.

pub mod analytics;
mod clock;
pub mod errors;
mod http;
mod outlet;
mod scrub;

pub use analytics::{Analytics, AnalyticsOptions, ProductEvent};
pub use clock::tell_time;
pub use errors::{Dsn, ErrorEvent, ErrorReporter, ErrorTask, ReporterOptions};
pub use http::BadSinkAddress;
pub use scrub::scrubbed;
