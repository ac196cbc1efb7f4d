//! What public types promise by their traits.

use std::fmt::Debug;

use soe_core::runtime::*;

fn handle<T: Clone + Debug + Send + Sync + Unpin + 'static>() {}
fn value<T: Debug + Send + 'static>() {}
fn error<T: std::error::Error + Send + Sync + 'static>() {}
fn future<T: Send>(_: &T) {}

#[test]
fn types_go_everywhere() {
    handle::<Engine>();
    handle::<Execution>();
    handle::<Finished>();
    handle::<StreamItem>();
    handle::<ShutdownReport>();
    handle::<Orchestration>();
    handle::<ContextExport>();
    handle::<EngineError>();
    handle::<EngineErrorKind>();
    value::<EngineBuilder>();
    value::<EventStream>();
    error::<EngineError>();
    error::<BuildError>();
}

#[tokio::test]
async fn futures_are_send() {
    let engine = Engine::builder().build().unwrap();
    let id = crate::common::id("x");
    future(&engine.orchestrate(crate::common::start(crate::common::ROUTER)));
    future(&engine.start(crate::common::start(crate::common::ROUTER)));
    future(&engine.broadcast_signals(&id, ["X"]));
    future(&engine.cancel(&id));
    future(&engine.wait(&id));
    future(&engine.delete(&id));
    future(&engine.collect(&Retention::older_than(std::time::Duration::ZERO)));
    future(&engine.collectable(&Retention::older_than(std::time::Duration::ZERO)));
    future(&engine.commits(&id, 0, 1));
    future(&engine.tree_at(&id, 1));
    future(&engine.fork(&id, Fork::latest()));
    future(&engine.shutdown(std::time::Duration::ZERO));
}
