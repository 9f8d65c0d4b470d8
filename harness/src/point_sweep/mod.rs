//! The sweep: one story, run once for every point at which something lasting happens, and for every way to lose it there.
//!
//! A story is run once to list its points: each commit, each write to Redis, each call to the provider, by role. Then once
//! for each point and each of four faults: the request lost before its server, the answer lost after it, the process
//! killed in between, the process stopped past its lease and woken. The servers stay warm; each case has a database cloned
//! from a template, an empty Redis, processes of its own and a record of its own, which is judged as any run's is.

mod actor;
mod case;
mod judged;
mod listing;
mod plan;
mod play;
mod rounds;
mod scene;
mod stage;
mod strike;
mod template;

pub use judged::{CaseResult, SWEEP_FILE, SweepResults, judge_again};
pub use plan::{PointChoice, PointFault, Story, SweepPoint, SweepSettings};
pub use rounds::{SweepOrder, Swept, sweep};
