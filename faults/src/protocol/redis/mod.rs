//! Redis's protocol: commands with their keys, transactions as one operation, replies in order.

mod command;
mod replies;
mod requests;
mod scripts;
mod session;

pub(super) use command::RedisOperation;
pub(super) use scripts::ScriptNames;
pub(super) use session::RedisSession;

/// An error reply. `code`: its first word.
pub(super) fn error_reply(code: &str, text: Option<&str>) -> Vec<u8> {
    let text = text.unwrap_or(match code {
        "OOM" => "command not allowed when used memory > 'maxmemory'.",
        "READONLY" => "You can't write against a read only replica.",
        "LOADING" => "Redis is loading the dataset in memory",
        "MISCONF" => "Errors writing to the AOF file: No space left on device",
        "EXECABORT" => "Transaction discarded because of previous errors.",
        _ => "refused",
    });
    format!("-{code} {text}\r\n").into_bytes()
}

/// What ends a transaction on the server in the place of an EXEC.
pub(super) const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";
