//! What asks the command to end: Ctrl-C, and on Unix SIGTERM and SIGHUP. The first asks, the second ends it at once.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::tools::kill_all;

/// Signals that come so soon after the first belong to it: some programs send one to a process and to its group.
const SAME: Duration = Duration::from_millis(250);

/// Waits for signals of the operating system.
pub(crate) struct Interrupts(mpsc::Receiver<u8>);

impl Interrupts {
    /// From now on these signals don't end the process by themselves. Needs a runtime with several threads: the second
    /// signal is heard also while the main one is kept busy, by an output that nobody reads for example.
    pub(crate) fn new() -> io::Result<Self> {
        let mut signals = Signals::new()?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            // Nobody waits any more when the command is about to end anyway.
            let _ = sender.send(signals.next().await).await;
            let first = Instant::now();
            let mut code = signals.next().await;
            while first.elapsed() < SAME {
                code = signals.next().await;
            }
            kill_all();
            std::process::exit(code.into());
        });
        Ok(Self(receiver))
    }

    /// The first one, as the exit code that it stands for. Never comes back a second time.
    pub(crate) async fn first(&mut self) -> u8 {
        match self.0.recv().await {
            Some(code) => code,
            None => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    /// The next one, as the exit code that a shell gives what it ends.
    async fn next(&mut self) -> u8 {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => 130,
            _ = terminate.recv() => 143,
            _ = hangup.recv() => 129,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> u8 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => 130,
            Err(_) => std::future::pending().await,
        }
    }
}
