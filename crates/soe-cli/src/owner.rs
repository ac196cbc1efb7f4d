//! Which process runs a tree, and calls that lose a race against it.

use std::time::Duration;

use soe_backends::ExecutionId;
use soe_core::runtime::{Engine, EngineError, EngineErrorKind};

/// How often a call is made again that has lost a race.
const TRIES: u32 = 10;

/// How long before that.
const PAUSE: Duration = Duration::from_millis(100);

/// The other process that runs a tree, in words; `None` if nobody does.
pub(crate) async fn other(engine: &Engine, id: &ExecutionId) -> anyhow::Result<Option<String>> {
    match engine.check_free(id).await {
        Ok(()) => Ok(None),
        Err(error) => match error.kind() {
            EngineErrorKind::Elsewhere { process, .. } => Ok(Some(named(process))),
            _ => Err(error.into()),
        },
    }
}

/// `process 4711`; where the name doesn't tell the number, the name.
pub(crate) fn named(process: &str) -> String {
    let number = process
        .rsplit_once('_')
        .and_then(|(_, number)| number.split_once('-'))
        .filter(|(number, _)| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()));
    match number {
        Some((number, _)) => format!("process {number}"),
        None => format!("process {process}"),
    }
}

/// Makes a call, and again as long as another process is faster.
///
/// # Errors
/// As the call. If it was another process each time, that is said.
pub(crate) async fn retried<T>(mut call: impl AsyncFnMut() -> Result<T, EngineError>) -> anyhow::Result<T> {
    let mut tries = 1;
    loop {
        match call().await {
            Err(error) if *error.kind() == EngineErrorKind::LostRace && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_named_by_its_number() {
        assert_eq!(named("01a22f85e81d.0123-4026531836_29565-301329"), "process 29565");
        assert_eq!(named("01a22f85"), "process 01a22f85");
    }
}
