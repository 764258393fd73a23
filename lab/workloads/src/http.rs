//! A web server of one process: it answers each request with the same small page and closes the connection.

use freestanding::sys::poll::{Poll, poll};
use freestanding::sys::signal::{self, Set, Signal};
use freestanding::sys::time::Duration;
use freestanding::sys::{self, machine, net};
use freestanding::text::parse_number;
use freestanding::{Args, Errno, OwnedFd, Text};

use crate::output::{complain, failed, say};

const PORT: u16 = 8080;

/// A client gets so long to send its request, and so many bytes: else it would keep all others waiting.
const PATIENCE: Duration = Duration::from_millis(2000);
const REQUEST: usize = 4096;

/// Serves until SIGTERM or SIGINT, or so many requests.
pub fn run(args: Args) -> u8 {
    let (mut port, mut left) = (PORT, None);
    let mut rest = args.iter().skip(1);
    while let Some(option) = rest.next() {
        let number = rest.next().and_then(|text| parse_number(text.to_bytes()));
        match (option.to_bytes(), number) {
            (b"--port", Some(number)) if number <= 65535 => port = number as u16,
            (b"--requests", Some(number)) => left = Some(number),
            _ => return complain("http", option.to_bytes(), "wants --port N or --requests N", 2),
        }
    }
    match serve(port, left) {
        Ok(code) => code,
        Err(errno) => failed("http", b"socket", errno),
    }
}

fn serve(port: u16, mut left: Option<u64>) -> sys::Result<u8> {
    let ends = Set::of(&[Signal::TERM, Signal::INT]);
    signal::set_blocked(ends)?;
    // A client that goes away early is no reason to die (pipe(7), SIGPIPE).
    signal::set_ignored(Signal::PIPE, true)?;
    let signals = signal::signal_fd(ends)?;
    let socket = net::listen(port, 128)?;
    let mut line = Text::<64>::new();
    line.text("http: listening on port ").number(u64::from(net::local_port(&socket)?)).text("\n");
    say(&[line.bytes()]);
    while left != Some(0) {
        let mut polls = [Poll::read(*signals), Poll::read(*socket)];
        match poll(&mut polls, None) {
            Err(Errno::INTR) => continue,
            result => drop(result?),
        }
        if polls[0].readable() && signal::next(&signals).is_some() {
            return Ok(0); // asked to end, and nothing is unfinished: success
        }
        if polls[1].readable()
            && let Ok(client) = net::accept(&socket)
            && answer(&client).is_ok()
        {
            left = left.map(|left| left - 1);
        }
    }
    Ok(0)
}

/// Reads a request's head, and answers. RFC 9112.
fn answer(client: &OwnedFd) -> sys::Result<()> {
    let mut request = [0; REQUEST];
    let mut len = 0;
    let head = loop {
        if let Some(head) = request.get(..len).and_then(head_of) {
            break head;
        }
        if poll(&mut [Poll::read(**client)], Some(PATIENCE))? == 0 {
            return Err(Errno::AGAIN);
        }
        match client.read(request.get_mut(len..).unwrap_or(&mut []))? {
            0 => return Err(Errno::PIPE),
            count => len += count,
        }
    };
    let mut body = Text::<256>::new();
    body.text("hello from ");
    if let Ok(names) = machine::names() {
        body.text(names.host()).text(", ").text(names.system()).text(" ").text(names.release());
    }
    body.text("\n");
    let (status, body) = match head {
        Method::Get | Method::Head => ("200 OK", body.bytes()),
        Method::Other => ("405 Method Not Allowed", &b"GET and HEAD only\n"[..]),
    };
    let mut reply = Text::<512>::new();
    reply
        .text("HTTP/1.1 ")
        .text(status)
        .text("\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: ");
    reply.number(body.len() as u64).text("\r\n\r\n");
    if head != Method::Head {
        reply.text(body); // a HEAD's answer has the length of a GET's, and no body (RFC 9110, section 9.3.2)
    }
    client.write_all(reply.bytes())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Get,
    Head,
    Other,
}

/// What is asked for, once the empty line that ends the head is there.
fn head_of(request: &[u8]) -> Option<Method> {
    request.windows(4).any(|four| four == b"\r\n\r\n").then(|| {
        if request.starts_with(b"GET ") {
            Method::Get
        } else if request.starts_with(b"HEAD ") {
            Method::Head
        } else {
            Method::Other
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_complete_with_its_empty_line() {
        assert_eq!(head_of(b"GET / HTTP/1.1\r\nHost: x\r\n"), None);
        assert_eq!(head_of(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Some(Method::Get));
        assert_eq!(head_of(b"POST / HTTP/1.1\r\n\r\n"), Some(Method::Other));
        assert_eq!(head_of(b"\r\n\r\n"), Some(Method::Other));
    }
}
