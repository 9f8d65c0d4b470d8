//! One module for each subcommand.

pub(crate) mod alert;
pub(crate) mod bill;
pub(crate) mod compute;
pub(crate) mod flag;
pub(crate) mod mail;
pub(crate) mod migrate;
pub(crate) mod openapi;
pub(crate) mod seed;
pub(crate) mod serve;
pub(crate) mod work;

/// Prints one line of JSON on stdout, at once: whoever started the process waits for it.
pub(crate) fn announce(line: &serde_json::Value) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
