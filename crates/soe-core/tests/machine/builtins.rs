//! Built-in tools in the state machine: each call is one event, and a repeated one changes nothing twice.

use serde_json::{Value as Json, json};
use soe_backends::{Schedule, Status, Value};
use soe_core::machine::{BuiltinCall, BuiltinRequest, Effect, Input, Outcome};
use soe_core::policy::Policy;
use soe_core::tools::builtin;

use crate::{Bench, flow};

const UPDATE: &str = "  U: {node_type: tool, event_triggers: [START], tool_name: soe_update_context, output_field: out, \
                      context_parameter_field: args, event_emissions: [{signal_name: DONE}]}\n";

fn bench(nodes: &str) -> Bench {
    let mut setup = flow(nodes).field("args", json!([{"updates": {"n": 1}}]));
    let own = builtin::specs(&Policy::default());
    setup.tools.extend(own.iter().map(|spec| spec.as_ref().clone()));
    setup.run()
}

/// The call that the last step asked for, as the driver gives it back.
fn call(bench: &Bench) -> BuiltinCall {
    let [Effect::CallTool(call)] = bench.effects.as_slice() else {
        panic!("{:?}", bench.effects)
    };
    BuiltinCall {
        execution: None,
        run: call.run,
        index: call.index,
        node: call.node.name.clone(),
        tool: call.tool.clone(),
        request: BuiltinRequest::Arguments(call.arguments.clone()),
    }
}

/// Gives a call to the machine; what it answers.
fn answered(bench: &mut Bench, call: &BuiltinCall) -> Result<Json, String> {
    let (execution, call) = (bench.here, Box::new(call.clone()));
    bench.input(Input::Builtin { execution, call });
    match bench.effects.pop() {
        Some(Effect::Answer { result }) => result.map(|value| value.to_json()).map_err(|f| f.message.to_string()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_call_is_one_event_that_is_committed_before_its_answer() {
    let mut bench = bench(UPDATE);
    let call = call(&bench);
    let commits = bench.commits.len();
    let answer = answered(&mut bench, &call).unwrap();
    assert_eq!(answer["fields"], json!(["n"]));
    assert_eq!((bench.commits.len(), bench.history("n")), (commits + 1, json!([1])));
    assert_eq!(bench.status(), Status::Running, "the run goes on");
    bench.input(bench.completed(call.run, 1, Outcome::Tool(Ok(answer.into()))));
    assert_eq!((bench.signals(), bench.status()), ("START DONE".into(), Status::Rested));
    assert!(bench.state().answers.is_empty());
}

#[test]
fn a_repeated_call_gets_the_same_answer_and_changes_nothing_also_after_a_crash() {
    let mut bench = bench(UPDATE);
    let call = call(&bench);
    let first = answered(&mut bench, &call).unwrap();
    let commits = bench.commits.len();
    assert_eq!(answered(&mut bench, &call).unwrap(), first);
    assert_eq!(bench.commits.len(), commits, "nothing to store");

    bench.recover();
    assert_eq!(bench.asked(), ["call 1.1"]);
    assert_eq!(answered(&mut bench, &call).unwrap(), first);
    assert_eq!(bench.history("n"), json!([1]));
}

#[test]
fn a_call_of_a_run_that_is_over_does_nothing() {
    let mut bench = bench(UPDATE);
    let call = call(&bench);
    let mut other = call.clone();
    other.index = Some(0);
    assert!(
        answered(&mut bench, &other).unwrap_err().contains("is over"),
        "no agent made it"
    );
    bench.returned(call.run, json!("cut short"));
    assert!(answered(&mut bench, &call).unwrap_err().contains("is over"));
    assert_eq!(bench.history("n"), json!([]));
}

#[test]
fn runs_in_flight_stay_with_the_workflows_that_they_began_with() {
    let nodes = "  Wait: {node_type: tool, event_triggers: [START], tool_name: t, event_emissions: [{signal_name: OLD}]}\n  \
                 Change: {node_type: tool, event_triggers: [CHANGE], tool_name: soe_inject_node, parameters: \
                 {workflow_name: flow, node_name: Wait, node_config_data: {node_type: router, event_triggers: [START], \
                 event_emissions: [{signal_name: NEW}]}}}\n";
    let mut bench = bench(nodes);
    bench.broadcast(&["CHANGE"]).unwrap();
    let call = call(&bench);
    answered(&mut bench, &call).unwrap();
    let pinned = bench.state().runs.get(1).unwrap().registry.clone();
    assert_ne!(pinned, bench.state().registry);
    assert_eq!(bench.machine.state().needed_registries().len(), 2);
    let stored = bench.commits.last().unwrap().registries.first().unwrap();
    assert_eq!(stored.id, bench.state().registry);
    bench.returned(1, Json::Null);
    assert_eq!(bench.signals(), "START CHANGE OLD");
    bench.broadcast(&["START"]).unwrap();
    assert_eq!(bench.signals(), "START CHANGE OLD START NEW");
}

#[test]
fn a_depth_first_execution_answers_while_its_run_is_in_flight() {
    let mut setup = flow(UPDATE).field("args", json!([{"updates": {"n": 1}}]));
    setup.tools.extend(
        builtin::specs(&Policy::default())
            .iter()
            .map(|spec| spec.as_ref().clone()),
    );
    setup.start.schedule = Schedule::DepthFirst;
    let mut bench = setup.run();
    let call = call(&bench);
    answered(&mut bench, &call).unwrap();
    assert_eq!(bench.state().context.value("n"), Some(&Value::from(1)));
}
