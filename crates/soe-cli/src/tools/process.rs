//! Runs a process to its end, within bounds.

use std::io;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// What is kept of the end of stderr.
const TAIL: usize = 8 * 1024;

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    /// The end of what it wrote to stderr.
    pub(super) stderr: Vec<u8>,
}

/// Why there is no result of a process.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    #[error("it could not be started")]
    Start(#[source] io::Error),
    #[error("more than {0} bytes of output")]
    TooMuchOutput(u64),
    #[error("its input or output failed")]
    Pipe(#[source] io::Error),
}

/// Runs `command` with `input` on its stdin, until it has ended and its output is closed. Dropping the future kills it,
/// and whatever it has started in its process group.
pub(super) async fn run(
    command: &mut Command,
    input: Option<Vec<u8>>,
    max_output: u64,
) -> Result<Finished, ProcessError> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    // Its own group: a Ctrl-C in the terminal is for the engine, and all that it starts can be killed with it.
    #[cfg(unix)]
    command.process_group(0);
    let mut child = command.spawn().map_err(ProcessError::Start)?;
    let mut group = Group::of(&child);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (stdout, stderr, ()) = tokio::try_join!(
        read_bounded(stdout, max_output),
        read_tail(stderr),
        write(stdin, input.unwrap_or_default())
    )?;
    // Not before its output has ended: until it is waited for, nobody else can get its number.
    let status = child.wait().await.map_err(ProcessError::Pipe)?;
    group.disarm();
    Ok(Finished { status, stdout, stderr })
}

async fn write(pipe: Option<impl tokio::io::AsyncWrite + Unpin>, input: Vec<u8>) -> Result<(), ProcessError> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    match pipe.write_all(&input).await {
        // A program needn't read its input.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ProcessError::Pipe(error)),
        _ => Ok(()),
    }
}

async fn read_bounded(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> Result<Vec<u8>, ProcessError> {
    let mut content = Vec::new();
    if let Some(pipe) = pipe {
        let mut pipe = pipe.take(most.saturating_add(1));
        pipe.read_to_end(&mut content).await.map_err(ProcessError::Pipe)?;
    }
    match content.len() as u64 > most {
        true => Err(ProcessError::TooMuchOutput(most)),
        false => Ok(content),
    }
}

async fn read_tail(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, ProcessError> {
    let mut tail = Vec::new();
    let Some(mut pipe) = pipe else { return Ok(tail) };
    let mut chunk = vec![0; TAIL];
    loop {
        let count = pipe.read(&mut chunk).await.map_err(ProcessError::Pipe)?;
        if count == 0 {
            return Ok(tail);
        }
        tail.extend_from_slice(&chunk[..count]);
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
}

/// Kills the process group of a child when it is dropped. The child must not have been waited for then.
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

#[cfg(unix)]
impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self {
            leader: id.and_then(rustix::process::Pid::from_raw),
        }
    }

    fn disarm(&mut self) {
        self.leader = None;
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // It fails if all of them have ended already.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(not(unix))]
impl Group {
    fn of(_: &Child) -> Self {
        Self {}
    }

    fn disarm(&mut self) {}
}
