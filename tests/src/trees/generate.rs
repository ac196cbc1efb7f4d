//! Random trees of workflows: nodes of every kind, children that work, parents that join what they deliver.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use fastrand::Rng;
use soe_backends::Value;

use super::flow::{Agent, Child, Cond, Fails, Flow, Grove, Kind, Llm, Name, Node, ROOT};

/// What a tree may have in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Levels below the root.
    pub levels: usize,
    /// A node somewhere fails so often before it succeeds; 0 for none.
    pub fails: u32,
    /// Whether nodes have a signal for failed children.
    pub handled: bool,
}

struct Builder<'r> {
    rng: &'r mut Rng,
    shape: Shape,
    flows: BTreeMap<Name, Flow>,
    fields: BTreeMap<Name, Value>,
    failing: bool,
}

/// Makes a random tree of workflows.
///
/// # Errors
/// The engine refuses it.
pub fn grove(rng: &mut Rng, shape: Shape) -> Result<Grove> {
    let mut builder = Builder {
        rng,
        shape,
        flows: BTreeMap::new(),
        fields: BTreeMap::new(),
        failing: shape.fails == 0,
    };
    builder.workflow(ROOT, 0);
    Grove::new(builder.flows, builder.fields.into_iter().collect())
}

/// A workflow that is being made.
struct Draft {
    flow: Flow,
    name: String,
    /// Signals that come exactly once.
    open: Vec<Name>,
    /// Those of them that nothing else comes of.
    ends: Vec<Name>,
    given: BTreeSet<Name>,
}

impl Draft {
    fn node(&mut self, triggers: &[Name], emits: Vec<(Name, Cond)>, kind: Kind) {
        let name = format!("n{}", self.flow.nodes.len()).into();
        self.flow.nodes.push(Node {
            name,
            triggers: triggers.to_vec(),
            emits,
            kind,
        });
    }

    fn router(&mut self, triggers: &[Name], signal: &Name, cond: Cond) {
        self.node(triggers, vec![(signal.clone(), cond)], Kind::Router);
    }

    /// What began with one signal ends with another.
    fn leads(&mut self, start: &Name, signal: &Name) {
        self.ends.retain(|end| end != start);
        self.once(signal);
    }

    fn once(&mut self, signal: &Name) {
        self.flow.once.push(signal.clone());
        self.open.push(signal.clone());
        self.ends.push(signal.clone());
    }

    fn field(&self, what: &str) -> Name {
        format!("{what}_{}", self.name).into()
    }
}

fn name(text: &str) -> Name {
    text.into()
}

impl Builder<'_> {
    /// Makes a workflow and those below it. Gives the fields that they are to be given.
    fn workflow(&mut self, of: &str, level: usize) -> BTreeSet<Name> {
        let mut draft = Draft {
            flow: Flow::default(),
            name: of.to_owned(),
            open: Vec::new(),
            ends: Vec::new(),
            given: BTreeSet::new(),
        };
        draft.once(&name("START"));
        let children = match self.shape.levels - level {
            0 => 0,
            _ if level > 0 => 1,
            _ => self.rng.usize(1..=2),
        };
        if self.rng.bool() {
            self.counting_join(&mut draft);
        }
        if self.rng.u8(..3) == 0 {
            self.joined_signals(&mut draft);
        }
        for number in 0..children {
            self.child(&mut draft, number, level);
        }
        if self.rng.u8(..6) == 0 {
            self.guarded_loop(&mut draft);
        }
        let lowest = level == self.shape.levels;
        if !self.failing && (lowest || self.rng.u8(..3) == 0) {
            self.failing = true;
            self.boom(&mut draft);
        }
        self.pings(&mut draft);
        self.finish(&mut draft);
        let Draft { mut flow, given, .. } = draft;
        self.rng.shuffle(&mut flow.nodes);
        self.flows.insert(of.into(), flow);
        given
    }

    /// A node that gives one value in the end, and then emits `done`.
    fn worker(&mut self, draft: &mut Draft, triggers: &[Name], done: &Name, output: Name) {
        let output = Some(output);
        let agent = |rng: &mut Rng| Agent {
            rounds: rng.u32(..3),
            width: rng.u32(1..=2),
            native: rng.bool(),
            flaky: rng.bool(),
        };
        let kind = match self.rng.u8(..10) {
            0..=3 => Kind::Tool {
                fails: Fails::Never,
                reads: output.clone().filter(|_| self.rng.bool()),
                output,
            },
            4 => Kind::Tool {
                output,
                fails: Fails::First(self.rng.u32(1..=2)),
                reads: None,
            },
            5 => Kind::Tool {
                output,
                fails: Fails::Always,
                reads: None,
            },
            6 => Kind::Custom {
                output,
                fails: 0,
                failure: None,
            },
            kind => Kind::Llm(Llm {
                output,
                invalid: if kind == 7 { self.rng.u32(..2) } else { 0 },
                identity: self.rng.u8(..3) == 0,
                agent: (kind > 7).then(|| agent(self.rng)),
                ..Llm::default()
            }),
        };
        draft.node(triggers, vec![(done.clone(), Cond::Always)], kind);
    }

    /// A signal that something else begins with.
    fn open(&mut self, draft: &Draft) -> Name {
        draft.open[self.rng.usize(..draft.open.len())].clone()
    }

    fn counting_join(&mut self, draft: &mut Draft) {
        let (done, all, results) = (name("DONE"), name("ALL"), draft.field("r"));
        let (start, count) = ([self.open(draft)], self.rng.usize(1..=3));
        for _ in 0..count {
            self.worker(draft, &start, &done, results.clone());
        }
        let last = match self.rng.bool() {
            true => done,
            false => {
                draft.router(&[done], &name("BETWEEN"), Cond::Always);
                name("BETWEEN")
            }
        };
        draft.router(&[last], &all, Cond::Count(results, count));
        draft.leads(&start[0], &all);
    }

    fn joined_signals(&mut self, draft: &mut Draft) {
        let start = [self.open(draft)];
        let both = [name("A"), name("B")];
        self.worker(draft, &start, &both[0], draft.field("side"));
        let failed = self.rng.bool();
        let kind = match self.rng.bool() {
            true => Kind::Custom {
                output: None,
                fails: failed.into(),
                failure: Some(both[1].clone()),
            },
            false => Kind::Llm(Llm {
                fails: failed.into(),
                failure: Some(both[1].clone()),
                ..Llm::default()
            }),
        };
        draft.node(&start, vec![(both[1].clone(), Cond::Always)], kind);
        draft.router(&both, &name("BOTH"), Cond::Seen(both.to_vec()));
        draft.leads(&start[0], &name("BOTH"));
    }

    fn guarded_loop(&mut self, draft: &mut Draft) {
        let (start, count, again, over) = (self.open(draft), draft.field("count"), name("AGAIN"), name("OVER"));
        let turns = self.rng.usize(1..=3);
        let emits = vec![
            (again.clone(), Cond::Fewer(count.clone(), turns)),
            (over.clone(), Cond::Count(count.clone(), turns)),
        ];
        let kind = Kind::Tool {
            output: Some(count),
            fails: Fails::Never,
            reads: None,
        };
        draft.node(&[start.clone(), again], emits, kind);
        draft.leads(&start, &over);
    }

    /// A node that fails its execution.
    fn boom(&mut self, draft: &mut Draft) {
        let (start, fails) = ([self.open(draft)], self.shape.fails);
        let kind = match self.rng.bool() {
            true => Kind::Custom {
                output: None,
                fails,
                failure: None,
            },
            false => Kind::Llm(Llm {
                fails,
                ..Llm::default()
            }),
        };
        draft.node(&start, Vec::new(), kind);
    }

    /// What is there for signals from outside, and what all levels hear of each other.
    fn pings(&mut self, draft: &mut Draft) {
        draft.router(&[name("PING")], &name("PONG"), Cond::Always);
        let kind = Kind::Tool {
            output: Some(draft.field("trace")),
            fails: Fails::Never,
            reads: None,
        };
        draft.node(&[name("PING")], Vec::new(), kind);
        draft.router(&[name("START")], &name("NOTE"), Cond::Always);
        draft.router(&[name("NOTE")], &name("HEARD"), Cond::Always);
    }

    /// A node that starts children, and the router that joins what they deliver.
    fn child(&mut self, draft: &mut Draft, number: usize, level: usize) {
        let workflow = format!("{}{number}", draft.name);
        let failing = self.failing;
        let mut given = self.workflow(&workflow, level + 1);
        let fails = failing != self.failing;
        let (end, out): (Name, Name) = (format!("END_{workflow}").into(), format!("out_{workflow}").into());
        let mut child = Child {
            workflow: workflow.as_str().into(),
            initial: vec![name("START")],
            signals: vec![end.clone(), name("NOTE")],
            updates: vec![out.clone(), format!("trace_{workflow}").into()],
            given: Vec::new(),
            fan_out: None,
            failure: self.shape.handled.then(|| format!("FAILED_{workflow}").into()),
            spaced: false,
        };
        let mut count = 1;
        if self.rng.u8(..5) < 2 {
            let items: Name = format!("items_{workflow}").into();
            count = [0, 1, 2, 2, 1, 2][self.rng.usize(..6)];
            self.fields.insert(
                items.clone(),
                Value::list((0..count).map(|item| Value::from(item as u64))),
            );
            given.insert(items.clone());
            child.fan_out = Some(items);
            child.spaced = self.rng.u8(..4) == 0;
        }
        child.given = given.iter().cloned().collect();
        draft.given.append(&mut given);
        let started: Name = format!("STARTED_{workflow}").into();
        let start = [self.open(draft)];
        draft.node(&start, vec![(started.clone(), Cond::Always)], Kind::Child(child));
        draft.flow.once.push(started);
        if count > 0 && !(fails && self.shape.handled) {
            let joined: Name = format!("JOINED_{workflow}").into();
            draft.router(&[end], &joined, Cond::Count(out, count));
            draft.leads(&start[0], &joined);
        }
    }

    /// All that an execution waits for, and what its parent waits for.
    fn finish(&mut self, draft: &mut Draft) {
        let (ready, end): (Name, Name) = (name("READY"), format!("END_{}", draft.name).into());
        let all = std::mem::take(&mut draft.ends);
        draft.router(&all, &ready, Cond::Seen(all.clone()));
        draft.once(&ready);
        self.worker(draft, &[ready], &end, draft.field("out"));
        draft.once(&end);
    }
}
