//! Random workflows.

use fastrand::Rng;
use soe_backends::{Limits, Value};

use super::flow::{Cond, Custom, Expr, Fails, Flow, Kept, Kind, Name, Node, Tool};
use super::llm::{Agent, Answers, Identity, Llm};
use super::parts::Builder;

/// A workflow made of parts that are each triggered exactly once, so that each of its joins must fire exactly once.
pub fn structured(rng: &mut Rng) -> Flow {
    let mut builder = Builder::new(rng.fork());
    for _ in 0..rng.usize(1..=5) {
        builder.part();
    }
    let mut flow = builder.flow;
    rng.shuffle(&mut flow.nodes);
    flow
}

/// A workflow without any plan: whatever listens to whatever, up to a limit.
pub fn wild(rng: &mut Rng) -> Flow {
    let mut flow = Flow {
        start: vec!["s0".into()],
        fields: vec![(field(0), vec![Value::from(7)])],
        limits: Limits {
            runs: rng.u64(5..60),
            broadcasts: rng.u64(5..60),
            llm_calls: (rng.u8(..4) == 0).then(|| rng.u64(1..30)),
            tokens: (rng.u8(..6) == 0).then(|| rng.u64(1..600)),
            ..Limits::default()
        },
        ..Flow::default()
    };
    for i in 0..rng.usize(1..=3) {
        flow.tools.push(Tool {
            name: format!("tool{i}").into(),
            max_retries: rng.u32(..3),
            failure_signal: rng.bool().then(|| signal(rng)),
            fails: [Fails::Never, Fails::Sometimes, Fails::First(1), Fails::Always][rng.usize(..4)],
            retryable: rng.u8(..4) > 0,
            returns: [Kept::Choice, Kept::Scalar, Kept::Any, Kept::AnyOrNull][rng.usize(..4)],
        });
    }
    for i in 0..rng.usize(2..=8) {
        let node = wild_node(rng, i);
        flow.nodes.push(node);
    }
    for _ in 0..rng.usize(..4) {
        flow.external.push(some_signals(rng));
    }
    flow
}

/// More routers in one event than the machine takes without a pause, with runs before, between and after.
pub fn crowded(rng: &mut Rng) -> Flow {
    let mut builder = Builder::new(rng.fork());
    builder.flow.start = vec!["l0".into()];
    builder.flow.external = vec![vec!["l7".into()], vec!["l1".into()]];
    for level in 0..rng.usize(9..=10) {
        let next: Name = format!("l{}", level + 1).into();
        for _ in 0..2 {
            builder.router(&format!("l{level}").into(), &next, Cond::Always);
        }
    }
    for level in 0..rng.usize(0..=3) {
        let triggers = [format!("l{level}").into()];
        if rng.bool() {
            let llm = builder.calm(Kept::Any, Some(field(level)));
            builder.node(&triggers, &[], Kind::Llm(llm));
            continue;
        }
        let tool = builder.tool(Fails::Never, None, Kept::Any);
        builder.worker(&triggers, &[], tool, Some(field(level)));
    }
    let mut flow = builder.flow;
    rng.shuffle(&mut flow.nodes);
    flow
}

fn wild_node(rng: &mut Rng, i: usize) -> Node {
    let kind = match rng.u8(..14) {
        0..4 => Kind::Router,
        10.. => Kind::Llm(wild_llm(rng)),
        4..8 => Kind::Tool {
            // Sometimes one that isn't registered.
            tool: format!("tool{}", rng.usize(..4)).into(),
            output: (rng.u8(..4) > 0).then(|| field(rng.usize(..3))),
            parameters: vec![
                ("last".into(), Expr::Last(field(0))),
                ("count".into(), Expr::Count(field(rng.usize(..3)))),
                ("signals".into(), Expr::Signals),
            ],
        },
        _ => Kind::Custom(Custom {
            writes: (0..rng.usize(..3))
                .map(|_| (field(rng.usize(..3)), Kept::AnyOrNull))
                .collect(),
            signals: match rng.u8(..4) {
                0 => Some(Vec::new()),
                1 => Some(some_signals(rng)),
                _ => None,
            },
            fails: if rng.u8(..4) == 0 {
                Fails::Sometimes
            } else {
                Fails::Never
            },
            failure_signal: (rng.u8(..4) > 0).then(|| signal(rng)),
        }),
    };
    let is_tool = matches!(kind, Kind::Tool { .. });
    let least = usize::from(matches!(kind, Kind::Router));
    Node {
        name: format!("n{i}").into(),
        triggers: some_signals(rng),
        emissions: (0..rng.usize(least..=2))
            .map(|_| (signal(rng), wild_cond(rng, is_tool)))
            .collect(),
        kind,
    }
}

fn wild_llm(rng: &mut Rng) -> Llm {
    let identities = [Identity::None, Identity::Named, Identity::Blank, Identity::Broken];
    Llm {
        prompt: (rng.u8(..6) > 0).then(|| field(rng.usize(..3))),
        output: (rng.u8(..4) > 0).then(|| field(rng.usize(..3))),
        identity: identities[rng.usize(..identities.len())],
        retries: rng.u32(..3),
        failure_signal: (rng.u8(..4) > 0).then(|| signal(rng)),
        answers: Answers::Wild,
        gives: Kept::AnyOrNull,
        agent: rng.bool().then(|| Agent {
            tools: (0..rng.usize(..4)).map(|i| format!("tool{i}").into()).collect(),
            max_turns: rng.u32(1..5),
            native: rng.bool(),
        }),
    }
}

fn wild_cond(rng: &mut Rng, is_tool: bool) -> Cond {
    match rng.u8(..12) {
        0 => Cond::PlainText,
        1 => Cond::Never,
        2 => Cond::Broken,
        3 => Cond::SameCount(field(rng.usize(..3)), field(rng.usize(..3))),
        4 => Cond::Count(field(rng.usize(..3)), rng.usize(..5)),
        5 | 6 => Cond::Fewer(field(rng.usize(..3)), rng.usize(1..5)),
        7 => Cond::Seen(some_signals(rng)),
        8 | 9 if is_tool => Cond::Result(rng.i64(0..3)),
        _ => Cond::Always,
    }
}

fn some_signals(rng: &mut Rng) -> Vec<Name> {
    (0..rng.usize(1..=2)).map(|_| signal(rng)).collect()
}

fn signal(rng: &mut Rng) -> Name {
    format!("s{}", rng.u8(..7)).into()
}

fn field(i: usize) -> Name {
    format!("f{i}").into()
}
