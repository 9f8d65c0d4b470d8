//! `forecastle openapi`

use std::io::Write as _;

use crate::exit_code::ExitCode;

/// Prints the document.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", forecastle_api::openapi())?;
    Ok(ExitCode::Done)
}
