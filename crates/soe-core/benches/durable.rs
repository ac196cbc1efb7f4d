//! What durability costs: executions on SQLite with every commit synced, beside the least that the disk allows.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use futures::future::join_all;
use serde_json::{Value as Json, json};
use soe_backends::{Backends, ListQuery};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};
use soe_core::tools::{ToolContext, ToolDefinition, raw_tool};
use soe_sqlite::SqliteStore;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Two things really happen to it: it is started, and its tool returns.
const THREE: &str = "
flow:
  Begin: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: GO}]}
  Work: {node_type: tool, event_triggers: [GO], tool_name: work, output_field: result, event_emissions: [{signal_name: WORKED}]}
  End: {node_type: router, event_triggers: [WORKED], event_emissions: [{signal_name: DONE}]}
";

/// One tool node after the other, `count` steps in all.
const STEPS: &str = "
flow:
  Work: {node_type: tool, event_triggers: [NEXT], tool_name: work, output_field: result, event_emissions: [{signal_name: WORKED}]}
  Again:
    node_type: router
    event_triggers: [WORKED]
    event_emissions: [{signal_name: NEXT, condition: '{{ context.result | history | length < context.steps }}'}]
";

const RECORD: [u8; 300] = [b'x'; 300];
const AT_A_TIME: usize = 256;
const UNFINISHED: usize = 10_000;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_time().build().expect("a runtime")
}

/// A folder on the disk that is measured: a temporary folder may be in memory.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn log(folder: &Path) -> File {
    let mut options = OpenOptions::new();
    let opened = options.create(true).append(true).open(folder.join("raw"));
    opened.expect("a file")
}

fn work() -> ToolDefinition {
    raw_tool("work", "", |_: Json, _: ToolContext| async {
        Ok(json!("a result of a few words"))
    })
}

fn config(yaml: &str) -> Arc<Config> {
    Arc::new(Config::from_yaml(yaml).expect("a configuration"))
}

fn engine(backends: Backends) -> Engine {
    Engine::builder()
        .backends(backends)
        .tool(work())
        .build()
        .expect("an engine")
}

async fn durable(folder: &TempDir) -> Engine {
    let store = SqliteStore::open(folder.path().join("soe.db")).await.expect("a store");
    engine(store.backends())
}

async fn one(engine: &Engine, config: &Arc<Config>) {
    let flow = Orchestration::new(config.clone(), "flow")
        .signal("START")
        .field("topic", "a few words");
    engine.orchestrate(flow).await.expect("it rests");
}

fn executions(criterion: &mut Criterion) {
    let (runtime, config) = (runtime(), config(THREE));
    let mut group = criterion.benchmark_group("an execution of three nodes, synced");
    group.bench_function("four raw writes of 300 bytes", |bencher| {
        let folder = folder();
        let mut file = log(folder.path());
        bencher.iter(|| {
            for _ in 0..4 {
                file.write_all(&RECORD).expect("written");
                file.sync_data().expect("synced");
            }
        });
    });
    group.bench_function("soe", |bencher| {
        let folder = folder();
        let engine = runtime.block_on(durable(&folder));
        bencher.iter(|| runtime.block_on(one(&engine, &config)));
    });
    group.bench_function("soe in memory", |bencher| {
        let engine = engine(Backends::memory());
        bencher.iter(|| runtime.block_on(one(&engine, &config)));
    });
    group.finish();

    let mut group = criterion.benchmark_group("256 executions of three nodes at a time, synced");
    group.bench_function("four raw batches", |bencher| {
        let folder = folder();
        let mut file = log(folder.path());
        bencher.iter(|| {
            for _ in 0..4 {
                for _ in 0..AT_A_TIME {
                    file.write_all(&RECORD).expect("written");
                }
                file.sync_data().expect("synced");
            }
        });
    });
    let many = |engine: &Engine| {
        let all = (0..AT_A_TIME).map(|_| {
            let (engine, config) = (engine.clone(), config.clone());
            tokio::spawn(async move { one(&engine, &config).await })
        });
        join_all(all)
    };
    group.bench_function("soe", |bencher| {
        let folder = folder();
        let engine = runtime.block_on(durable(&folder));
        bencher.iter(|| {
            runtime.block_on(async {
                many(&engine).await;
            });
        });
    });
    group.bench_function("soe in memory", |bencher| {
        let engine = engine(Backends::memory());
        bencher.iter(|| {
            runtime.block_on(async {
                many(&engine).await;
            });
        });
    });
    group.finish();
}

/// A step at the end of a long execution costs what one at its beginning costs: ten times the steps, ten times the time.
fn steps(criterion: &mut Criterion) {
    let (runtime, config) = (runtime(), config(STEPS));
    let mut group = criterion.benchmark_group("an execution of many steps, synced");
    for steps in [1_000_u64, 10_000] {
        group.bench_function(BenchmarkId::from_parameter(steps), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(async {
                    let mut elapsed = Duration::ZERO;
                    for _ in 0..iterations {
                        let folder = folder();
                        let engine = durable(&folder).await;
                        let flow = Orchestration::new(config.clone(), "flow").signal("NEXT");
                        let flow = flow.field("steps", i64::try_from(steps).unwrap_or_default());
                        let start = Instant::now();
                        engine.orchestrate(flow).await.expect("it rests");
                        elapsed += start.elapsed();
                    }
                    elapsed
                })
            });
        });
    }
    group.finish();
}

/// What another process has left running is taken up, and brought to its end.
fn recovery(criterion: &mut Criterion) {
    let (runtime, config) = (runtime(), config(THREE));
    let mut group = criterion.benchmark_group("recovery");
    group.bench_function(format!("{UNFINISHED} unfinished executions"), |bencher| {
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    let folder = folder();
                    leave_unfinished(&folder, &config).await;
                    let start = Instant::now();
                    let engine = durable(&folder).await;
                    let recovered = engine.recover().await.expect("a store that can be read");
                    elapsed += start.elapsed();
                    assert_eq!(recovered.taken_up, UNFINISHED as u64, "{recovered:?}");
                    engine.shutdown(Duration::from_secs(60)).await;
                }
                elapsed
            })
        });
    });
    group.finish();
}

async fn leave_unfinished(folder: &TempDir, config: &Arc<Config>) {
    let store = SqliteStore::open(folder.path().join("soe.db")).await.expect("a store");
    let never = raw_tool("work", "", |_: Json, _: ToolContext| {
        std::future::pending::<Result<Json, soe_core::tools::ToolError>>()
    });
    let engine = Engine::builder()
        .backends(store.backends())
        .tool(never)
        .build()
        .expect("an engine");
    let started = (0..UNFINISHED).map(|_| engine.start(Orchestration::new(config.clone(), "flow").signal("START")));
    for started in join_all(started).await {
        started.expect("started");
    }
    engine.shutdown(Duration::ZERO).await;
    let running = engine.list(&ListQuery::default()).await.expect("a list");
    assert!(running.executions.iter().all(|each| each.unsettled));
    store.close().await;
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(4));
    targets = executions
}
criterion_group! {
    name = long;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_secs(4));
    targets = steps, recovery
}
criterion_main!(benches, long);
