//! Saved histories to reports, as insta files; tests only.
