//! Forecastle.
fn main() {}
