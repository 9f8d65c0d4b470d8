//! Hurts a running target and can undo it.
//!
//! Knows targets (a proxy, a process, a service, a DSN) and nothing of tenants, laws or verdicts.
//! A fault is granted by a [`BlastRadius`], installed and healed through [`OpenFaults`], and
//! proves itself by what it reads from the target, never by what it asked for.

pub mod blast_radius;
pub mod catalogue;
pub mod client;
pub mod fault;
pub mod harm;
pub mod network;
pub mod open_faults;
pub mod postgres;
pub mod process;
pub mod protocol;
pub mod redis;
pub mod schedule;
pub mod service;
pub mod toxid;

pub use blast_radius::{BlastRadius, Grant, OutsideRadius, Target};
pub use catalogue::FaultRow;
pub use client::{Crowd, Crowding};
pub use fault::{BoxFuture, ControlError, Fault, FaultState, HealError, InstallError, Proof, ProofError, Tolerance};
pub use harm::{Harm, Struck};
pub use network::{
    LinkHarm, LinkResets, LinkResetsConfig, LinkShows, LinksHurt, ProxySpec, ProxyView, Stream, ToxiClient, ToxiError,
    Toxic, ToxicView,
};
pub use open_faults::{FaultId, HealReport, OpenFaults};
pub use postgres::{
    Deadlocks, DeadlocksConfig, DiskFull, HeldTransaction, HeldTransactionConfig, MaxConnections, MaxConnectionsConfig,
    PoolExhaustion, PoolExhaustionConfig, PostgresCrash, PostgresCrashLimits, ReplayPause, SerializationConfig,
    SerializationFailures, SlowStatement, SlowStatementConfig, VolumeControl, VolumeUsage,
};
pub use process::{
    AnyMoment, Burden, CLOCK_IS_RIGHT, ClockApart, ControlGroup, CpuStarved, DescriptorsExhausted, MemoryExhausted,
    MidJobProbe, ProcessControl, ProcessDrain, ProcessEnding, ProcessFreeze, ProcessIdentity, ProcessKill,
    ProcessKillLimits, ProcessLimits, RestartStorm, RollingRestart, StruckMidRequest, remove_groups,
};
pub use protocol::{
    Action, BookLimits, CommitPattern, Every, Follower, HttpPattern, NotInTime, Occurrence, Origin, Outcome, Passed,
    Pattern, Place, Point, PostgresPattern, Protocol, RedisPattern, Release, Rule, RuleBook, RuleError, RuleRecord,
    WireEvent, WireEventKind, WireFault, functions_that_write,
};
pub use redis::{RedisClientKill, RedisDemotion, RedisFlush, RedisLoss, RedisLossLimits, RedisMemoryFull, WhenFull};
pub use schedule::{Condition, DrawPlan, FaultChoice, ParamValue, Schedule, ScheduleError, Step};
pub use service::{FreezeLimits, Greeting, ServiceControl, ServiceFreeze, greet, greet_at_length};
pub use toxid::{Accepted, Ending, Inspector, InspectorFactory, Side, ToxidHandle, ToxidOptions, ToxidServer};
