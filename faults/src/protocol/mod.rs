//! Faults that know the protocol: the k-th COMMIT never arrives, the reply of the k-th Redis
//! command is lost, the provider's answer comes late.
//!
//! A [`RuleBook`] holds rules (data, see [`Rule`]) and says what became of each. What it gives with
//! [`RuleBook::inspectors`] stands in a proxy's connections: a [`Follower`] each, which follows the
//! protocol without I/O and without a clock, and what moves the bytes through it. Memory is bounded
//! whatever the peers send; what is not understood passes unchanged and is told as such.

mod book;
mod compiled;
mod follower;
#[cfg(test)]
mod follower_cases;
mod grip;
mod http;
mod lane;
mod observer;
mod operation;
mod piece;
mod points;
mod postgres;
mod redis;
mod relay;
mod rule;
mod tampering;
mod wire_fault;

pub use book::{BookLimits, NotInTime, Release, RuleBook};
pub use follower::{Follower, Passed};
pub use observer::{Origin, Point, RuleRecord, WireEvent, WireEventKind};
pub use operation::{Outcome, Protocol};
pub use postgres::functions_that_write;
pub use rule::{
    Action, CommitPattern, Every, HttpPattern, Occurrence, Pattern, Place, PostgresPattern, RedisPattern, Rule,
    RuleError,
};
pub use wire_fault::WireFault;
