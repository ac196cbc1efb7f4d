//! The least that does the same: tasks, a channel, an expression.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use minijinja::{Environment, Expression};
use tokio::sync::mpsc;

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(Environment::new);

/// A live view of the context: fields with their values.
#[derive(Debug, Default)]
struct Live(Mutex<HashMap<String, Arc<List>>>);

#[derive(Debug, Default)]
struct List(Mutex<Vec<Value>>);

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key.as_usize()?)
            .cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.lock().unwrap_or_else(PoisonError::into_inner).len())
    }
}

impl Object for Live {
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let fields = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        fields.get(key).map(|list| Value::from_dyn_object(list.clone()))
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }
}

impl Live {
    fn append(&self, field: &str) {
        let mut fields = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = match fields.get(field) {
            Some(list) => list.clone(),
            None => fields.entry(field.to_owned()).or_default().clone(),
        };
        list.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Value::from(1));
    }
}

fn compile(expression: String) -> Expression<'static, 'static> {
    ENVIRONMENT
        .compile_expression_owned(expression)
        .expect("the expression compiles")
}

fn holds(expression: &Expression<'_, '_>, root: &Value) -> bool {
    expression.eval(root.clone()).is_ok_and(|value| value.is_true())
}

/// One execution: a coordinator with a channel, a context, a task per node.
struct Coordinator {
    live: Arc<Live>,
    root: Value,
    sender: mpsc::Sender<u64>,
    receiver: mpsc::Receiver<u64>,
}

impl Coordinator {
    fn new() -> Self {
        let live = Arc::new(Live::default());
        let root = Value::from_pairs([("context", Value::from_dyn_object(live.clone()))]);
        let (sender, receiver) = mpsc::channel(256);
        Self {
            live,
            root,
            sender,
            receiver,
        }
    }

    fn spawn(&self, node: u64) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let _ = sender.send(node).await;
        });
    }

    async fn completed(&mut self) -> u64 {
        self.receiver.recv().await.expect("the coordinator holds a sender")
    }
}

/// Runs a coordinator as a task of its own.
async fn coordinate<F: Future<Output = ()> + Send + 'static>(run: F) {
    tokio::spawn(run).await.expect("the coordinator doesn't panic");
}

pub(crate) async fn chain(nodes: u64) {
    let expression = compile("context.missing is undefined".into());
    coordinate(sequence(nodes, expression, None)).await;
}

pub(crate) async fn guarded_loop(steps: u64) {
    let expression = compile(format!("context.steps | length <= {steps}"));
    coordinate(sequence(steps, expression, Some("steps"))).await;
}

pub(crate) async fn append(appends: u64) {
    let expression = compile(format!("context.values | length <= {appends}"));
    coordinate(sequence(appends, expression, Some("values"))).await;
}

/// One node after the other; each completion may append a value, and is decided by the expression.
async fn sequence(nodes: u64, expression: Expression<'static, 'static>, field: Option<&'static str>) {
    let mut coordinator = Coordinator::new();
    coordinator.spawn(0);
    for next in 1..=nodes {
        coordinator.completed().await;
        if let Some(field) = field {
            coordinator.live.append(field);
        }
        assert!(holds(&expression, &coordinator.root), "the node's condition holds");
        if next < nodes {
            coordinator.spawn(next);
        }
    }
}

pub(crate) async fn fan_in(tools: u64) {
    let expression = compile(format!("context.results | length == {tools}"));
    coordinate(async move {
        let mut coordinator = Coordinator::new();
        for node in 0..tools {
            coordinator.spawn(node);
        }
        let mut joined = 0;
        for _ in 0..tools {
            coordinator.completed().await;
            coordinator.live.append("results");
            joined += u64::from(holds(&expression, &coordinator.root));
        }
        assert_eq!(joined, 1, "the join holds once");
    })
    .await;
}

pub(crate) async fn executions(count: u64, at_a_time: u64) {
    static EXPRESSION: LazyLock<Expression<'static, 'static>> =
        LazyLock::new(|| compile("context.result is undefined or context.result | length == 1".into()));
    let one = || {
        coordinate(async {
            let mut coordinator = Coordinator::new();
            for node in 0..3 {
                coordinator.spawn(node);
                if coordinator.completed().await == 1 {
                    coordinator.live.append("result");
                }
                assert!(holds(&EXPRESSION, &coordinator.root), "the node's condition holds");
            }
        })
    };
    let mut running: FuturesUnordered<_> = (0..at_a_time.min(count)).map(|_| one()).collect();
    let mut started = at_a_time.min(count);
    while running.next().await.is_some() {
        if started < count {
            started += 1;
            running.push(one());
        }
    }
}

pub(crate) async fn waiting(nodes: u64) {
    coordinate(async move {
        let mut coordinator = Coordinator::new();
        for node in 0..nodes {
            let sender = coordinator.sender.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _ = sender.send(node).await;
            });
        }
        for _ in 0..nodes {
            coordinator.completed().await;
        }
    })
    .await;
}
