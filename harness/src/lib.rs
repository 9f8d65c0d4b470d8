//! The harness: the only place where system, faults and laws meet.
//!
//! Starts the system on real servers, loads it, hurts it, records everything, and has the record judged. It knows the
//! system as processes, HTTP and read-only SQL, and shares no type with it.

pub mod cli;
pub mod client;
pub mod engine_demands;
pub mod environment;
pub mod exit_code;
pub mod experiment;
pub mod final_reads;
pub mod identity;
pub mod judgement;
pub mod mutants;
pub mod nemesis;
pub mod point_sweep;
pub mod progress;
pub mod provider;
pub mod randomness;
pub mod recorder;
pub mod report;
pub mod run;
pub mod run_directory;
pub mod schedule_file;
pub mod sinks;
pub mod steady_state;
pub mod workload;
