//! Broadcasts, cascades, both schedules, and what is refused.

use serde_json::json;
use soe_backends::{Batch, Status, Value, stored};
use soe_core::machine::{Effect, Input, Machine, MachineError};

use crate::flow;

#[test]
fn a_batch_triggers_a_node_once() {
    let bench = flow(
        "  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: X}, {signal_name: Y}, {signal_name: X}]}
  B: {node_type: router, event_triggers: [X, Y, X], event_emissions: [{signal_name: END}]}",
    )
    .run();
    assert_eq!((bench.signals().as_str(), bench.runs("B")), ("START X Y X END", 1));
}

#[test]
fn a_signal_without_listeners_is_recorded_and_harmless() {
    let mut bench =
        flow("  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: X}]}").run();
    assert_eq!((bench.signals().as_str(), bench.status()), ("START X", Status::Rested));
    bench.broadcast(&["NOBODY"]).unwrap();
    assert_eq!(
        (bench.signals().as_str(), bench.status()),
        ("START X NOBODY", Status::Rested)
    );
}

#[test]
fn routers_cascade_depth_first_in_the_order_of_the_file() {
    let bench = flow(
        "  B: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: B1}]}
  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: A1}]}
  C: {node_type: router, event_triggers: [B1, A1], event_emissions: [{signal_name: C1}]}",
    )
    .run();
    assert_eq!(bench.signals(), "START B1 C1 A1 C1");
    assert_eq!(bench.commits.len(), 1, "one event is one commit");
}

#[test]
fn a_run_reads_the_context_after_the_whole_event() {
    let bench = flow(
        "  A: {node_type: tool, event_triggers: [START], tool_name: t, parameters: {n: '{{ context.__operational__.signals | length }}'}}
  B: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: X}]}",
    )
    .run();
    assert_eq!(bench.arguments(), json!({"n": 2}));
}

#[test]
fn what_cannot_be_started_is_refused() {
    let router = "  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: X}]}";
    let mut unknown = flow(router);
    unknown.start.workflow = "flaw".into();
    let error = unknown.try_run().err().unwrap().to_string();
    assert_eq!(error, "workflow 'flaw' not found in config; there is only 'flow'");
    let error = flow(router).field("__parent__", json!([1])).try_run().err().unwrap();
    assert!(matches!(error, MachineError::ReservedField(name) if *name == *"__parent__"));
    let error = flow(router).signals(&["START", ""]).try_run().err().unwrap();
    assert!(matches!(error, MachineError::NoSignals));
}

#[test]
fn an_execution_is_prepared_until_its_first_signals() {
    let nodes = "  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: X}]}";
    let mut bench = flow(nodes).signals(&[]).run();
    assert_eq!((bench.status(), bench.signals().as_str()), (Status::Prepared, ""));
    for signals in [&[][..], &[""], &["START", ""]] {
        let before = bench.machine.state().clone();
        assert!(matches!(bench.broadcast(signals), Err(MachineError::NoSignals)));
        assert_eq!(bench.machine.state(), &before);
    }
    bench.broadcast(&["START"]).unwrap();
    assert_eq!((bench.status(), bench.signals().as_str()), (Status::Rested, "START X"));
}

const LOOP: &str = "  A: {node_type: router, event_triggers: [START], event_emissions: [{signal_name: START}]}
  B: {node_type: router, event_triggers: [OTHER], event_emissions: [{signal_name: HEARD}]}";

#[test]
fn a_loop_of_routers_pauses_and_goes_on() {
    let mut bench = flow(LOOP).run();
    for turns in [1_000, 2_000, 3_000] {
        assert_eq!((bench.runs("A"), bench.asked()), (turns, vec!["continue".to_owned()]));
        assert_eq!(
            (bench.machine.state().work.stack.len(), bench.status()),
            (1, Status::Running)
        );
        bench.input(Input::Continue);
    }
}

#[test]
fn a_paused_loop_can_be_cancelled() {
    let mut bench = flow(LOOP).run();
    bench.broadcast(&["OTHER"]).unwrap();
    assert_eq!(
        bench.machine.state().work.accepted.len(),
        1,
        "it waits for the cascade in progress"
    );
    bench.cancel();
    assert_eq!(
        (bench.status(), bench.asked()),
        (Status::Cancelled, vec!["abort 0".to_owned()])
    );
    assert!(bench.machine.state().work.is_empty());
    let commits = bench.commits.len();
    bench.input(Input::Continue);
    bench.input(Input::Recover);
    bench.cancel();
    assert_eq!((bench.commits.len(), bench.runs("B")), (commits, 0));
}

#[test]
fn a_paused_loop_survives_a_restart() {
    let mut bench = flow(LOOP).run();
    let state = stored::read_tree(stored::write_tree(bench.machine.state()).unwrap().as_bytes()).unwrap();
    let registry = flow(LOOP).start.registry;
    let missing = Machine::load(
        bench.machine.state().clone(),
        Vec::new(),
        soe_core::machine::Specs::default(),
    );
    assert!(matches!(missing, Err(MachineError::MissingRegistry(id)) if id == registry.id));
    bench.machine = Machine::load(state, vec![registry], soe_core::machine::Specs::default()).unwrap();
    bench.input(Input::Recover);
    assert_eq!((bench.runs("A"), bench.asked()), (2_000, vec!["continue".to_owned()]));
}

#[test]
fn a_cancelled_execution_drops_its_runs() {
    let mut bench = flow("  A: {node_type: tool, event_triggers: [START], tool_name: t, output_field: out}").run();
    bench.cancel();
    assert_eq!(bench.asked(), ["abort 0"]);
    let state = bench.state();
    assert!(state.runs.is_empty() && state.snapshots.is_empty());
    bench.returned(1, json!(1));
    assert_eq!(
        (bench.last_events(), bench.history("out")),
        (vec!["completion_discarded"], json!([]))
    );
}

const TWO: &str = "  A: {node_type: tool, event_triggers: [START], tool_name: t, event_emissions: [{signal_name: A1}]}
  B: {node_type: tool, event_triggers: [START], tool_name: t, event_emissions: [{signal_name: B1}]}
  C: {node_type: tool, event_triggers: [A1], tool_name: t, event_emissions: [{signal_name: C1}]}";

#[test]
fn depth_first_runs_one_node_at_a_time() {
    let mut bench = flow(TWO).depth_first().run();
    bench.broadcast(&["START"]).unwrap();
    for run in 1..=6 {
        assert_eq!(bench.state().runs.keys().collect::<Vec<_>>(), [run]);
        bench.returned(run, json!(null));
    }
    assert_eq!(bench.signals(), "START A1 C1 B1 START A1 C1 B1");
}

#[test]
fn depth_first_waits_also_for_another_attempt_and_after_a_restart() {
    let setup = || flow(TWO).depth_first().tool(|tool| tool.max_retries = 1);
    let mut bench = setup().run();
    bench.failed(1, 1, true);
    assert_eq!(bench.asked(), ["call 1.2"]);
    let tools: soe_core::tools::ToolSpecs = setup().tools.into_iter().collect();
    bench.machine = Machine::load(bench.machine.state().clone(), vec![setup().start.registry], tools).unwrap();
    bench.input(Input::Recover);
    assert_eq!(bench.asked(), ["call 1.2"]);
    bench.input(Input::Continue);
    assert_eq!(bench.asked().len(), 0);
}

#[test]
fn recovery_performs_what_was_in_flight_again() {
    let two = "  A: {node_type: tool, event_triggers: [START], tool_name: t, parameters: {n: '{{ context.n }}'}}
  B: {node_type: worker, event_triggers: [START]}
  C: {node_type: tool, event_triggers: [START], tool_name: t, output_field: n}";
    let mut bench = flow(two).field("n", json!([1])).run();
    bench.returned(3, json!(2));
    bench.recover();
    assert_eq!(bench.asked(), ["call 1.1", "run 2"]);
    let [Effect::CallTool(call), Effect::RunNode(run)] = &bench.effects[..] else {
        panic!("{:?}", bench.effects);
    };
    assert_eq!(call.arguments, json!({"n": 1}));
    assert_eq!(run.context.value("n"), Some(&Value::from(1)));
    assert_eq!(
        bench.counters(),
        [2, 0],
        "a run that is performed again isn't counted again"
    );
}

#[test]
fn batches_from_outside_keep_their_order() {
    let mut bench = flow(LOOP).run();
    bench.broadcast(&["X"]).unwrap();
    bench.broadcast(&["Y", "Z"]).unwrap();
    let waiting = bench.machine.state().work.accepted.iter();
    let pending: Vec<Batch> = waiting.map(|accepted| accepted.signals.clone()).collect();
    assert_eq!(
        pending,
        [Batch::from(["X".into()]), Batch::from(["Y".into(), "Z".into()])]
    );
}

#[test]
fn an_and_join_fires_once_for_each_trigger_that_follows_from_another() {
    // Outside the guarantee: B1 is a consequence of A1 within one event, so both batches find both signals recorded. The
    // recursion that depth-first follows does the same. Whether it happens depends on the order of the file.
    let first = "  R: {node_type: router, event_triggers: [A1], event_emissions: [{signal_name: B1}]}\n";
    let join = "  J: {node_type: router, event_triggers: [A1, B1], event_emissions: [{signal_name: JOINED,
    condition: \"{{ 'A1' in context.__operational__.signals and 'B1' in context.__operational__.signals }}\"}]}\n";
    let run = |nodes: String| flow(&nodes).signals(&["A1"]).run().signals();
    assert_eq!(run(format!("{first}{join}")), "A1 B1 JOINED JOINED");
    assert_eq!(run(format!("{join}{first}")), "A1 B1 JOINED");
}
