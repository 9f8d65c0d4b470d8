//! Reads evidence and gives a verdict; never touches the world.

pub mod model;
