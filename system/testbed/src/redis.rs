//! A Redis of one test's own.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::scratch::{find_program, free_port, signal, wait_for_port};

const FIX: &str = "install Redis (Debian: apt-get install redis-server), or put redis-server on PATH";

/// A running server that keeps nothing on disk.
pub struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// Starts a new, empty server on a free port.
    ///
    /// # Panics
    /// With the fix in its text, if Redis is not there or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on(free_port())
    }

    /// Starts a new, empty server on this port: what a restart looks like from outside.
    ///
    /// # Panics
    /// With the fix in its text, if Redis is not there or does not start.
    #[must_use]
    pub fn start_on(port: u16) -> Self {
        let program =
            find_program("redis-server", &[PathBuf::from("/usr/bin")]).unwrap_or_else(|| panic!("no Redis: {FIX}"));
        let mut child = Command::new("setpriv")
            .arg("--pdeathsig=KILL")
            .arg(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("start redis-server");
        if let Err(why) = wait_for_port(&mut child, port, Duration::from_secs(10)) {
            panic!("redis-server {why}");
        }
        Self { child, port }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the process where it is: connections stay, answers do not come.
    pub fn pause(&self) {
        signal(&self.child, "STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal(&self.child, "CONT");
    }

    /// Ends it as a crash would; it holds nothing afterwards.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends one command as plain words and waits for the whole of a short reply, which it does not look at.
    ///
    /// # Panics
    /// If the server does not answer, or answers with an error.
    pub fn command(&self, words: &[&str]) {
        let mut link = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("connect to redis");
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        link.write_all(text.as_bytes()).expect("send to redis");
        let mut reply = [0_u8; 256];
        let read = link.read(&mut reply).expect("a reply of redis");
        assert!(read > 0 && reply[0] != b'-', "{words:?}: {}", String::from_utf8_lossy(&reply[..read]));
    }

    /// The port it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
