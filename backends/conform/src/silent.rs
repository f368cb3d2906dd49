//! A server that takes connections and never says a word: a KMS that does not answer.

use std::net::{SocketAddr, TcpListener};

/// Begins to listen on loopback, for the rest of the process.
pub(crate) fn listen() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        // Held, so that no connection is closed.
        let mut taken = Vec::new();
        while let Ok((connection, _)) = listener.accept() {
            taken.push(connection);
        }
    });
    Ok(address)
}
