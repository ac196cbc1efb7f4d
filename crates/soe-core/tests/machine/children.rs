//! Child nodes, and what executions tell each other, one transition at a time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use soe_backends::{ChildStatus, ExecutionId, Limits, ParentInfo, Status, Timestamp, Told, Turn, Value};
use soe_core::machine::{Descend, Effect, Input, Machine, MachineError, Outcome, Spawn, Specs};

use crate::{Bench, Setup, flow, tool};

const WORKER: &str = "
worker:
  T: {node_type: tool, event_triggers: [GO], tool_name: t, output_field: r}";

const ROUTER: &str = "  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: A}]}";

/// The node `C` starts workers, one for each of `items`; `more` is what is configured besides.
fn fan(items: usize, more: &str) -> Setup {
    let node = format!(
        "  C: {{node_type: child, event_triggers: [START], child_workflow_name: worker, child_initial_signals: [GO],
    fan_out_field: items, child_input_field: item, signals_to_parent: [W], context_updates_to_parent: [r],
    event_emissions: [{{signal_name: STARTED}}]{more}}}
  On: {{node_type: tool, event_triggers: [W], tool_name: t, event_emissions: [{{signal_name: SEEN}}]}}{WORKER}"
    );
    let items: Vec<usize> = (0..items).collect();
    flow(&node).field("items", json!([items]))
}

/// The workflow `flow` as a child of `p` that passes on the signals W and V and the field r.
fn child(nodes: &str) -> Setup {
    let mut setup = flow(nodes);
    let parent = ExecutionId::new("p").unwrap();
    setup.start.main_execution_id = Some(parent.clone());
    setup.start.parent = Some(Arc::new(ParentInfo {
        main_execution_id: parent.clone(),
        parent_execution_id: parent,
        signals_to_parent: vec!["W".into(), "V".into()],
        context_updates_to_parent: vec!["r".into()],
        depth: 1,
    }));
    setup
}

fn told(number: u64, signals: &[&str], values: &[i64], status: Option<ChildStatus>) -> Told {
    let signals: Vec<Arc<str>> = signals.iter().map(|signal| Arc::from(*signal)).collect();
    Told {
        number,
        signals: Some(signals.into()).filter(|signals: &Arc<[Arc<str>]>| !signals.is_empty()),
        updates: values.iter().map(|value| ("r".into(), Value::from(*value))).collect(),
        status,
        error: None,
        totals: Default::default(),
    }
}

impl Bench {
    fn spawn(&self) -> &Spawn {
        let mut spawns = self.effects.iter().filter_map(|effect| match effect {
            Effect::Spawn(spawn) => Some(spawn),
            _ => None,
        });
        spawns.next_back().unwrap()
    }

    fn spawned(&mut self) {
        let (run, attempt) = (self.spawn().run, self.spawn().next);
        let outcome = Outcome::Spawned(Ok(()));
        self.input(Input::Completed { run, attempt, outcome });
    }

    fn ids(&self) -> Vec<String> {
        self.spawn().children.iter().map(|start| start.id.to_string()).collect()
    }

    /// A message of the child `x.1.INDEX`.
    fn says(&mut self, index: u64, message: Told) {
        let child = ExecutionId::new(format!("x.1.{index}")).unwrap();
        let message = Arc::new(message);
        self.input(Input::FromChild { child, message });
    }

    /// What the last step asked for between executions, in short.
    fn sent(&self) -> Vec<String> {
        let short = |effect: &Effect| match effect {
            Effect::Tell { message, .. } => {
                let signals: Vec<&str> = message
                    .signals
                    .iter()
                    .flat_map(|s| s.iter())
                    .map(AsRef::as_ref)
                    .collect();
                let updates: Json = message.updates.iter().map(|(_, value)| value.to_json()).collect();
                Some(format!(
                    "tell {} {} {updates} {:?}",
                    message.number,
                    signals.join(","),
                    message.status
                ))
            }
            Effect::Acknowledge { child, number } => Some(format!("acknowledge {child} {number}")),
            Effect::Descend { what, children } => {
                let children: Vec<&str> = children.iter().map(|(child, _)| child.as_str()).collect();
                let what = match what {
                    Descend::Cancel => "cancel",
                    Descend::Suspend => "suspend",
                    _ => "resume",
                };
                Some(format!("{what} {}", children.join(" ")))
            }
            Effect::Spawn(spawn) => Some(format!("spawn {}", spawn.next)),
            _ => None,
        };
        self.effects.iter().filter_map(short).collect()
    }

    fn waiting(&self) -> usize {
        self.machine
            .state()
            .family
            .as_ref()
            .map_or(0, |family| family.inbox.len())
    }

    /// The machine is lost; another takes up what is stored, as `change` makes it.
    fn recovered(&mut self, change: impl FnOnce(&mut soe_backends::ExecutionState), registry: &Setup) {
        let mut state = self.machine.state().clone();
        change(&mut state);
        let specs: Specs = [tool()].into_iter().collect::<soe_core::tools::ToolSpecs>().into();
        self.machine = Machine::load(state, vec![registry.start.registry.clone()], specs).unwrap();
        self.input(Input::Recover);
    }
}

#[test]
fn children_are_registered_before_they_are_created() {
    let mut bench = fan(2, "").run();
    assert_eq!(
        (bench.ids(), bench.machine.state().active_children()),
        (vec!["x.1.0".into(), "x.1.1".into()], 2)
    );
    let start = &bench.spawn().children[1];
    assert_eq!(start.fields[0].1.last(), Some(&Value::from(1_u64)));
    assert_eq!(bench.signals(), "START");
    bench.says(0, told(1, &["W"], &[5], Some(ChildStatus::Rested)));
    assert_eq!((bench.signals(), bench.history("r")), ("START W".into(), json!([5])));
    bench.spawned_all();
    assert_eq!(bench.signals(), "START W STARTED");
    bench.returned(2, json!(1));
    assert_eq!(bench.status(), Status::Running, "a child is active");
    bench.says(1, told(1, &[], &[], Some(ChildStatus::Rested)));
    assert_eq!(bench.status(), Status::Rested);
    bench.says(1, told(2, &[], &[], Some(ChildStatus::Active)));
    assert_eq!(bench.status(), Status::Running);
    let stranger = Input::FromChild {
        child: ExecutionId::new("y").unwrap(),
        message: Arc::new(told(1, &[], &[], None)),
    };
    assert!(matches!(bench.try_input(stranger), Err(MachineError::NotAChild(_))));
}

impl Bench {
    /// The two children of run 1 are created.
    fn spawned_all(&mut self) {
        let outcome = Outcome::Spawned(Ok(()));
        self.input(Input::Completed {
            run: 1,
            attempt: 2,
            outcome,
        });
    }
}

#[test]
fn a_large_fan_out_goes_in_chunks_and_emits_after_the_last() {
    let mut bench = fan(150, "").run();
    for (next, count) in [(64, 64), (128, 64), (150, 22)] {
        assert_eq!((bench.spawn().next, bench.spawn().children.len()), (next, count));
        assert_eq!(bench.machine.state().active_children(), u64::from(next));
        assert_eq!(bench.signals(), "START");
        bench.spawned();
    }
    assert_eq!(bench.signals(), "START STARTED");
}

#[test]
fn spaced_children_are_due_one_after_the_other() {
    let mut bench = fan(3, ", spawn_interval: 2").run();
    assert_eq!((bench.spawn().due, bench.ids()), (None, vec!["x.1.0".to_owned()]));
    bench.spawned();
    let due = Timestamp::from_micros(bench.now).after(Duration::from_secs(2));
    assert_eq!((bench.spawn().due, bench.ids()), (Some(due), vec!["x.1.1".to_owned()]));
    bench.now += 50;
    bench.recovered(|_| (), &fan(3, ", spawn_interval: 2"));
    assert_eq!(
        (bench.spawn().due, bench.ids()),
        (Some(due), vec!["x.1.1".to_owned()]),
        "the same again"
    );
}

#[test]
fn ids_stay_short_and_are_always_the_same() {
    let ids = |id: &str| {
        let mut setup = fan(3, "");
        setup.start.id = ExecutionId::new(id).unwrap();
        setup.start.main_execution_id = Some(ExecutionId::new("r".repeat(128)).unwrap());
        setup.run().ids()
    };
    let mut deep = "x".to_owned();
    for _ in 0..40 {
        let children = ids(&deep);
        assert_eq!(children, ids(&deep));
        assert!(children[0] != children[1] && children[2].len() <= 128, "{children:?}");
        deep = children[2].clone();
    }
}

#[test]
fn recovering_performs_again_what_may_be_lost() {
    let mut bench = fan(2, "").run();
    bench.recovered(|_| (), &fan(2, ""));
    assert_eq!(bench.sent(), ["spawn 2", "resume x.1.0 x.1.1"]);
    let ended = |status| {
        move |state: &mut soe_backends::ExecutionState| {
            state.status = status;
            state.family.as_mut().unwrap().descending = true;
        }
    };
    bench.recovered(ended(Status::Failed), &fan(2, ""));
    assert_eq!(bench.sent(), ["suspend x.1.0 x.1.1"]);
    bench.input(Input::Settled);
    bench.recovered(|_| (), &fan(2, ""));
    assert_eq!(bench.sent().len(), 0, "they have heard of it");
    bench.recovered(ended(Status::Cancelled), &fan(2, ""));
    assert_eq!(bench.sent(), ["cancel x.1.0 x.1.1"]);

    let nodes = "  A: {node_type: tool, event_triggers: [START], tool_name: t, output_field: r}";
    let mut bench = child(nodes).run();
    bench.returned(1, json!(4));
    let message = ["tell 1  [4] Some(Rested)"];
    assert_eq!(
        (bench.sent(), bench.status()),
        (message.map(String::from).to_vec(), Status::Rested)
    );
    bench.recovered(|_| (), &child(nodes));
    assert_eq!(bench.sent(), message, "a resting execution has it told, too");
    bench.input(Input::Acknowledged { number: 1 });
    bench.recovered(|_| (), &child(nodes));
    assert!(bench.sent().is_empty());
}

#[test]
fn a_message_that_comes_twice_changes_nothing() {
    let mut bench = fan(2, "").run();
    bench.says(0, told(1, &["W"], &[5], None));
    let (before, commits) = (bench.machine.state().clone(), bench.commits.len());
    bench.says(0, told(1, &["W"], &[5], None));
    assert_eq!((&before, commits), (bench.machine.state(), bench.commits.len()));
    assert_eq!(bench.sent(), ["acknowledge x.1.0 1"]);
}

#[test]
fn a_failed_or_suspended_parent_keeps_messages_and_a_cancelled_one_discards_them() {
    let limit = || Input::LimitExceeded {
        limit: "runs",
        message: String::new(),
    };
    for end in [limit(), Input::Suspend] {
        let mut bench = fan(2, "").run();
        bench.input(end);
        assert_eq!(bench.sent(), ["suspend x.1.0 x.1.1"]);
        for _ in 0..2 {
            bench.says(0, told(1, &["W"], &[5], None));
            assert_eq!(
                (bench.sent(), bench.waiting()),
                (vec!["acknowledge x.1.0 1".to_owned()], 1)
            );
        }
        assert_eq!(bench.signals(), "START");
        bench.input(Input::Cancel);
        assert_eq!(bench.waiting(), 0);
        assert!(bench.last_events().contains(&"delivery_discarded"));
        bench.says(1, told(1, &["W"], &[5], None));
        assert_eq!(
            (bench.sent(), bench.waiting()),
            (vec!["acknowledge x.1.1 1".to_owned()], 0)
        );
        assert_eq!(
            (bench.last_events(), bench.history("r")),
            (vec!["delivery_discarded"], json!([]))
        );
    }
}

#[test]
fn a_childs_failure_is_a_signal_or_its_parents() {
    let failed = || Told {
        error: Some("no".into()),
        ..told(1, &[], &[], Some(ChildStatus::Failed))
    };
    let mut bench = fan(2, ", child_failure_signal: LOST").run();
    bench.says(0, failed());
    assert_eq!((bench.signals(), bench.counters()), ("START LOST".into(), [0, 1]));
    bench.says(0, told(2, &[], &[], Some(ChildStatus::Cancelled)));
    assert_eq!(bench.signals(), "START LOST", "it had failed already");
    bench.says(1, told(1, &[], &[], Some(ChildStatus::Cancelled)));
    assert_eq!(bench.signals(), "START LOST LOST");

    let mut bench = fan(2, "").run();
    bench.says(0, failed());
    assert_eq!(
        (bench.status(), bench.failure()),
        (Status::Failed, "node 'C': child execution x.1.0: no".into())
    );
    assert_eq!(bench.sent(), ["suspend x.1.1", "acknowledge x.1.0 1"]);
    bench.input(Input::Cancel);
    assert_eq!(bench.sent(), ["cancel x.1.0 x.1.1"], "the failed one, too");
}

#[test]
fn depth_and_number_of_children_are_limited() {
    let failure = |limits, items| fan(items, "").limits(limits).run().failure();
    let depth = Limits {
        depth: 0,
        ..Limits::default()
    };
    assert!(failure(depth, 1).starts_with("limit depth exceeded"));
    let children = || Limits {
        children: 150,
        ..Limits::default()
    };
    assert!(failure(children(), 151).starts_with("limit children exceeded"));
    let node = |name| {
        format!(
        "  {name}: {{node_type: child, event_triggers: [START], child_workflow_name: worker, child_initial_signals: [GO],
    fan_out_field: items, child_input_field: item}}\n"
    )
    };
    let two = format!("{}{}{WORKER}", node("A"), node("B"));
    let items: Vec<u64> = (0..80).collect();
    let bench = flow(&two).field("items", json!([items])).limits(children()).run();
    assert!(
        bench.failure().contains("there would be 160, 150 are allowed"),
        "{}",
        bench.failure()
    );
}

#[test]
fn values_go_with_the_next_signal_and_the_rest_when_the_execution_rests() {
    let nodes = "  A: {node_type: tool, event_triggers: [START], tool_name: t, output_field: r}
  B: {node_type: tool, event_triggers: [START], tool_name: t, output_field: r, event_emissions: [{signal_name: W}, {signal_name: X}]}
  C: {node_type: tool, event_triggers: [START], tool_name: t, output_field: r}";
    let mut bench = child(nodes).field("r", json!([0])).run();
    bench.returned(1, json!(1));
    assert!(bench.sent().is_empty());
    bench.returned(2, json!(2));
    assert_eq!(bench.sent(), ["tell 1 W [1,2] None"]);
    bench.returned(3, json!(3));
    assert_eq!(bench.sent(), ["tell 2  [3] Some(Rested)"]);
    bench.broadcast(&["W"]).unwrap();
    assert_eq!(bench.sent(), ["tell 3 W [] Some(Active)"]);
    // What it told last is asked for after a crash by a parent that knows it to be active.
    bench.input(Input::Acknowledged { number: 2 });
    assert_eq!((bench.sent().len(), bench.status()), (0, Status::Running));
    bench.input(Input::Acknowledged { number: 3 });
    assert_eq!(bench.sent(), ["tell 4  [] Some(Rested)"]);
}

#[test]
fn signals_before_a_failure_are_a_message_of_their_own() {
    let nodes = "  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: W}]}
  B: {node_type: router, event_triggers: [W], event_emissions: [{signal_name: V}]}";
    let limits = Limits {
        broadcasts: 2,
        ..Limits::default()
    };
    let bench = child(nodes).limits(limits).run();
    assert_eq!(bench.sent(), ["tell 1 W [] None", "tell 2  [] Some(Failed)"]);
}

#[test]
fn a_delivered_signal_is_passed_on_to_the_parent_above() {
    let mut setup = fan(1, "");
    setup.start.parent = child(ROUTER).start.parent;
    let mut bench = setup.run();
    bench.says(0, told(1, &["W"], &[7], None));
    assert_eq!(bench.sent(), ["acknowledge x.1.0 1", "tell 1 W [7] None"]);
}

#[test]
fn values_above_a_limit_wait_in_their_place() {
    let limits = || Limits {
        context_bytes: 30_000,
        ..Limits::default()
    };
    let mut bench = fan(1, "").limits(limits()).run();
    bench.says(0, told(1, &[], &[1; 5_000], None));
    assert_eq!(
        (bench.status(), bench.waiting(), bench.history("r")),
        (Status::Failed, 1, json!([]))
    );
    assert!(bench.sent().contains(&"acknowledge x.1.0 1".to_owned()));

    let node = format!(
        "  C: {{node_type: child, event_triggers: [START], child_workflow_name: worker, child_initial_signals: [GO]}}
  L: {{node_type: router, event_triggers: [LOOP], event_emissions: [
    {{signal_name: LOOP, condition: '{{{{ context.__operational__.signals | length < 1500 }}}}'}}]}}{WORKER}"
    );
    let setup = flow(&node).limits(limits()).signals(&["START", "LOOP"]);
    let mut bench = setup.run();
    assert!(bench.asked().contains(&"continue".to_owned()));
    bench.says(0, told(1, &[], &[1; 5_000], None));
    bench.says(0, told(2, &[], &[2], None));
    assert_eq!((bench.status(), bench.waiting()), (Status::Running, 2));
    bench.input(Input::Continue);
    assert_eq!((bench.status(), bench.waiting()), (Status::Failed, 2));
    let family = bench.machine.state().family.as_ref().unwrap();
    assert_eq!(family.inbox[0].message.number, 1, "they keep their order");
}

#[test]
fn depth_first_a_child_goes_on_when_its_message_is_dealt_with() {
    let mut bench = fan(2, "").depth_first().run();
    assert_eq!(bench.ids(), ["x.1.0"], "one at a time");
    bench.spawned();
    assert!(bench.sent().is_empty());
    bench.says(0, told(1, &["W"], &[5], None));
    assert_eq!((bench.sent().len(), bench.asked()), (0, vec!["call 2.1".to_owned()]));
    bench.says(0, told(1, &["W"], &[5], None));
    assert!(bench.sent().is_empty(), "however often it comes");
    // Somebody cancels the child meanwhile.
    bench.says(0, told(2, &[], &[], Some(ChildStatus::Rested)));
    assert_eq!((bench.sent().len(), bench.waiting()), (0, 1));
    bench.returned(2, json!(1));
    assert_eq!(bench.signals(), "START W SEEN");
    assert_eq!(bench.sent(), ["acknowledge x.1.0 1", "acknowledge x.1.0 2", "spawn 2"]);
    assert_eq!((bench.ids(), bench.waiting()), (vec!["x.1.1".to_owned()], 0));
}

#[test]
fn depth_first_those_above_are_done_before_the_child_goes_on() {
    let mut setup = fan(1, "").depth_first();
    setup.start.parent = child(ROUTER).start.parent;
    let mut bench = setup.run();
    bench.spawned();
    bench.says(0, told(1, &["W"], &[7], None));
    bench.returned(2, json!(1));
    assert_eq!(bench.sent(), ["tell 1 W [7] None"]);
    bench.input(Input::Acknowledged { number: 1 });
    assert_eq!(bench.sent(), ["acknowledge x.1.0 1"]);
    bench.says(0, told(2, &["W"], &[8], None));
    assert!(bench.sent().is_empty());
    bench.input(Input::Suspend);
    assert_eq!(
        bench.sent(),
        ["acknowledge x.1.0 2", "suspend x.1.0"],
        "it is kept; nobody waits for it"
    );
}

#[test]
fn depth_first_what_wakes_it_before_its_parent_has_answered_is_not_left_lying() {
    let mut setup = fan(1, "").depth_first();
    setup.start.parent = child(ROUTER).start.parent;
    let mut bench = setup.run();
    bench.spawned();
    bench.says(0, told(1, &[], &[], Some(ChildStatus::Rested)));
    assert_eq!(bench.status(), Status::Rested);
    bench.says(0, told(2, &["W"], &[7], Some(ChildStatus::Active)));
    assert_eq!(
        (bench.status(), bench.waiting()),
        (Status::Running, 1),
        "with something in its inbox, it doesn't rest"
    );
    bench.input(Input::Acknowledged { number: 1 });
    assert_eq!(
        (bench.status(), bench.waiting()),
        (Status::Running, 1),
        "told that it runs"
    );
    bench.input(Input::Acknowledged { number: 2 });
    assert_eq!((bench.waiting(), bench.asked()), (0, vec!["call 2.1".to_owned()]));
}

#[test]
fn what_a_resting_child_tells_at_its_end_is_left_to_be_heard() {
    let unsettled = |bench: &Bench| bench.machine.state().is_unsettled();
    let mut bench = child(ROUTER).run();
    assert_eq!((bench.status(), bench.sent().len()), (Status::Rested, 1));
    assert!(!unsettled(&bench), "its parent waits for it, and asks");
    bench.input(Input::Acknowledged { number: 1 });
    bench.input(Input::Cancel);
    assert_eq!(bench.sent(), ["tell 2  [] Some(Cancelled)"]);
    bench.input(Input::Settled);
    assert!(unsettled(&bench), "nobody asks for it");
    bench.input(Input::Acknowledged { number: 2 });
    bench.input(Input::Settled);
    assert!(!unsettled(&bench));
}

#[test]
fn turns_are_stored_before_what_was_loaded_is_stopped_or_goes_on() {
    let (limits, parent) = (None, None);
    let stops = (Status::Running, Input::Cancel);
    for (status, input) in [stops, (Status::Suspended, Input::Resume { limits, parent })] {
        let setup = flow("  T: {node_type: tool, event_triggers: [START], tool_name: t}");
        let registry = setup.start.registry.clone();
        let mut state = setup.run().machine.state().clone();
        state.status = status;
        state.turns.push(Turn {
            role: "user".into(),
            content: "hello".into(),
            tool_name: None,
            key: Some("x:1/0".into()),
        });
        let specs: Specs = [tool()].into_iter().collect::<soe_core::tools::ToolSpecs>().into();
        let mut machine = Machine::load(state, vec![registry], specs).unwrap();
        let step = machine.step(Timestamp::from_micros(9), input).unwrap();
        assert!(matches!(step.effects[0], Effect::StoreTurns(_)), "{:?}", step.effects);
    }
}

#[test]
fn what_goes_down_is_the_same_for_all_below() {
    let mut bench = fan(1, "").run();
    bench.input(Input::Suspend);
    assert!(bench.effects.iter().any(|effect| matches!(
        effect,
        Effect::Descend {
            what: Descend::Suspend,
            ..
        }
    )));
    bench.input(Input::Suspend);
    assert!(bench.effects.is_empty());
}
