//! What asks the command to end: Ctrl-C, and on Unix SIGTERM and SIGHUP.

use std::io;

/// Waits for signals of the operating system. From its creation on they don't end the process by themselves.
pub(crate) struct Interrupts {
    #[cfg(unix)]
    signals: [tokio::signal::unix::Signal; 3],
}

/// The exit code that a shell gives a command that Ctrl-C has ended.
#[cfg(not(unix))]
const CTRL_C: u8 = 130;

#[cfg(unix)]
impl Interrupts {
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    /// The next one, as the exit code that it stands for.
    pub(crate) async fn next(&mut self) -> u8 {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
            _ = hangup.recv() => 129,
        }
    }
}

#[cfg(not(unix))]
impl Interrupts {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// The next one, as the exit code that it stands for.
    pub(crate) async fn next(&mut self) -> u8 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => CTRL_C,
            Err(_) => std::future::pending().await,
        }
    }
}
