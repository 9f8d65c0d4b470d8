//! Where a body ends: after a length, after the last chunk, or with the connection.

/// Longest line of a chunk's size or of a trailer, bytes.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// A body under way.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Bytes left.
    Length(u64),
    /// In chunks.
    Chunked(Chunk),
    /// Until the sender closes.
    UntilClosed,
}

/// Where within a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In a size line: the size so far, whether digits came, whether they are over, bytes of the line.
    Size { size: u64, digits: u8, over: bool, line_bytes: usize },
    /// In a chunk's data or its line end; bytes left of both.
    Data(u64),
    /// In the trailer: bytes of the line so far, and of the whole.
    Trailer { line_bytes: usize, bytes: usize },
    /// After the last line.
    Over,
}

impl Chunk {
    const fn size_line() -> Self {
        Self::Size { size: 0, digits: 0, over: false, line_bytes: 0 }
    }
}

impl Body {
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunk::size_line())
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Over))
    }

    /// Passes over as many of the bytes as belong to the body; none if they are not a body's.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                Some(here)
            }
            Self::UntilClosed => Some(bytes.len()),
            Self::Chunked(chunk) => pass_chunks(chunk, bytes),
        }
    }
}

fn pass_chunks(chunk: &mut Chunk, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() && *chunk != Chunk::Over {
        if let Chunk::Data(left) = chunk {
            let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
            *left -= here as u64;
            at += here;
            if *left == 0 {
                *chunk = Chunk::size_line();
            }
            continue;
        }
        let byte = bytes[at];
        at += 1;
        match chunk {
            Chunk::Size { size, digits, over, line_bytes } => {
                *line_bytes += 1;
                match byte {
                    b'\n' if *digits > 0 => {
                        *chunk = if *size == 0 {
                            Chunk::Trailer { line_bytes: 0, bytes: 0 }
                        } else {
                            Chunk::Data(*size + 2)
                        };
                    }
                    b'\n' => return None,
                    b'\r' | b';' | b' ' | b'\t' if *digits > 0 => *over = true,
                    // Extensions say nothing about the length.
                    _ if *over && *line_bytes < LINE_BYTES_MAX => {}
                    _ if !*over && *digits < 15 => {
                        *size = *size * 16 + u64::from(char::from(byte).to_digit(16)?);
                        *digits += 1;
                    }
                    _ => return None,
                }
            }
            Chunk::Trailer { line_bytes, bytes } => {
                *bytes += 1;
                if *bytes > LINE_BYTES_MAX {
                    return None;
                }
                match byte {
                    b'\n' if *line_bytes == 0 => *chunk = Chunk::Over,
                    b'\n' => *line_bytes = 0,
                    b'\r' => {}
                    _ => *line_bytes += 1,
                }
            }
            Chunk::Data(_) | Chunk::Over => {}
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_after_the_trailer_and_not_before() {
        let text = b"5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\nGET";
        for size in 1..text.len() {
            let mut body = Body::chunked();
            let mut passed = 0;
            while !body.is_over() {
                let end = (passed + size).min(text.len());
                passed += body.pass(&text[passed..end]).expect("a body");
            }
            assert_eq!(&text[passed..], b"GET");
        }
    }

    #[test]
    fn a_length_is_kept() {
        let mut body = Body::Length(5);
        assert_eq!(body.pass(b"abc"), Some(3));
        assert_eq!(body.pass(b"defg"), Some(2));
        assert!(body.is_over());
    }

    #[test]
    fn a_size_that_is_no_number_is_no_body() {
        for text in [&b"x\r\n"[..], b"\r\n", b"fffffffffffffffff\r\n"] {
            assert_eq!(Body::chunked().pass(text), None);
        }
    }
}
