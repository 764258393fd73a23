//! Connections to published ports.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;

use super::Inside;
use crate::engine::monitor::serve::{spawn, spawn_deep};

/// Takes one connection, and passes it on by a thread of its own.
pub(super) fn accept(listener: &TcpListener, inside: &Arc<Inside>, port: u16) {
    let Ok((client, _)) = listener.accept() else { return };
    let inside = Arc::clone(inside);
    // Where there is no thread for it, the client is hung up on.
    let _ = spawn_deep("connection", move || pass(client, &inside, port));
}

// ANCHOR: pass
/// One connection. This thread never returns to the host's network: it ends with the connection.
fn pass(client: TcpStream, inside: &Inside, port: u16) {
    let Ok(address) = inside.enter() else { return };
    let Ok(server) = TcpStream::connect((address, port)) else { return };
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
    let inward = spawn("connection", move || copy(from, to));
    if inward.is_ok() {
        copy(server, client);
    }
}
// ANCHOR_END: pass

/// Copies until the end of one side, which the other is told.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn both_directions_are_copied_to_their_ends() {
        let pair = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let ((mut client, from), (to, mut server)) = (pair(), pair());
        let copier = std::thread::spawn(move || copy(from, to));
        client.write_all(b"request").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "request");
        copier.join().unwrap();
    }
}
