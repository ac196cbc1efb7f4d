//! What storing commits costs, beside the least that the disk allows: the same number of synced writes.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use futures::future::join_all;
use rusqlite::Connection;
use soe_backends::{
    Backends, Change, Commit, Event, EventKind, ExecutionChange, ExecutionId, Genesis, Limits, Progress, RegistryId,
    Run, Schedule, Status, Timestamp, TreeGenesis, Value,
};
use soe_sqlite::SqliteStore;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const RECORD: [u8; 300] = [b'x'; 300];
const AT_A_TIME: u64 = 256;

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).build().expect("a runtime")
}

/// A folder on the disk that is measured: a temporary folder may be in memory.
fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn log(folder: &Path) -> File {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .append(true)
        .open(folder.join("raw"))
        .expect("a file")
}

fn commit(id: &ExecutionId, version: u64, changes: Vec<Change>, kinds: Vec<EventKind>, first_event: u64) -> Commit {
    let time = Timestamp::from_micros(1_700_000_000_000_000 + version);
    let events = (first_event..).zip(kinds).map(|(seq, kind)| Event {
        seq,
        time,
        execution: id.clone(),
        kind,
    });
    Commit {
        tree: id.clone(),
        version,
        fence: 0,
        at: time,
        changes,
        registries: Vec::new(),
        definitions: None,
        turns: Vec::new(),
        events: events.collect(),
    }
}

fn root(change: ExecutionChange) -> Change {
    Change::In { execution: 0, change }
}

fn node(name: &str, run: Option<u64>) -> EventKind {
    EventKind::NodeExecution {
        node_name: name.into(),
        node_type: "tool".into(),
        run,
    }
}

fn broadcast(signal: &str) -> (Change, EventKind) {
    let signals: soe_backends::Batch = [signal.into()].into();
    (
        root(ExecutionChange::Broadcast(signals.clone())),
        EventKind::SignalsBroadcast { signals },
    )
}

/// What an execution of router, tool, router stores when it is created and dispatches the tool.
fn first(id: &ExecutionId) -> Commit {
    let registry = RegistryId::from_digest([7; 32]);
    let at = Timestamp::from_micros(1_700_000_000_000_000);
    let genesis = Genesis {
        id: id.clone(),
        origin: None,
        workflow: "main_workflow".into(),
        registry: registry.clone(),
        parent: None,
        fields: vec![(
            "topic".into(),
            [Value::from("a topic of a few words")].into_iter().collect(),
        )],
        context_bytes: 32,
    };
    let genesis = TreeGenesis {
        schedule: Schedule::Concurrent,
        limits: Limits::default().into(),
        definitions: Default::default(),
        root: genesis,
    };
    let run = Run {
        number: 1,
        node: "work".into(),
        workflow: "main_workflow".into(),
        registry,
        snapshot: 1,
        started_at: at,
        progress: Progress::Tool { attempt: 1 },
    };
    let ((start, started), (go, going)) = (broadcast("START"), broadcast("GO"));
    let status = root(ExecutionChange::Status {
        status: Status::Running,
        at,
        failure: None,
    });
    let routed = root(ExecutionChange::Routed { node: "route".into() });
    let changes = vec![
        Change::Created(Box::new(genesis)),
        status,
        start,
        routed,
        go,
        root(ExecutionChange::Dispatched(run.into())),
        root(ExecutionChange::Snapshot { run: 1 }),
    ];
    let begun = EventKind::OrchestrationStart {
        workflow_name: "main_workflow".into(),
    };
    commit(
        id,
        1,
        changes,
        vec![begun, started, node("route", None), going, node("work", Some(1))],
        0,
    )
}

/// What it stores when the tool is done and nothing is left to do.
fn second(id: &ExecutionId) -> Commit {
    let value = Value::from("a result of a few words");
    let appended = root(ExecutionChange::Appended {
        field: "result".into(),
        size: value.size(),
        value,
        delivered: false,
    });
    let (done, told) = broadcast("DONE");
    let status = root(ExecutionChange::Status {
        status: Status::Rested,
        at: Timestamp::from_micros(1_700_000_000_000_100),
        failure: None,
    });
    let finished = EventKind::NodeFinished {
        node_name: "work".into(),
        run: 1,
        duration_us: 100,
        tokens: None,
    };
    let updated = EventKind::ContextUpdated {
        field: "result".into(),
        length: 1,
    };
    let changes = vec![
        root(ExecutionChange::Finished { run: 1 }),
        appended,
        done,
        root(ExecutionChange::Routed { node: "join".into() }),
        status,
    ];
    commit(
        id,
        2,
        changes,
        vec![
            finished,
            updated,
            told,
            node("join", None),
            EventKind::ExecutionRested {},
        ],
        5,
    )
}

/// A step of a loop: one more value.
fn step(id: &ExecutionId, version: u64) -> Commit {
    let value = Value::from(version);
    let appended = root(ExecutionChange::Appended {
        field: "n".into(),
        size: value.size(),
        value,
        delivered: false,
    });
    let (go, going) = broadcast("GO");
    let kinds = vec![going, node("work", None)];
    commit(
        id,
        version,
        vec![appended, go, root(ExecutionChange::Routed { node: "work".into() })],
        kinds,
        2 * version + 3,
    )
}

fn id(number: u64) -> ExecutionId {
    ExecutionId::new(format!("0192f0c1-7a00-7000-8000-{number:012}")).expect("a valid id")
}

/// A fresh store, and a number for each execution that is made in it.
struct Store {
    backends: Backends,
    next: u64,
    _folder: TempDir,
}

impl Store {
    fn new(runtime: &Runtime) -> Self {
        let folder = folder();
        let store = runtime.block_on(SqliteStore::open(folder.path().join("soe.db")));
        Self {
            backends: store.expect("a store").backends(),
            next: 0,
            _folder: folder,
        }
    }

    fn id(&mut self) -> ExecutionId {
        self.next += 1;
        id(self.next)
    }

    async fn store(&self, commit: Commit) {
        self.backends.commit(vec![commit], None).await.expect("it is stored");
    }
}

/// One execution of two commits after the other, beside four synced writes.
fn one_at_a_time(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("an execution of two commits");
    let raw = folder();
    let mut file = log(raw.path());
    group.bench_function("four times 300 bytes and fdatasync", |bencher| {
        bencher.iter(|| {
            for _ in 0..4 {
                file.write_all(&RECORD).expect("room");
                file.sync_data().expect("a disk");
            }
        });
    });
    let db = Connection::open(raw.path().join("raw.db")).expect("a database");
    db.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = full; CREATE TABLE t (x BLOB)")
        .expect("a table");
    group.bench_function("two transactions that insert 300 bytes", |bencher| {
        bencher.iter(|| {
            for _ in 0..2 {
                let insert = db.prepare_cached("INSERT INTO t VALUES (?1)");
                insert.expect("SQL").execute([RECORD]).expect("room");
            }
        });
    });
    let runtime = runtime();
    let mut store = Store::new(&runtime);
    group.bench_function("the store", |bencher| {
        bencher.iter(|| {
            let id = store.id();
            runtime.block_on(async {
                store.store(first(&id)).await;
                store.store(second(&id)).await;
            });
        });
    });
    group.finish();
}

/// 256 executions at a time, beside as many writes that are synced together.
fn many_at_a_time(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("256 executions of two commits at a time");
    let raw = folder();
    let mut file = log(raw.path());
    group.bench_function("twice 256 times 300 bytes, then fdatasync", |bencher| {
        bencher.iter(|| {
            for _ in 0..2 {
                (0..AT_A_TIME).for_each(|_| file.write_all(&RECORD).expect("room"));
                file.sync_data().expect("a disk");
            }
        });
    });
    let runtime = runtime();
    let mut store = Store::new(&runtime);
    group.bench_function("the store", |bencher| {
        bencher.iter(|| {
            let ids: Vec<_> = (0..AT_A_TIME).map(|_| store.id()).collect();
            runtime.block_on(async {
                join_all(ids.iter().map(|id| store.store(first(id)))).await;
                join_all(ids.iter().map(|id| store.store(second(id)))).await;
            });
        });
    });
    group.finish();
}

/// The first commits of a long execution, and the last ones of 10,000.
fn history(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("100 commits of one execution");
    group.sample_size(10);
    let runtime = runtime();
    let measure = |from: u64, iterations: u64| {
        (0..iterations).fold(Duration::ZERO, |total, _| {
            let mut store = Store::new(&runtime);
            let id = store.id();
            runtime.block_on(async {
                store.store(first(&id)).await;
                let before: Vec<_> = (2..from).map(|version| step(&id, version)).collect();
                if !before.is_empty() {
                    store.backends.commit(before, None).await.expect("they are stored");
                }
                let start = Instant::now();
                for version in from..from + 100 {
                    store.store(step(&id, version)).await;
                }
                total + start.elapsed()
            })
        })
    };
    group.bench_function("the first", |bencher| bencher.iter_custom(|n| measure(2, n)));
    group.bench_function("from the 9,900th on", |bencher| {
        bencher.iter_custom(|n| measure(9_900, n))
    });
    group.finish();
}

criterion_group!(benches, one_at_a_time, many_at_a_time, history);
criterion_main!(benches);
