//! PostgreSQL's frontend/backend protocol: messages, statements by fingerprint, commits.

#[cfg(test)]
mod conversations;
mod fingerprint;
mod frames;
mod messages;
mod session;
mod sql;
mod transaction;
mod writing_functions;

pub(super) use fingerprint::{StatementPattern, normalised_head};
pub(super) use session::PostgresSession;
pub(super) use transaction::{Commit, PostgresOperation};
pub(super) use writing_functions::WritingFunctions;
pub use writing_functions::functions_that_write;

/// A FATAL error, after which a client expects the connection to end. `code`: a SQLSTATE.
pub(super) fn fatal_error(code: &str, text: Option<&str>) -> Vec<u8> {
    let text = text.unwrap_or(match code {
        "57P01" => "terminating connection due to administrator command",
        "57P02" => "terminating connection because of crash of another server process",
        "53300" => "sorry, too many clients already",
        _ => "the connection is ended",
    });
    let mut body = Vec::new();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', text)] {
        body.push(field);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut message = vec![b'E'];
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&body);
    message
}
