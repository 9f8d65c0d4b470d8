//! What a person sees while a run goes on: a bar on a terminal, a line now and then elsewhere. On stderr, never on stdout.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Tells how far a run is.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
    last_line: Mutex<Instant>,
}

impl Progress {
    /// Says nothing if `quiet`; draws a bar if stderr is a terminal that can.
    pub fn new(quiet: bool) -> Progress {
        let can_draw = std::io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if !quiet && can_draw {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8));
            if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {prefix:>10} {bar:30} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Progress { bar, lines: !quiet && !can_draw, last_line: Mutex::new(Instant::now()) }
    }

    /// A new phase begins; `length_ms` is how long it will take, where that is known.
    pub fn phase(&self, name: &str, length_ms: Option<u64>, message: &str) {
        self.bar.set_length(length_ms.unwrap_or(0));
        self.bar.set_position(0);
        self.bar.set_prefix(name.to_owned());
        self.bar.set_message(message.to_owned());
        if self.lines {
            eprintln!("{name}: {message}");
        }
    }

    /// How far the phase is.
    pub fn at(&self, position_ms: u64, message: &str) {
        self.bar.set_position(position_ms);
        self.bar.set_message(message.to_owned());
        let Ok(mut last) = self.last_line.lock() else { return };
        if self.lines && last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            eprintln!("  {message}");
        }
    }

    /// Removes the bar.
    pub fn done(&self) {
        self.bar.finish_and_clear();
    }
}
