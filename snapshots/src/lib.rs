//! Saved histories to reports, as insta files; tests only.
//!
//! What is shown here is what a reader of a report sees; what must hold is asserted beside the laws.
