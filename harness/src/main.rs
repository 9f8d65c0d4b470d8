//! nogo.
fn main() {}
