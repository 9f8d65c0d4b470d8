//! What is read of each message: how much, which codes, which fields.

/// How much of a query's text is read ahead, and so held back until it is known.
const SQL_BYTES_MAX: usize = 64 * 1024;
/// How much of a message with names is read ahead.
const NAME_BYTES_MAX: usize = 512;
pub(super) const SSL_REQUEST: u32 = 80_877_103;
pub(super) const GSS_REQUEST: u32 = 80_877_104;
pub(super) const CANCEL_REQUEST: u32 = 80_877_102;
pub(super) const PROTOCOL_MAJOR: u32 = 3;

/// How much of a client's message to read ahead; none for a tag that does not exist.
pub(super) fn wanted_of_client(tag: u8) -> Option<usize> {
    match tag {
        // Before the login: the code alone.
        0 => Some(4),
        b'Q' | b'P' => Some(SQL_BYTES_MAX),
        b'B' | b'E' | b'C' | b'D' => Some(NAME_BYTES_MAX),
        b'F' | b'H' | b'S' | b'X' | b'c' | b'd' | b'f' | b'p' => Some(0),
        _ => None,
    }
}

/// As [`wanted_of_client`], of the server's.
pub(super) fn wanted_of_server(tag: u8) -> Option<usize> {
    match tag {
        b'C' | b'E' => Some(NAME_BYTES_MAX),
        b'Z' => Some(1),
        b'1' | b'2' | b'3' | b'A' | b'D' | b'G' | b'H' | b'I' | b'K' | b'N' | b'R' | b'S' | b'T' | b'V' | b'W'
        | b'c' | b'd' | b'n' | b's' | b't' | b'v' => Some(0),
        _ => None,
    }
}

/// Splits at the first zero byte; without one, the name is all there is.
pub(super) fn split_name(body: &[u8]) -> (&[u8], &[u8]) {
    match body.iter().position(|byte| *byte == 0) {
        Some(end) => (&body[..end], &body[end + 1..]),
        None => (body, &[]),
    }
}

/// The code field of an error message.
pub(super) fn sqlstate(body: &[u8]) -> String {
    let mut rest = body;
    while let Some((field, after)) = rest.split_first() {
        let (value, next) = split_name(after);
        if *field == b'C' {
            return String::from_utf8_lossy(value).into_owned();
        }
        rest = next;
    }
    "unknown".into()
}
