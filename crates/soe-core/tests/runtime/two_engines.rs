//! Two engines on one store: what is asked of the one that doesn't run a tree is done by the one that does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use soe_backends::*;
use soe_core::runtime::{Engine, EngineError, EngineErrorKind};
use tokio::runtime::Runtime;

use crate::common::*;

const FLOW: &str = "
flow:
  Work: {node_type: tool, event_triggers: [START], tool_name: work, output_field: result, event_emissions: [{signal_name: DONE}]}
  Try: {node_type: child, event_triggers: [START], child_workflow_name: broken, child_initial_signals: [GO], child_failure_signal: CHILD_FAILED}
  Heard: {node_type: router, event_triggers: [MORE], event_emissions: [{signal_name: HEARD}]}
broken:
  Bad: {node_type: boom, event_triggers: [GO], event_emissions: [{signal_name: MENDED}]}
";

fn engine_on(backends: &Backends, now: &Arc<AtomicU64>, gate: &Gate) -> Engine {
    let (clock, failures) = (now.clone(), Arc::new(AtomicU64::new(1)));
    let boom = move |_: soe_core::nodes::NodeInput| {
        let fails = failures.swap(0, Ordering::SeqCst) > 0;
        async move {
            match fails {
                true => Err(soe_core::nodes::NodeError::new("not yet")),
                false => Ok(soe_core::nodes::NodeOutput::default()),
            }
        }
    };
    let builder = builder()
        .backends(backends.clone())
        .tool(gate.tool("work"))
        .node_type("boom", boom);
    let builder = builder.clock(move || Timestamp::from_micros(clock.load(Ordering::SeqCst)));
    builder.lease(Duration::from_secs(30)).build().unwrap()
}

struct Pair {
    one: Engine,
    two: Engine,
    gates: [Gate; 2],
}

/// The first runs `x`: a tool waits, and a child has failed.
async fn pair() -> Pair {
    let (backends, now) = (Backends::memory(), Arc::new(AtomicU64::new(1)));
    let gates = [Gate::new(), Gate::new()];
    let [one, two] = [0, 1].map(|i| engine_on(&backends, &now, &gates[i]));
    one.start(start(FLOW).id(id("x"))).await.unwrap();
    soon(gates[0].called()).await;
    while count(&one.context(&id("x")).await.unwrap(), "CHILD_FAILED") == 0 {
        tokio::task::yield_now().await;
    }
    Pair { one, two, gates }
}

/// Why each message that was taken was refused, if it was.
async fn taken(engine: &Engine) -> Vec<Option<Arc<str>>> {
    let events = engine.tree_telemetry(&id("x"), 0, 1_000).await.unwrap();
    let taken = events.into_iter().filter_map(|event| match event.kind {
        EventKind::MessageTaken { refused, .. } => Some(refused),
        _ => None,
    });
    taken.collect()
}

#[tokio::test(start_paused = true)]
async fn the_owner_takes_signals_definitions_resumptions_and_cancellations() {
    let Pair { one, two, gates } = pair().await;
    two.broadcast_signals(&id("x"), ["MORE"]).await.unwrap();
    assert_eq!(
        count(&two.context(&id("x")).await.unwrap(), "HEARD"),
        1,
        "taken when it is answered"
    );
    let definitions = two.definitions(&id("x")).await.unwrap();
    definitions
        .replace_identities(&[("ada".into(), "You count.".into())].into())
        .await
        .unwrap();
    let theirs = one.definitions(&id("x")).await.unwrap().identities().await.unwrap();
    assert_eq!(theirs["ada"].as_ref(), "You count.");
    let child = one.tree(&id("x")).await.unwrap().get(1).unwrap().id.clone();
    assert_eq!(two.status(&child).await.unwrap().status, Status::Failed);
    two.resume(&child).await.unwrap();
    soon(two.wait(&child)).await.unwrap();
    assert_eq!(count(&two.context(&child).await.unwrap(), "MENDED"), 1);

    let waiting = [&one, &two].map(|engine| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.wait(&id("x")).await })
    });
    two.cancel(&id("x")).await.unwrap();
    assert_eq!(one.status(&id("x")).await.unwrap().status, Status::Cancelled);
    for waiting in waiting {
        let error = soon(waiting).await.unwrap().unwrap_err();
        assert_eq!(*error.kind(), EngineErrorKind::Ended(Status::Cancelled));
    }
    assert_eq!(taken(&one).await, [None, None, None, None]);
    let tree = two.tree(&id("x")).await.unwrap();
    assert_eq!(
        (tree.fence(), tree.inbox),
        (1, 4),
        "it was the first one's all the time"
    );
    assert!(gates[1].keys.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_the_owner_refuses_is_answered_with_its_reason() {
    let Pair { one, two, gates } = pair().await;
    let child = one.tree(&id("x")).await.unwrap().get(1).unwrap().id.clone();
    let refused = |error: EngineError, why: &str| {
        assert_eq!(*error.kind(), EngineErrorKind::Refused, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    };
    let error = two.broadcast_signals(&child, ["X"]).await.unwrap_err();
    refused(error, "the execution is failed and takes no signals");
    two.cancel(&child).await.unwrap();
    refused(two.resume(&child).await.unwrap_err(), "is cancelled");
    let none: [&str; 0] = [];
    refused(
        two.broadcast_signals(&id("x"), none).await.unwrap_err(),
        "at least one signal",
    );
    let nobody = two.broadcast_signals(&id("x.7.7"), ["X"]).await.unwrap_err();
    assert_eq!(*nobody.kind(), EngineErrorKind::NotFound);
    let refusals: Vec<bool> = taken(&one).await.iter().map(Option::is_some).collect();
    assert_eq!(refusals, [true, false, true]);
    gates[0].open(1);
    assert_eq!(soon(two.wait(&id("x"))).await.unwrap().status, Status::Rested);
}

/// An engine that is gone without a word, with what it ran; and a second one on the same store.
struct Abandoned {
    two: Engine,
    gates: [Gate; 2],
    now: Arc<AtomicU64>,
    runtime: Runtime,
}

fn abandoned() -> Abandoned {
    let (backends, now) = (Backends::memory(), Arc::new(AtomicU64::new(1)));
    let gates = [Gate::new(), Gate::new()];
    let first = Runtime::new().unwrap();
    first.block_on(async {
        let one = engine_on(&backends, &now, &gates[0]);
        one.start(start(WORK).id(id("x"))).await.unwrap();
        soon(gates[0].called()).await;
    });
    first.shutdown_background();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let two = engine_on(&backends, &now, &gates[1]);
    Abandoned {
        two,
        gates,
        now,
        runtime,
    }
}

impl Abandoned {
    /// Asks for something, and lets the lease of the first engine end when the message is stored.
    async fn ask<T>(&self, asking: impl Future<Output = T>) -> T {
        let lease_ends = async {
            while self.two.backends().context().waiting(1).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            self.now.store(31_000_000, Ordering::SeqCst);
        };
        let (answer, ()) = soon(async { tokio::join!(asking, lease_ends) }).await;
        answer
    }
}

#[test]
fn a_message_to_an_owner_that_has_died_is_taken_by_the_next() {
    let abandoned = abandoned();
    abandoned.runtime.block_on(async {
        let (two, x) = (&abandoned.two, id("x"));
        assert_eq!(two.recover().await.unwrap().elsewhere, 1);
        abandoned.ask(two.broadcast_signals(&x, ["MORE"])).await.unwrap();
        soon(abandoned.gates[1].called()).await;
        abandoned.gates[1].open(1);
        soon(two.wait(&x)).await.unwrap();
        assert_eq!(signals(&two.context(&x).await.unwrap()), ["START", "MORE", "DONE"]);
        assert_eq!(two.tree(&x).await.unwrap().fence(), 2);
        let keys = abandoned.gates.each_ref().map(|gate| gate.keys.lock().unwrap().clone());
        assert_eq!(keys[0], keys[1], "the same run");
    });
}

#[test]
fn a_cancellation_comes_before_what_it_cancels_is_performed_again() {
    let abandoned = abandoned();
    abandoned.runtime.block_on(async {
        let (two, x) = (&abandoned.two, id("x"));
        abandoned.ask(two.cancel(&x)).await.unwrap();
        assert_eq!(two.status(&x).await.unwrap().status, Status::Cancelled);
        soon(two.shutdown(Duration::ZERO)).await;
        assert!(abandoned.gates[1].keys.lock().unwrap().is_empty());
    });
}

#[test]
fn a_message_whose_sender_went_away_is_taken_when_the_tree_is_recovered() {
    let abandoned = abandoned();
    abandoned.runtime.block_on(async {
        let (two, x) = (&abandoned.two, id("x"));
        let asked = two.broadcast_signals(&x, ["MORE"]);
        let stored = async {
            while two.backends().context().waiting(1).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = asked => panic!("nobody took it"),
            () = stored => {}
        }
        abandoned.now.store(31_000_000, Ordering::SeqCst);
        assert_eq!(two.recover().await.unwrap().taken_up, 1);
        abandoned.gates[1].open(1);
        soon(two.wait(&x)).await.unwrap();
        assert_eq!(count(&two.context(&x).await.unwrap(), "MORE"), 1);

        // One that rests has nothing to recover but its messages.
        let message = Message {
            id: "m".into(),
            at: Timestamp::from_micros(1),
            execution: x.clone(),
            request: Request::Signal(["LATE".into()].into()),
        };
        let posted = two.backends().context().post(&x, &message).await.unwrap();
        assert_eq!(posted, Post::Stored(2));
        assert_eq!(two.recover().await.unwrap().taken_up, 1);
        soon(two.wait(&x)).await.unwrap();
        assert_eq!(count(&two.context(&x).await.unwrap(), "LATE"), 1);
    });
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_the_store_has_stopped_goes_on_for_a_message() {
    let store = FaultyStore::new();
    store.leases.store(true, Ordering::SeqCst);
    let gates = [Gate::new(), Gate::new()];
    let now = Arc::new(AtomicU64::new(1));
    let one = engine_on(&store.backends(), &now, &gates[0]);
    let two = engine_on(&Backends::single(store.inner.clone()), &now, &gates[1]);
    let execution = one.start(start(WORK).id(id("x"))).await.unwrap();
    gates[0].called().await;
    store.fail_after(0, Fault::Before);
    assert_eq!(
        *execution.signal(["X"]).await.unwrap_err().kind(),
        EngineErrorKind::Backend
    );
    soon(execution.wait()).await.unwrap_err();
    // Its process is alive, so it is the one who has it: nobody else can go on with it.
    soon(two.broadcast_signals(&id("x"), ["MORE"])).await.unwrap();
    gates[0].called().await;
    gates[0].open(2);
    soon(two.wait(&id("x"))).await.unwrap();
    assert_eq!(
        signals(&two.context(&id("x")).await.unwrap()),
        ["START", "MORE", "DONE"]
    );
    assert!(gates[1].keys.lock().unwrap().is_empty());
}

#[test]
fn an_engine_that_cannot_take_over_says_so_and_the_message_waits() {
    let abandoned = abandoned();
    abandoned.runtime.block_on(async {
        let x = id("x");
        let now = abandoned.now.clone();
        let clock = move || Timestamp::from_micros(now.load(Ordering::SeqCst));
        let backends = abandoned.two.backends().clone();
        let bare = builder().backends(backends.clone()).clock(clock).build().unwrap();
        let error = abandoned.ask(bare.broadcast_signals(&x, ["MORE"])).await.unwrap_err();
        assert_eq!(*error.kind(), EngineErrorKind::Refused);
        let text = error.to_string();
        assert!(
            text.contains("uses tool 'work'") && text.contains("The message waits"),
            "{text}"
        );
        // To end it nothing is needed.
        assert_eq!(backends.context().inbox(&x, 0, 10).await.unwrap().len(), 1);
        abandoned.two.cancel(&x).await.unwrap();
        assert_eq!(bare.status(&x).await.unwrap().status, Status::Cancelled);
        assert!(backends.context().waiting(1).await.unwrap().is_empty());
    });
}
