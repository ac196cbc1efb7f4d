//! What an application's own subscriber sees. In a process of its own: which spans are enabled is decided once for all
//! threads, and other tests have no subscriber.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are no test functions")]

#[allow(dead_code, reason = "this test needs little of it")]
#[path = "runtime/common.rs"]
mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use soe_core::tools::{NoArguments, tool_fn};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use common::*;

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

#[derive(Clone, Debug)]
struct Span {
    path: String,
    fields: BTreeMap<&'static str, String>,
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0
            .insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let path: Vec<_> = context
            .span_scope(id)
            .unwrap()
            .from_root()
            .map(|span| span.name())
            .collect();
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let path = path.join(" > ");
        self.0.lock().unwrap().push(Span { path, fields });
    }
}

// On one thread, so that a subscriber of this thread sees everything.
#[tokio::test]
async fn tree_node_run_tool_call() {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans.clone()));
    let engine = engine_with(tool_fn("work", "", |_: NoArguments, _| async { Ok(1) }));
    engine.orchestrate(start(WORK).id(id("x"))).await.unwrap();
    let spans = spans.0.lock().unwrap().clone();
    let paths: Vec<_> = spans.iter().map(|span| span.path.as_str()).collect();
    assert_eq!(paths, ["tree", "tree > node_run", "tree > node_run > tool_call"]);
    let field = |span: usize, name: &str| spans[span].fields.get(name).map(String::as_str);
    assert_eq!((field(0, "id"), field(0, "workflow")), (Some("x"), Some("flow")));
    assert_eq!((field(1, "node"), field(1, "node_type")), (Some("Work"), Some("tool")));
    assert_eq!((field(1, "execution"), field(1, "run")), (Some("x"), Some("1")));
    assert_eq!((field(2, "tool"), field(2, "attempt")), (Some("work"), Some("1")));
}
