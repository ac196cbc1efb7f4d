use serde_json::{Value as Json, json};

use super::*;
use crate::{Accepted, Progress, Spawn, Status, Then, Value};

/// A state of format 1, changed by what is `given` of it.
fn state(id: &str, status: &str, given: Json) -> Json {
    let mut state = json!({
        "format": 1, "id": id, "version": 3, "status": status, "status_since": "2025-06-15T15:06:41Z", "workflow": "main",
        "registry": crate::RegistryId::from_digest([0xcd; 32]).to_string(), "schedule": "concurrent",
        "limits": {}, "created_at": "2025-06-15T15:06:40Z", "updated_at": "2025-06-15T15:06:43Z",
        "context": {"fields": {"n": [1, 2]}, "operational": {"signals": ["START"], "nodes": {}, "llm_calls": 1,
            "tool_calls": 0, "errors": 0, "main_execution_id": "t"}},
        "context_bytes": 16, "broadcasts": 1, "runs_started": 2, "runs": {}, "next_run": 2, "snapshots": {}, "next_event": 4,
        "owner": {"process": "p", "fence": 2}
    });
    if id != "t" {
        let parent = id.rsplitn(3, '.').last().unwrap_or_default();
        state["created_at"] = "2025-06-15T15:06:42Z".into();
        state["context"]["parent"] = json!({"parent_execution_id": parent, "main_execution_id": "t",
            "signals_to_parent": ["DONE"], "context_updates_to_parent": ["n"], "depth": id.split('.').count() / 2});
    }
    let snapshots = given.get("snapshots").cloned().unwrap_or(json!([]));
    for (name, value) in given
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "snapshots")
    {
        state[name] = value.clone();
    }
    json!({"state": state, "snapshots": snapshots})
}

fn child(run: u64, status: &str, received: u64) -> Json {
    json!({"run": run, "node": "fan", "status": status, "received": received, "totals": {"llm_calls": 1, "tool_calls": 0,
        "tokens": 0, "children": 0}})
}

fn told(number: u64, rest: Json) -> Json {
    let mut told =
        json!({"number": number, "totals": {"llm_calls": number + 1, "tool_calls": 0, "tokens": 0, "children": 0}});
    for (name, value) in rest.as_object().into_iter().flatten() {
        told[name] = value.clone();
    }
    told
}

fn run(number: u64, snapshot: u64, progress: Json) -> Json {
    json!({"number": number, "node": "fan", "workflow": "main",
        "registry": crate::RegistryId::from_digest([0xcd; 32]).to_string(), "snapshot": snapshot,
        "started_at": "2025-06-15T15:06:41Z", "progress": progress})
}

#[test]
fn what_was_on_its_way_is_on_the_work_list() {
    let root = json!({
        "runs": {"1": run(1, 2, json!({"child": {"from": 0, "next": 4, "total": 5}}))},
        "snapshots": [{"commit": 2, "fields": {"n": 1}, "operational": {"signals": 1, "nodes": {}, "llm_calls": 0,
            "tool_calls": 0, "errors": 0, "main_execution_id": "t"}}],
        "pending": [["AGAIN"]],
        "family": {"active": 3, "children": {"t.1.0": child(1, "active", 1), "t.1.1": child(1, "active", 0),
            "t.1.2": child(1, "active", 0), "t.1.3": child(1, "active", 0)},
            "inbox": [{"child": "t.1.1", "message": told(1, json!({"signals": ["DONE"], "updates": [["n", 7]]}))}]},
    });
    // It has told its rest twice: the first time it was heard.
    let zero = json!({"family": {"told": 2, "outbox": [told(1, json!({})), told(2, json!({"updates": [["n", 8]]}))],
        "unsent": [["n", 9]]}});
    let one = json!({"family": {"told": 2, "outbox": [told(1, json!({"signals": ["DONE"], "updates": [["n", 7]]})),
        told(2, json!({"status": "failed", "error": "no"}))]}, "failure": {"message": "no"}, "owner": null});
    let states = vec![
        state("t.1.1", "failed", one),
        state("t", "running", root),
        // The one of place 2 was not created yet, so this one is created again.
        state("t.1.3", "rested", json!({})),
        state("t.1.0", "rested", zero),
    ];
    let tree = tree(states).unwrap();
    assert_eq!(
        (tree.version, tree.fence(), tree.executions.len(), tree.next_event),
        (4, 3, 3, 12)
    );
    assert_eq!((tree.used.children, tree.used.llm_calls, tree.used.runs), (2, 3, 6));
    let root = tree.root_state().unwrap();
    let Progress::Child(spawning) = root.runs.get(1).unwrap().progress else {
        panic!("{root:?}")
    };
    assert_eq!((root.children.as_ref().unwrap().count(1), spawning.total), (2, Some(5)));
    assert_eq!(tree.work.spawns, [Spawn { execution: 0, run: 1 }]);
    assert_eq!(
        root.snapshot(root.runs.get(1).unwrap())
            .unwrap()
            .history("n")
            .unwrap()
            .len(),
        1
    );
    let given: Vec<_> = tree
        .work
        .deliveries
        .iter()
        .map(|delivery| {
            let values: Vec<_> = delivery
                .updates
                .iter()
                .map(|(_, value)| value.as_i64().unwrap())
                .collect();
            (
                delivery.child,
                values,
                delivery.used.llm_calls,
                delivery.error.as_deref(),
            )
        })
        .collect();
    let (zero, one) = (tree.find(&id("t.1.0")).unwrap(), tree.find(&id("t.1.1")).unwrap());
    assert_eq!(
        given,
        [
            (one.number, vec![7], 1, None),
            (zero.number, vec![8], 2, None),
            (one.number, vec![], 1, Some("no"))
        ],
        "what was kept first, then by child and number; nothing twice"
    );
    assert_eq!(tree.work.deliveries[0].signals.as_deref(), Some(&["DONE".into()][..]));
    assert_eq!((zero.unsent.len(), zero.sent.llm_calls), (1, 3));
    assert_eq!(
        tree.work.accepted,
        [Accepted {
            execution: 0,
            signals: ["AGAIN".into()].into()
        }]
    );
    assert_eq!(
        (zero.status, one.status, root.children.as_ref().unwrap().active),
        (Status::Rested, Status::Failed, 0)
    );
    // It can be stored and gone on with.
    let json = crate::stored::write_tree(&tree).unwrap();
    assert_eq!(crate::stored::read_tree(json.as_bytes()).unwrap(), tree);
}

fn id(text: &str) -> ExecutionId {
    ExecutionId::new(text).unwrap()
}

#[test]
fn what_was_suspended_is_what_it_was_and_what_waits_for_a_resumption_is_kept() {
    let tool = |number| json!({"runs": {"1": run(number, 1, json!({"tool": {"attempt": 2}}))}});
    let root = json!({"failure": {"message": "no", "node": "n"}, "pending": [["LATER"]],
        "family": {"children": {"t.1.0": child(1, "active", 0), "t.1.1": child(1, "active", 0)}}});
    let one = json!({"family": {"told": 1, "outbox": [told(1, json!({"signals": ["DONE"]}))]}});
    let states = vec![
        state("t", "failed", root),
        state("t.1.0", "suspended", tool(1)),
        state("t.1.1", "suspended", one),
    ];
    let tree = tree(states).unwrap();
    let statuses: Vec<_> = tree.executions.values().map(|state| state.status).collect();
    assert_eq!(statuses, [Status::Failed, Status::Running, Status::Rested]);
    assert_eq!(tree.status(1), Some(Status::Suspended));
    assert_eq!(tree.root_state().unwrap().children.as_ref().unwrap().active, 1);
    assert!(tree.work.is_empty() && !tree.is_unsettled());
    let stopped = tree.root_state().unwrap().stopped.clone().unwrap();
    assert_eq!((stopped.accepted.len(), stopped.deliveries.len()), (1, 1));
}

#[test]
fn depth_first_what_waits_is_below_what_it_waits_for() {
    let frame = |signal: &str, then: Json| {
        json!({"signals": [signal], "registry": crate::RegistryId::from_digest([1; 32])
        .to_string(), "next": 1, "then": then})
    };
    let spawning = json!({"child": {"from": 0, "next": 1, "total": 1, "created": true}});
    let root = json!({"schedule": "depth_first", "runs": {"1": run(1, 2, spawning)},
        "stack": [frame("A", Json::Null), frame("", json!({"acknowledge": {"child": "t.1.0", "number": 1}})),
            frame("C", Json::Null)],
        "family": {"children": {"t.1.0": child(1, "active", 1)}}});
    let below = json!({"schedule": "depth_first", "stack": [frame("B", json!({"tell": ["DONE"]}))],
        "family": {"told": 2, "outbox": [told(2, json!({"signals": ["DONE"], "updates": [["n", 5]]}))]}});
    let tree = tree(vec![state("t", "running", root), state("t.1.0", "running", below)]).unwrap();
    let seen: Vec<_> = tree
        .work
        .stack
        .iter()
        .map(|frame| {
            let signal = frame.signals.first().map_or("-", |signal| signal.as_ref());
            let then = match frame.then.as_deref() {
                Some(Then::Deliver(_)) => "deliver",
                Some(Then::Spawn { .. }) => "spawn",
                None => "",
            };
            (frame.execution, signal, then)
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0, "A", ""),
            (0, "-", "spawn"),
            (1, "B", "deliver"),
            (1, "-", "deliver"),
            (0, "C", "")
        ]
    );
    assert_eq!(tree.get(1).unwrap().unsent.len(), 1);
    assert!(tree.work.spawns.is_empty() && tree.work.deliveries.is_empty());
}

#[test]
fn commits_make_the_state_that_they_made() {
    let genesis = json!([{"created": {"workflow": "main", "registry": crate::RegistryId::from_digest([0xcd; 32]).to_string(), "main_execution_id": "t",
        "schedule": "concurrent", "limits": {}, "fields": [["n", [1]]], "context_bytes": 8}},
        {"status": {"status": "running", "at": "2025-06-15T15:06:41Z"}}, {"broadcast": ["START"]},
        {"dispatched": run(1, 1, json!({"tool": {"attempt": 1}}))}]);
    let at = Timestamp::from_micros(1_750_000_000_000_000);
    let mut execution = Execution::create(&id("t"), at, genesis.to_string().as_bytes(), 2).unwrap();
    let next = json!([{"finished": {"run": 1}}, {"appended": {"field": "n", "value": 2, "size": 8}}, "error",
        {"owned": {"process": "p", "fence": 1}}, {"status": {"status": "rested", "at": "2025-06-15T15:06:42Z"}}]);
    execution.apply(at, next.to_string().as_bytes(), 3).unwrap();
    assert_eq!(
        (execution.version(), execution.events(), execution.root().as_str()),
        (2, 5, "t")
    );
    let tree = tree_of(vec![execution]).unwrap();
    let root = tree.root_state().unwrap();
    assert_eq!(
        (root.status, root.runs.len(), root.next_run, tree.fence()),
        (Status::Rested, 0, 2, 2)
    );
    assert_eq!(root.context.value("n").and_then(Value::as_i64), Some(2));
    assert_eq!(root.context.operational.errors, 1);
    assert_eq!(root.context.operational.nodes.get("fan"), Some(&1));
}

#[test]
fn what_can_t_be_a_tree_is_refused() {
    assert!(matches!(tree(vec![]), Err(ConvertError::Roots(0))));
    let orphan = vec![state("t", "rested", json!({})), state("t.1.0", "rested", json!({}))];
    assert!(matches!(tree(orphan), Err(ConvertError::Orphan(_))));
    let mut later = state("t", "rested", json!({}));
    later["state"]["format"] = 2.into();
    assert!(matches!(tree(vec![later]), Err(ConvertError::State(_))));
}

#[test]
fn events_of_a_tree_are_put_in_one_order() {
    let at = Timestamp::from_micros;
    let kind = || EventKind::ExecutionRested {};
    let all = events(
        vec![
            (id("t"), vec![(at(5), kind()), (at(9), kind())]),
            (id("t.1.0"), vec![(at(7), kind())]),
        ],
        10,
    );
    let seen: Vec<_> = all.iter().map(|event| (event.seq, event.execution.as_str())).collect();
    assert_eq!(seen, [(7, "t"), (8, "t.1.0"), (9, "t")]);
    assert!(
        event_kind(json!({"event": "execution_suspended", "data": {}}))
            .unwrap()
            .is_none()
    );
    assert!(
        event_kind(json!({"event": "execution_rested", "data": {}}))
            .unwrap()
            .is_some()
    );
}
