//! Hurts a running target and can undo it.
