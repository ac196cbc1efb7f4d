//! What the engine costs, beside the least that does the same in the same run: a Tokio task per node, an mpsc channel to a
//! coordinator per execution, and one precompiled minijinja expression per completion on a live view of the context.
//!
//! `cargo bench -p soe-core --bench engine` ends with a table of ratios.

// A benchmark's result is what it prints.
#![allow(clippy::print_stdout)]

mod baseline;
mod report;
mod workloads;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use tokio::runtime::Runtime;
use workloads::Subject;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();

    chain(&mut criterion, &runtime);
    guarded_loop(&mut criterion, &runtime);
    fan_in(&mut criterion, &runtime);
    executions(&mut criterion, &runtime);
    append(&mut criterion, &runtime);
    waiting(&mut criterion, &runtime);
    criterion.final_summary();
    report::print();
    report::memory(&runtime);
}

/// Measures an engine that runs `count` executions, so many at a time, beside `baseline`; both do `units` units of work.
fn pair<B>(
    criterion: &mut Criterion,
    runtime: &Runtime,
    group: &str,
    units: u64,
    soe: (&Subject, u64, u64),
    mut baseline: B,
) where
    B: AsyncFnMut(),
{
    let (subject, count, at_a_time) = soe;
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(units));
    group.bench_function(BenchmarkId::new("baseline", units), |bencher| {
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..iterations {
                    baseline().await;
                }
                start.elapsed()
            })
        });
    });
    group.bench_function(BenchmarkId::new("soe", units), |bencher| {
        bencher.iter_custom(|iterations| {
            runtime.block_on(async {
                let mut elapsed = Duration::ZERO;
                for _ in 0..iterations {
                    elapsed += subject.run(count, at_a_time).await;
                }
                elapsed
            })
        });
    });
    group.finish();
}

fn chain(criterion: &mut Criterion, runtime: &Runtime) {
    let subject = Subject::new(&workloads::chain(1_000));
    let baseline = async || baseline::chain(1_000).await;
    pair(
        criterion,
        runtime,
        "chain of routers",
        1_000,
        (&subject, 1, 1),
        baseline,
    );
}

fn guarded_loop(criterion: &mut Criterion, runtime: &Runtime) {
    for steps in [1_000, 10_000] {
        let subject = Subject::new(&workloads::guarded_loop(steps));
        let baseline = async || baseline::guarded_loop(steps).await;
        pair(criterion, runtime, "router loop", steps, (&subject, 1, 1), baseline);
    }
}

fn fan_in(criterion: &mut Criterion, runtime: &Runtime) {
    for tools in [100, 1_000] {
        let subject = Subject::new(&workloads::fan_in(tools));
        let baseline = async || baseline::fan_in(tools).await;
        pair(
            criterion,
            runtime,
            "tools and a join",
            tools,
            (&subject, 1, 1),
            baseline,
        );
    }
}

fn executions(criterion: &mut Criterion, runtime: &Runtime) {
    let subject = Subject::new(&workloads::three_nodes());
    for (at_a_time, name) in [(1, "executions one by one"), (64, "executions 64 at a time")] {
        for count in [1_000, 10_000] {
            let baseline = async || baseline::executions(count, at_a_time).await;
            pair(criterion, runtime, name, count, (&subject, count, at_a_time), baseline);
        }
    }
}

fn append(criterion: &mut Criterion, runtime: &Runtime) {
    for appends in [1_000, 10_000] {
        let subject = Subject::new(&workloads::append(appends));
        let baseline = async || baseline::append(appends).await;
        pair(
            criterion,
            runtime,
            "append and count",
            appends,
            (&subject, 1, 1),
            baseline,
        );
    }
}

fn waiting(criterion: &mut Criterion, runtime: &Runtime) {
    let subject = Subject::new(&workloads::waiting(100));
    let baseline = async || baseline::waiting(100).await;
    pair(criterion, runtime, "100 nodes of 50 ms", 1, (&subject, 1, 1), baseline);
}
