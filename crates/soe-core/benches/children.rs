//! What a fan-out costs: children of one tool node each, joined in the parent. The baseline is the least that has the same
//! shape: a Tokio task for each child with a task for its tool, and an mpsc channel back to the parent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value as Json, json};
use soe_backends::Value;
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_core::tools::{ToolContext, raw_tool};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const WORKFLOWS: &str = "
parent:
  Fan:
    node_type: child
    event_triggers: [START]
    child_workflow_name: worker
    child_initial_signals: [GO]
    fan_out_field: tasks
    child_input_field: task
    signals_to_parent: [WORKED]
    context_updates_to_parent: [result]
  Join:
    node_type: router
    event_triggers: [WORKED]
    event_emissions:
      - {signal_name: ALL, condition: '{{ context.result | history | length == context.tasks | accumulated | length }}'}
worker:
  Work: {node_type: tool, event_triggers: [GO], tool_name: work, output_field: result, event_emissions: [{signal_name: WORKED}]}
";

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_time().build().expect("a runtime")
}

async fn baseline(children: u64) {
    let (parent, mut results) = mpsc::channel(256);
    for child in 0..children {
        let parent = parent.clone();
        tokio::spawn(async move {
            let result = tokio::spawn(async move { child }).await.unwrap_or_default();
            let _ = parent.send(result).await;
        });
    }
    drop(parent);
    let mut done = 0;
    while results.recv().await.is_some() {
        done += 1;
    }
    assert_eq!(done, children);
}

async fn fan_out(config: &Arc<Config>, children: u64) -> Duration {
    let work = |_: Json, _: ToolContext| async { Ok(json!(1)) };
    let engine = Engine::builder()
        .tool(raw_tool("work", "", work))
        .build()
        .expect("an engine");
    let tasks = Value::list((0..children).map(Value::from));
    let orchestration = Orchestration::new(config.clone(), "parent")
        .signal("START")
        .field("tasks", tasks);
    let start = Instant::now();
    let finished = engine.orchestrate(orchestration).await.expect("it rests");
    let elapsed = start.elapsed();
    let context = engine.context(&finished.execution).await.expect("it is there");
    assert!(context.operational.signals.contains("ALL"));
    elapsed
}

fn children(criterion: &mut Criterion) {
    let runtime = runtime();
    let config = Arc::new(Config::from_yaml(WORKFLOWS).expect("a configuration"));
    let mut group = criterion.benchmark_group("fan-out with a join");
    for children in [1_000, 10_000] {
        group.throughput(Throughput::Elements(children));
        group.bench_function(BenchmarkId::new("baseline", children), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(async {
                    let start = Instant::now();
                    for _ in 0..iterations {
                        baseline(children).await;
                    }
                    start.elapsed()
                })
            });
        });
        group.bench_function(BenchmarkId::new("soe", children), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(async {
                    let mut elapsed = Duration::ZERO;
                    for _ in 0..iterations {
                        elapsed += fan_out(&config, children).await;
                    }
                    elapsed
                })
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(3));
    targets = children
}
criterion_main!(benches);
