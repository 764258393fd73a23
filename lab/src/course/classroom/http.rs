//! As much of HTTP/1.1 (RFC 9112) as a class needs: one request a connection, with limits, and its answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The longest head of a request.
const HEAD: u64 = 16 << 10;
/// The longest body: the results of all lessons are a tenth of it.
pub const BODY: usize = 1 << 20;
/// A client that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// GET, POST, …
    pub method: String,
    /// Without its query.
    pub path: String,
    /// Behind the question mark.
    pub query: Vec<(String, String)>,
    /// The token of an `Authorization: Bearer` line.
    pub token: Option<String>,
    /// What was sent.
    pub body: Vec<u8>,
}

impl Request {
    /// Reads one.
    ///
    /// # Errors
    /// The stream's, and "invalid data" for what is no request or exceeds a limit.
    pub fn read(stream: &TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Self::parse(&mut BufReader::new(stream))
    }

    fn parse(input: &mut impl BufRead) -> io::Result<Self> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let mut head = input.by_ref().take(HEAD);
        let mut line = || {
            let mut text = String::new();
            head.read_line(&mut text)?;
            text.strip_suffix('\n').map(|text| text.trim_end().to_owned()).ok_or_else(wrong)
        };
        let first = line()?;
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Err(wrong()) };
        let (mut length, mut token) = (0, None);
        loop {
            let line = line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().map_err(|_| wrong())?,
                "authorization" => token = value.trim().strip_prefix("Bearer ").map(str::to_owned),
                _ => {}
            }
        }
        if length > BODY {
            return Err(wrong());
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let query = pairs.map(|(name, value)| (decode(name), decode(value))).collect();
        Ok(Self { method: method.to_owned(), path: decode(path), query, token, body })
    }

    /// A word of the query.
    pub fn word(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Percent-encoding (RFC 3986, section 2.1); what is no such code stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Writes an answer and closes.
///
/// # Errors
/// The stream's.
pub fn answer(mut stream: impl Write, status: &str, kind: &str, more: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> io::Result<Request> {
        Request::parse(&mut BufReader::new(text.as_bytes()))
    }

    #[test]
    fn a_request_is_read_with_its_query_token_and_body() {
        let request = parse(
            "POST /results?name=Eva%20M&x=1 HTTP/1.1\r\nAuthorization: Bearer abc\r\ncontent-length: 2\r\n\r\nhi",
        )
        .unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/results"));
        assert_eq!(request.word("name"), Some("Eva M"));
        assert_eq!((request.token.as_deref(), request.body.as_slice()), (Some("abc"), &b"hi"[..]));
    }

    #[test]
    fn what_is_no_request_or_too_long_is_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
        let large = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", BODY + 1);
        for text in ["", "GET\r\n\r\n", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nx\r\n\r\n", &long, &large] {
            assert!(parse(text).is_err(), "{}", &text[..text.len().min(40)]);
        }
        assert!(parse("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhi").is_err());
    }
}
