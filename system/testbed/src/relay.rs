//! A TCP link of one client's own that can be cut or fall silent, while others' links stay whole.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

const WHOLE: u8 = 0;
const SILENT: u8 = 1;
const CUT: u8 = 2;
const OVER: u8 = 3;
/// How soon a change of state is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Forwards between its own port and a server's. Ends with its handle.
pub struct Relay {
    port: u16,
    state: Arc<AtomicU8>,
}

impl Relay {
    /// Starts forwarding to a port on this host.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a relay");
        let port = listener.local_addr().expect("read the port").port();
        listener.set_nonblocking(true).expect("a listener that can be asked");
        let state = Arc::new(AtomicU8::new(WHOLE));
        let watched = Arc::clone(&state);
        std::thread::spawn(move || accept(&listener, server_port, &watched));
        Self { port, state }
    }

    /// The port to connect to in the server's place.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection, and each new one at once.
    pub fn cut(&self) {
        self.state.store(CUT, Ordering::SeqCst);
    }

    /// Swallows what is sent, without a word: a connection that lives through this never recovers.
    pub fn silence(&self) {
        self.state.store(SILENT, Ordering::SeqCst);
    }

    /// New connections work again.
    pub fn mend(&self) {
        self.state.store(WHOLE, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.store(OVER, Ordering::SeqCst);
    }
}

fn accept(listener: &TcpListener, server_port: u16, state: &Arc<AtomicU8>) {
    loop {
        let now = state.load(Ordering::SeqCst);
        if now == OVER {
            return;
        }
        match listener.accept() {
            Ok((client, _)) if now != CUT => {
                let _ = client.set_nonblocking(false);
                let server = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, server_port)));
                let Ok(server) = server else { continue };
                let silent = Arc::new(AtomicU8::new(now));
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let (state, silent) = (Arc::clone(state), Arc::clone(&silent));
                    std::thread::spawn(move || forward(from, to, &state, &silent));
                }
            }
            Ok(_) => {}
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Until either end closes or the link is cut. `silent` is this connection's own, and stays once it is set.
fn forward(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8, silent: &AtomicU8) {
    let _ = from.set_nodelay(true);
    let _ = to.set_nodelay(true);
    let _ = from.set_read_timeout(Some(LOOK_EVERY));
    let mut bytes = [0_u8; 16 * 1024];
    loop {
        match state.load(Ordering::SeqCst) {
            SILENT => silent.store(SILENT, Ordering::SeqCst),
            CUT | OVER => break,
            _ => {}
        }
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        // Again: what was read after the change must not pass.
        match state.load(Ordering::SeqCst) {
            SILENT => silent.store(SILENT, Ordering::SeqCst),
            CUT | OVER => break,
            _ => {}
        }
        if silent.load(Ordering::SeqCst) == SILENT {
            continue;
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
