//! Which process is meant: a pid alone may have been given to another by now.
//!
//! Reads `/proc`; signals go through a pidfd, so that none can hit a successor of the same pid.

use std::{fmt, fs, io};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

/// A process, told apart from every later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessIdentity {
    /// Process id, above zero.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

impl fmt::Display for ProcessIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}, started at tick {}", self.pid, self.start_ticks)
    }
}

impl ProcessIdentity {
    /// Reads who has this pid now.
    ///
    /// # Errors
    /// `NotFound` when nobody has it or only an unreaped corpse is left; other errors as
    /// reading `/proc` gives them.
    pub fn of_pid(pid: u32) -> io::Result<Self> {
        let stat = Stat::read(pid)?;
        if stat.is_dead() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "process has ended"));
        }
        Ok(Self { pid, start_ticks: stat.start_ticks })
    }

    /// This very process, as its own identity.
    ///
    /// # Errors
    /// As reading `/proc` gives them.
    pub fn own() -> io::Result<Self> {
        Self::of_pid(std::process::id())
    }

    /// Whether this process, not a successor, runs. One that ended, all threads of it, and was
    /// not reaped yet is dead. When `/proc` cannot be read for another reason than absence, it counts as alive.
    pub fn alive(&self) -> bool {
        match Stat::read(self.pid) {
            Ok(stat) => stat.start_ticks == self.start_ticks && !stat.is_dead(),
            Err(error) => !gone(&error),
        }
    }

    /// Sends SIGKILL to this process and to none that took its pid. Does not wait for the end.
    ///
    /// # Errors
    /// `NotFound` when it does not run any more; others as the kernel gives them.
    pub fn kill(&self) -> io::Result<()> {
        self.send(Signal::KILL)
    }

    /// Sends SIGTERM, as [`Self::kill`] sends SIGKILL.
    ///
    /// # Errors
    /// As [`Self::kill`].
    pub fn ask_to_end(&self) -> io::Result<()> {
        self.send(Signal::TERM)
    }

    /// Asks it to read its files again (SIGHUP); ends what does not listen to that.
    ///
    /// # Errors
    /// As [`Self::kill`].
    pub fn ask_to_read_again(&self) -> io::Result<()> {
        self.send(Signal::HUP)
    }

    /// Stops every thread of it where it stands (SIGSTOP). Once more changes nothing.
    ///
    /// # Errors
    /// As [`Self::kill`].
    pub fn pause(&self) -> io::Result<()> {
        self.send(Signal::STOP)
    }

    /// Lets it go on (SIGCONT). Without effect on what was not paused.
    ///
    /// # Errors
    /// As [`Self::kill`].
    pub fn resume(&self) -> io::Result<()> {
        self.send(Signal::CONT)
    }

    /// Whether a signal stopped it; false as well where it has ended.
    pub fn is_paused(&self) -> bool {
        Stat::read(self.pid).is_ok_and(|stat| stat.start_ticks == self.start_ticks && stat.state == b'T')
    }

    /// Its pid, as the kernel's calls take it.
    pub(super) fn raw_pid(&self) -> io::Result<Pid> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "pid out of range"))
    }

    fn send(&self, signal: Signal) -> io::Result<()> {
        let handle = pidfd_open(self.raw_pid()?, PidfdFlags::empty()).map_err(from_errno)?;
        // The handle is held: from here on the pid cannot come to mean another process.
        if !self.alive() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "process has ended"));
        }
        pidfd_send_signal(&handle, signal).map_err(from_errno)
    }
}

fn from_errno(errno: Errno) -> io::Error {
    if errno == Errno::SRCH { io::Error::new(io::ErrorKind::NotFound, "process has ended") } else { errno.into() }
}

fn gone(error: &io::Error) -> bool {
    // Reading a stat file whose process ends meanwhile gives ESRCH instead of ENOENT.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

struct Stat {
    state: u8,
    threads: u64,
    start_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Self> {
        let text = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable stat line"))
    }

    /// The command name (field 2) may hold blanks and brackets, so fields count from the last
    /// closing bracket.
    fn parse(line: &[u8]) -> Option<Self> {
        let after_name = line.iter().rposition(|&byte| byte == b')')? + 1;
        let rest = std::str::from_utf8(&line[after_name..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        // Field 3 was the state; field 20 is the seventeenth after it, field 22 the second after that.
        let threads = fields.nth(16)?.parse().ok()?;
        let start_ticks = fields.nth(1)?.parse().ok()?;
        Some(Self { state, threads, start_ticks })
    }

    /// Its first thread may be gone while others, starved of processor time, say, still hold its sockets and files.
    fn is_dead(&self) -> bool {
        match self.state {
            b'X' | b'x' => true,
            b'Z' => self.threads <= 1,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn reads_the_start_time_behind_an_awkward_name() {
        let line = b"7 (a) b (c)) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 1\n";
        let stat = Stat::parse(line).expect("stat");
        assert_eq!(stat.start_ticks, 98765);
        assert!(!stat.is_dead());
    }

    #[test]
    fn a_corpse_whose_threads_go_on_is_alive() {
        let line =
            |state: char, threads: u32| format!("7 (a) {state} 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 {threads} 0 98765 1");
        let dead = |state, threads| Stat::parse(line(state, threads).as_bytes()).expect("stat").is_dead();
        assert!(dead('Z', 1));
        assert!(dead('Z', 0));
        assert!(!dead('Z', 5));
        assert!(dead('X', 1));
        assert!(!dead('R', 5));
    }

    #[test]
    fn own_process_is_alive_and_its_namesake_is_not() {
        let own = ProcessIdentity::own().expect("own identity");
        assert!(own.alive());
        let other = ProcessIdentity { start_ticks: own.start_ticks + 1, ..own };
        assert!(!other.alive());
        assert_eq!(other.kill().expect_err("not the same process").kind(), io::ErrorKind::NotFound);
        assert!(own.alive());
    }

    #[test]
    fn a_killed_child_is_dead_before_it_is_reaped() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("start cat");
        let identity = ProcessIdentity::of_pid(child.id()).expect("identity");
        identity.kill().expect("kill");
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while identity.alive() {
            assert!(std::time::Instant::now() < limit, "alive 5 s after SIGKILL");
            std::thread::yield_now();
        }
        assert!(!child.wait().expect("reap").success());
        assert!(!identity.alive());
    }
}
