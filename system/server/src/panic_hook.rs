//! A panic is logged by its place alone: its text may hold a customer's data.

/// Installs the hook for the whole process.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(|panic| {
        let (file, line) = panic.location().map_or(("unknown", 0), |place| (place.file(), place.line()));
        tracing::error!(file, line, "panicked");
    }));
}
