//! Harm by clients: a crowd that asks in a way that no server likes.

mod crowd;

pub use crowd::{Crowd, Crowding};
