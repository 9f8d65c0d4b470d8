//! Pure forecast mathematics: scenario in, exact result and canonical hash out.
