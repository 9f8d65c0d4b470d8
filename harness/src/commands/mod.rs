//! One file per command or family of commands: result on stdout, everything else on stderr.

pub mod clean;
pub mod doctor;
pub mod list;
pub mod mutants;
mod output;
pub mod run;
pub mod stored;
pub mod sweep;
