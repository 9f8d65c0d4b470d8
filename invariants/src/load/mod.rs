//! Whether the run did what it set out to do.

pub mod faults_landed;
pub mod offered;

pub use faults_landed::FaultsLanded;
pub use offered::Offered;
