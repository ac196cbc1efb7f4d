//! Two engines on a store that fails and is slow at any call: what a sender was told holds.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use soe_backends::conformance::faults::{Faults, faulty, faulty_separate};
use soe_backends::{Backends, ExecutionId, Status};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_core::testing::TestClock;
use soe_core::tools::{ToolContext, raw_tool};
use tokio::time::timeout;

/// It runs for ever: each call leads to the next.
const FLOW: &str = "
flow:
  Work: {node_type: tool, event_triggers: [START, AGAIN], tool_name: work, event_emissions: [{signal_name: AGAIN, condition: '{{ not context.stop }}'}]}
  Stop: {node_type: tool, event_triggers: [STOP], tool_name: stop, output_field: stop}
";

fn engine(backends: Backends, clock: &TestClock) -> Engine {
    let work = raw_tool("work", "", |_: Value, _: ToolContext| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(json!(1))
    });
    let stop = raw_tool("stop", "", |_: Value, _: ToolContext| async { Ok(json!(true)) });
    let builder = Engine::builder().backends(backends).tool(work).tool(stop);
    builder.clock(clock.source()).build().unwrap()
}

/// Sends signals one after the other; says of each whether it was acknowledged.
async fn send(engine: Engine, name: &'static str, x: ExecutionId) -> Vec<(String, bool)> {
    let mut sent = Vec::new();
    for number in 0..20 {
        let signal = format!("{name} {number}");
        let result = timeout(Duration::from_secs(600), engine.broadcast_signals(&x, [signal.clone()])).await;
        let acknowledged = result.unwrap_or_else(|_| panic!("{signal} is never answered")).is_ok();
        sent.push((signal, acknowledged));
    }
    sent
}

async fn survives(seed: u64, failed: &mut BTreeMap<&'static str, usize>) {
    let (plain, x) = (Backends::memory(), ExecutionId::new("x").unwrap());
    let clock = TestClock::default().with_step(Duration::from_micros(1));
    let faults = Faults::new(seed)
        .one_in(2 + seed % 9)
        .at_most(60)
        .delays(Duration::from_millis(300), tokio::time::sleep);
    let faults = Arc::new(faults);
    let wrap = if seed.is_multiple_of(2) {
        faulty
    } else {
        faulty_separate
    };
    let [one, two] = [(); 2].map(|()| engine(wrap(&plain, &faults), &clock));
    let config = Config::from_yaml(FLOW).unwrap();
    let flow = Orchestration::new(config, "flow").signal("START").id(x.clone());
    // With a store that works: that it can fail there is for other tests.
    let first = engine(plain.clone(), &clock);
    first.start(flow).await.unwrap();
    first.shutdown(Duration::ZERO).await;

    let (a, b) = tokio::join!(
        tokio::spawn(send(one.clone(), "a", x.clone())),
        tokio::spawn(send(two.clone(), "b", x.clone()))
    );
    let sent = [a.unwrap(), b.unwrap()];
    one.shutdown(Duration::ZERO).await;
    two.shutdown(Duration::ZERO).await;
    // What still holds by a lease that couldn't be given up has ended, and somebody comes with a store that works.
    clock.advance(Duration::from_secs(3600));
    let last = engine(plain.clone(), &clock);
    last.broadcast_signals(&x, ["STOP"]).await.unwrap();
    last.wait(&x).await.unwrap();
    assert_eq!(last.status(&x).await.unwrap().status, Status::Rested);

    let context = last.context(&x).await.unwrap();
    let signals: Vec<_> = context.operational.signals.iter().map(ToString::to_string).collect();
    for sent in sent {
        let mut place = 0;
        for (signal, acknowledged) in sent {
            let places: Vec<_> = (0..signals.len()).filter(|place| signals[*place] == signal).collect();
            assert!(places.len() <= 1, "seed {seed}: {signal} came {} times", places.len());
            assert!(!acknowledged || places.len() == 1, "seed {seed}: {signal} is lost");
            if let (true, Some(found)) = (acknowledged, places.first()) {
                assert!(
                    *found >= place,
                    "seed {seed}: {signal} came before what was acknowledged before it was sent"
                );
                place = *found;
            }
        }
    }
    assert!(plain.context().waiting(10).await.unwrap().is_empty());
    for (call, times) in faults.failed() {
        *failed.entry(call).or_default() += times;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_handled_once_and_what_was_not_at_most_once() {
    let mut failed = BTreeMap::new();
    for seed in 0..150 {
        survives(seed, &mut failed).await;
    }
    for call in ["commit", "load", "lease", "heartbeat", "post", "inbox", "waiting"] {
        assert!(failed.contains_key(call), "{call} never failed: {failed:?}");
    }
}
