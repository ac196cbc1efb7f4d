//! What the engine costs around calls of LLMs: many at a time, and one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use soe_core::config::Config;
use soe_core::llm::llm_fn;
use soe_core::runtime::{Engine, Orchestration};
use tokio::runtime::Runtime;

const LATENCY: Duration = Duration::from_millis(50);

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_time().build().expect("a runtime")
}

async fn run(engine: &Engine, config: &Arc<Config>) -> Duration {
    let topic = "what people have asked for, in their own words; ".repeat(80);
    let orchestration = Orchestration::new(config.clone(), "w")
        .signal("START")
        .field("topic", topic);
    let start = Instant::now();
    let finished = engine.orchestrate(orchestration).await.expect("it rests");
    let elapsed = start.elapsed();
    engine.delete(&finished.execution).await.expect("it is there");
    elapsed
}

/// Nodes that ask at the same time, an LLM that takes 50 ms; beside as many tasks that sleep as long.
fn parallel(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("llm nodes on one signal, 50 ms each");
    for nodes in [100, 1_000] {
        group.bench_function(BenchmarkId::new("baseline", nodes), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(async {
                    let start = Instant::now();
                    for _ in 0..iterations {
                        join_all((0..nodes).map(|_| tokio::spawn(tokio::time::sleep(LATENCY)))).await;
                    }
                    start.elapsed()
                })
            });
        });
        let node = |n| {
            format!(
                "  N{n}: {{node_type: llm, event_triggers: [START], prompt: 'about {{{{ context.topic }}}}', output_field: x}}\n"
            )
        };
        let yaml: String = std::iter::once("w:\n".to_owned()).chain((0..nodes).map(node)).collect();
        let config = Arc::new(Config::from_yaml(&yaml).expect("a configuration"));
        let slow = llm_fn(|_, _| async {
            tokio::time::sleep(LATENCY).await;
            Ok(r#"{"x": "yes"}"#)
        });
        let engine = Engine::builder().llm(slow).build().expect("an engine");
        group.bench_function(BenchmarkId::new("soe", nodes), |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(async {
                    let mut elapsed = Duration::ZERO;
                    for _ in 0..iterations {
                        elapsed += run(&engine, &config).await;
                    }
                    elapsed
                })
            });
        });
    }
    group.finish();
}

/// One call after the other, of an LLM that answers at once; the prompt has 4 KB.
fn overhead(criterion: &mut Criterion) {
    const CALLS: u64 = 1_000;
    let runtime = runtime();
    let mut group = criterion.benchmark_group("one llm call after the other, 4 KB prompts");
    group.throughput(Throughput::Elements(CALLS));
    let kinds = [
        ("plain", "", ""),
        (
            "with a schema",
            "context_schema: {x: {type: object, properties: {n: integer}}}\n",
            "",
        ),
    ];
    for (name, section, more) in kinds {
        let yaml = format!(
            "{section}workflows:
  w:
    N:
      node_type: llm
      event_triggers: [START, AGAIN]
      prompt: 'about {{{{ context.topic }}}}'
      output_field: x
      event_emissions: [{{signal_name: AGAIN, condition: '{{{{ context.__operational__.llm_calls < {CALLS} }}}}'}}]
{more}"
        );
        let config = Arc::new(Config::from_yaml(&yaml).expect("a configuration"));
        let quick = llm_fn(move |_, _| async move {
            Ok(match section {
                "" => r#"{"x": "yes"}"#,
                _ => r#"{"n": 5}"#,
            })
        });
        let engine = Engine::builder().llm(quick).build().expect("an engine");
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                runtime.block_on(async {
                    let mut elapsed = Duration::ZERO;
                    for _ in 0..iterations {
                        elapsed += run(&engine, &config).await;
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
    targets = parallel, overhead
}
criterion_main!(benches);
