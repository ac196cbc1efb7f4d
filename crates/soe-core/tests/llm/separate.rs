//! A conversation history in a store of its own: turns follow their commit, and none is lost or doubled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use soe_backends::*;
use soe_core::runtime::Engine;
use soe_core::testing::{MockLlm, any};

use crate::common::*;

const FLOW: &str = "
identities: {a: A.}
workflows:
  flow:
    One: {node_type: llm, event_triggers: [START], prompt: one, identity: a, output_field: x, event_emissions: [{signal_name: GO}]}
    Two: {node_type: llm, event_triggers: [GO], prompt: two, identity: a, output_field: y}
";

/// Two stores; the next call of one of them fails as often as is said.
#[derive(Default)]
struct Faulty {
    states: MemoryStore,
    history: MemoryStore,
    /// Commits that may be made before one fails; 0: none fails.
    commits: AtomicU32,
    /// Appends of the turns of nodes that fail.
    appends: AtomicU32,
}

fn unavailable() -> BackendError {
    BackendError::new(BackendErrorKind::Unavailable, "the test wants it so")
}

struct States(Arc<Faulty>);
struct History(Arc<Faulty>);

#[async_trait]
impl ContextBackend for States {
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        if self.0.commits.load(Ordering::SeqCst) > 0 && self.0.commits.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(unavailable());
        }
        self.0.states.commit(commits, after).await
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        self.0.states.load(tree).await
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        self.0.states.list(query).await
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        ContextBackend::delete(&self.0.states, tree, guard).await
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        self.0.states.post(tree, message).await
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        self.0.states.inbox(tree, after, limit).await
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        self.0.states.waiting(limit).await
    }
}

#[async_trait]
impl ConversationHistoryBackend for History {
    async fn turns(&self, main: &ExecutionId) -> Result<Vec<Turn>, BackendError> {
        self.0.history.turns(main).await
    }

    async fn append_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        let of_a_node = turns.iter().any(|turn| turn.role.as_ref() != "system");
        let fails = self.0.appends.load(Ordering::SeqCst) > 0;
        if of_a_node && fails {
            self.0.appends.fetch_sub(1, Ordering::SeqCst);
            return Err(unavailable());
        }
        self.0.history.append_turns(main, turns).await
    }

    async fn replace_turns(&self, main: &ExecutionId, turns: &[Turn]) -> Result<(), BackendError> {
        self.0.history.replace_turns(main, turns).await
    }

    async fn delete_turns(&self, main: &ExecutionId) -> Result<(), BackendError> {
        self.0.history.delete_turns(main).await
    }
}

fn engine(stores: &Arc<Faulty>, llm: &MockLlm) -> Engine {
    let rest = Arc::new(MemoryStore::new());
    let backends = Backends::builder(Arc::new(States(stores.clone())), rest.clone())
        .identities(rest)
        .conversations(Arc::new(History(stores.clone())));
    Engine::builder()
        .backends(backends.build())
        .llm(llm.clone())
        .build()
        .unwrap()
}

async fn told(engine: &Engine, id: &ExecutionId) -> Vec<String> {
    let turns = engine.conversation(id).await.unwrap().turns().await.unwrap();
    turns
        .iter()
        .map(|turn| format!("{}: {}", turn.role, turn.content))
        .collect()
}

#[tokio::test]
async fn a_turn_whose_commit_did_not_happen_is_not_in_the_history() {
    let stores = Arc::new(Faulty::default());
    let llm = MockLlm::new();
    llm.on(any()).output("first").output("second").output("third");
    let engine = engine(&stores, &llm);
    // Created; then the commit of the reply fails.
    stores.commits.store(2, Ordering::SeqCst);
    let execution = engine.start(start(FLOW)).await.unwrap();
    execution.wait().await.unwrap_err();
    assert_eq!(told(&engine, execution.id()).await, ["system: A."]);
    execution.signal(["WAKE"]).await.unwrap();
    execution.wait().await.unwrap();
    let expected = [
        "system: A.",
        "user: one",
        "assistant: second",
        "user: two",
        "assistant: third",
    ];
    assert_eq!(told(&engine, execution.id()).await, expected);
    let context = execution.context().await.unwrap();
    assert_eq!(context.value("x").unwrap().as_str(), Some("second"));
    let again = &llm.requests()[1];
    assert_eq!(
        asked(again)["conversation_history"],
        "[system]: A.",
        "its own turn is not in it"
    );
}

#[tokio::test]
async fn turns_that_could_not_be_stored_are_stored_before_anybody_acts_on_them() {
    let stores = Arc::new(Faulty::default());
    let llm = MockLlm::new();
    llm.on(any()).output("x");
    let engine = engine(&stores, &llm);
    stores.appends.store(1, Ordering::SeqCst);
    let execution = engine.start(start(FLOW)).await.unwrap();
    execution.wait().await.unwrap_err();
    assert_eq!(llm.calls(), 1, "the second node wasn't asked");
    assert_eq!(
        engine.tree(execution.id()).await.unwrap().owed.turns.len(),
        2,
        "they wait in the state"
    );
    execution.signal(["WAKE"]).await.unwrap();
    execution.wait().await.unwrap();
    let expected = ["system: A.", "user: one", "assistant: x", "user: two", "assistant: x"];
    assert_eq!(told(&engine, execution.id()).await, expected);
    assert_eq!(llm.calls(), 2, "each was asked once");
}

#[tokio::test]
async fn a_separate_store_beside_one_that_could_take_all_is_used() {
    let (all, own) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let backends = Backends::builder(all.clone(), all.clone())
        .identities(all.clone())
        .conversations(own.clone());
    let llm = MockLlm::new();
    llm.on(any()).output("x");
    let engine = Engine::builder()
        .backends(backends.build())
        .llm(llm.clone())
        .build()
        .unwrap();
    let done = run(engine, start(FLOW)).await;
    done.result.as_ref().unwrap();
    assert_eq!(own.turns(&done.id).await.unwrap().len(), 5);
    assert_eq!(all.turns(&done.id).await.unwrap().len(), 0);
    assert!(llm.requests()[1].text.contains("[user]: one"));
}
