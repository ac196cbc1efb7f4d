//! Many processes that send to one tree at once: every signal arrives, once, in the order of its sender.

use std::collections::HashMap;

use soe_backends::{Backends, Context};
use soe_core::runtime::Engine;
use soe_sqlite::SqliteStore;

use crate::common::*;

const ENGINES: usize = 8;
const SENDERS: usize = 25;
const SIGNALS: usize = 5;

/// All senders send all that they have, one signal after the other.
async fn send_all(engines: &[Engine]) {
    let mut senders = tokio::task::JoinSet::new();
    for (number, engine) in engines.iter().enumerate() {
        for sender in 0..SENDERS {
            let engine = engine.clone();
            senders.spawn(async move {
                for signal in 0..SIGNALS {
                    let signal = format!("S {number}-{sender} {signal}");
                    let sent = engine.broadcast_signals(&id("x"), [signal]).await;
                    sent.unwrap_or_else(|error| panic!("{error:#}"));
                }
            });
        }
    }
    soon(senders.join_all()).await;
}

fn check(context: &Context) {
    let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
    for signal in signals(context) {
        if let Some((sender, number)) = signal.strip_prefix("S ").and_then(|signal| signal.split_once(' ')) {
            seen.entry(sender.to_owned()).or_default().push(number.parse().unwrap());
        }
    }
    assert_eq!(seen.len(), ENGINES * SENDERS);
    for (sender, numbers) in seen {
        assert!(numbers.iter().copied().eq(0..SIGNALS), "{sender}: {numbers:?}");
    }
}

/// One engine runs the tree all the time: the others' signals go through its inbox.
async fn into_one_that_runs(backends: [Backends; ENGINES]) {
    let gate = Gate::new();
    let engines = backends.map(|backends| builder().backends(backends).tool(gate.tool("work")).build().unwrap());
    let execution = engines[0].start(start(WORK).id(id("x"))).await.unwrap();
    soon(gate.called()).await;
    send_all(&engines).await;
    gate.open(1);
    soon(execution.wait()).await.unwrap();
    check(&execution.context().await.unwrap());
    let tree = engines[0].tree(&id("x")).await.unwrap();
    assert_eq!(
        (tree.fence(), gate.keys.lock().unwrap().len()),
        (1, 1),
        "nobody took it over"
    );
    assert_eq!(tree.inbox as usize, (ENGINES - 1) * SENDERS * SIGNALS);
}

/// The tree rests again and again: whoever is faster runs it.
async fn into_one_that_rests(backends: [Backends; ENGINES]) {
    let engines = backends.map(|backends| builder().backends(backends).build().unwrap());
    soon(engines[0].orchestrate(start(ROUTER).id(id("x")))).await.unwrap();
    send_all(&engines).await;
    soon(engines[1].wait(&id("x"))).await.unwrap();
    check(&engines[1].context(&id("x")).await.unwrap());
}

fn memory() -> [Backends; ENGINES] {
    let backends = Backends::memory();
    [(); ENGINES].map(|()| backends.clone())
}

/// Each engine has a connection of its own, as a process would.
async fn sqlite(folder: &std::path::Path) -> [Backends; ENGINES] {
    let mut stores = Vec::new();
    for _ in 0..ENGINES {
        stores.push(SqliteStore::open(folder.join("x.db")).await.unwrap().backends());
    }
    stores.try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_signals_into_a_running_tree_in_memory() {
    into_one_that_runs(memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_signals_into_a_resting_tree_in_memory() {
    into_one_that_rests(memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_signals_into_a_running_tree_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    into_one_that_runs(sqlite(folder.path()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_signals_into_a_resting_tree_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    into_one_that_rests(sqlite(folder.path()).await).await;
}
