//! Snapshots of normalised verdicts and of whole reports.

mod verdicts;
