//! What was on its way in a tree of format 1, as its work list.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::levels::{Fate, Levels};
use super::numbering::Numbered;
use super::old::{self, Child, ChildStatus, State, Told};
use crate::state::Batch;
use crate::{Accepted, Delivery, Frame, Schedule, Spawn, Status, Stopped, Then, TreeState, TreeTotals, Value, Work};

type Updates = Vec<(Arc<str>, Value)>;

/// Messages of children that their parents haven't taken.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) deliveries: Vec<Delivery>,
    /// Of children that go on only when their parents have reacted, in a depth-first tree: the signals that they pass on.
    pub(super) signals: HashMap<u64, Vec<Batch>>,
    /// The values that travel with those.
    updates: HashMap<u64, Updates>,
    sent: HashMap<u64, TreeTotals>,
    /// Those whose parents have still to hear that they have failed.
    errors: HashSet<u64>,
}

impl Pending {
    pub(super) fn of(tree: &Numbered) -> Self {
        let mut pending = Self::default();
        for (parent, number) in tree.old.iter().zip(0..) {
            let messages = undelivered(tree, parent, number);
            let waiting: HashSet<u64> = match parent.schedule {
                Schedule::DepthFirst => {
                    let waits =
                        |child: u64| !matches!(tree.old[child as usize].status, Status::Failed | Status::Cancelled);
                    let tell = messages
                        .iter()
                        .filter(|(child, told)| told.signals.is_some() && waits(*child));
                    tell.map(|(child, _)| *child).collect()
                }
                Schedule::Concurrent => HashSet::new(),
            };
            let mut known: HashMap<u64, (TreeTotals, ChildStatus)> = HashMap::new();
            for child in tree.children(number) {
                if let Some(child_there) = parent.child(&tree.old[*child as usize].id) {
                    known.insert(*child, (child_there.totals, child_there.status));
                }
            }
            for (child, told) in messages {
                match known.get_mut(&child) {
                    _ if waiting.contains(&child) => pending.put_back(child, told),
                    Some(known) => pending.deliver(child, told, known),
                    None => {}
                }
            }
            pending
                .sent
                .extend(known.into_iter().map(|(child, (totals, _))| (child, totals)));
        }
        pending
    }

    fn put_back(&mut self, child: u64, told: &Told) {
        self.updates
            .entry(child)
            .or_default()
            .extend(told.updates.iter().cloned());
        self.signals.entry(child).or_default().extend(told.signals.clone());
    }

    fn deliver(&mut self, child: u64, told: &Told, (totals, status): &mut (TreeTotals, ChildStatus)) {
        let over = |status: ChildStatus| matches!(status, ChildStatus::Failed | ChildStatus::Cancelled);
        // One that has failed can be cancelled later: that is no news.
        let ended = told.status.filter(|now| over(*now) && !over(*status));
        let error = ended.map(|now| match (&told.error, now) {
            (Some(error), _) => error.clone(),
            (None, ChildStatus::Cancelled) => "it was cancelled".into(),
            (None, _) => "it failed".into(),
        });
        if error.is_some() {
            self.errors.insert(child);
        }
        let delivery = Delivery {
            child,
            signals: told.signals.clone(),
            updates: told.updates.clone(),
            used: told.totals.since(*totals),
            error,
        };
        *totals = told.totals;
        *status = told.status.unwrap_or(*status);
        let nothing = Delivery {
            child,
            ..Delivery::default()
        };
        if delivery != nothing {
            self.deliveries.push(delivery);
        }
    }

    /// The values that wait for the next delivery.
    pub(super) fn unsent(&self, old: &State, number: u64) -> Updates {
        let put_back = self.updates.get(&number).into_iter().flatten();
        let unsent = old.family.iter().flat_map(|family| &family.unsent);
        put_back.chain(unsent).cloned().collect()
    }

    pub(super) fn sent(&self, number: u64) -> TreeTotals {
        self.sent.get(&number).copied().unwrap_or_default()
    }

    /// Whether the parent has still to hear that the execution has failed.
    pub(super) fn tells_error(&self, number: u64) -> bool {
        self.errors.contains(&number)
    }
}

/// What the children of an execution have told that it hasn't taken: first what it has kept, in its order; then what each still
/// has to tell, by number.
fn undelivered<'a>(tree: &'a Numbered, parent: &'a State, number: u64) -> Vec<(u64, &'a Told)> {
    let Some(family) = &parent.family else {
        return Vec::new();
    };
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for child in tree.children(number) {
        let received = parent
            .child(&tree.old[*child as usize].id)
            .map_or(0, |Child { received, .. }| *received);
        last.insert(*child, received);
    }
    let mut messages = Vec::new();
    let mut take = |child: u64, told: &'a Told| {
        if let Some(last) = last.get_mut(&child).filter(|last| told.number > **last) {
            *last = told.number;
            messages.push((child, told));
        }
    };
    for kept in &family.inbox {
        if let Some(child) = tree.number(&kept.child) {
            take(child, &kept.message);
        }
    }
    for child in tree.children(number) {
        let outbox = tree.old[*child as usize]
            .family
            .iter()
            .flat_map(|family| &family.outbox);
        outbox.for_each(|told| take(*child, told));
    }
    messages
}

/// Puts everything on the work list, or where it waits for what has failed to be resumed.
pub(super) fn put(tree: &Numbered, levels: &Levels, pending: Pending, state: &mut TreeState) {
    let mut lists = Lists::default();
    let frames = match state.schedule {
        Schedule::DepthFirst => {
            let mut order = Order::new(tree, levels, &pending);
            order.visit(0);
            order.frames
        }
        Schedule::Concurrent => {
            let all = tree.old.iter().zip(0..);
            all.flat_map(|(old, number)| old.stack.iter().filter_map(move |old| frame(number, old)))
                .collect()
        }
    };
    for frame in frames {
        if let Some(list) = lists.of(levels.fate(frame.execution)) {
            list.stack.push(frame);
        }
    }
    for delivery in pending.deliveries {
        let parent = tree.parent(delivery.child).unwrap_or_default();
        if let Some(list) = lists.of(levels.fate(parent)) {
            list.deliveries.push(Arc::new(delivery));
        }
    }
    for (old, execution) in tree.old.iter().zip(0..) {
        if let Some(list) = lists.of(levels.fate(execution)) {
            let accepted = old.pending.iter().cloned();
            list.accepted
                .extend(accepted.map(|signals| Accepted { execution, signals }));
        }
    }
    let Lists { live, stopped } = lists;
    state.work = Arc::new(Work {
        stack: live.stack,
        deliveries: live.deliveries.into(),
        spawns: spawns(tree, levels, state.schedule).collect(),
        accepted: live.accepted.into(),
    });
    for (number, stopped) in stopped {
        if let Some(execution) = state.executions.get_mut(number).filter(|_| !stopped.is_empty()) {
            Arc::make_mut(execution).stopped = Some(Arc::new(stopped));
        }
    }
}

#[derive(Default)]
struct Lists {
    live: Stopped,
    /// By the execution that has failed.
    stopped: BTreeMap<u64, Stopped>,
}

impl Lists {
    fn of(&mut self, fate: Fate) -> Option<&mut Stopped> {
        match fate {
            Fate::GoesOn => Some(&mut self.live),
            Fate::Waits(failed) => Some(self.stopped.entry(failed).or_default()),
            Fate::Over => None,
        }
    }
}

/// Runs that create children go on by the list; depth-first, by a frame of the stack.
fn spawns(tree: &Numbered, levels: &Levels, schedule: Schedule) -> impl Iterator<Item = Spawn> {
    let all = tree.old.iter().zip(0..);
    let live = all.filter(move |(_, execution)| {
        schedule == Schedule::Concurrent
            && levels.fate(*execution) == Fate::GoesOn
            && levels.status(*execution) == Status::Running
    });
    live.flat_map(|(old, execution)| {
        let creates = old
            .runs
            .values()
            .filter(|run| matches!(run.progress, old::Progress::Child(_)));
        creates.map(move |run| Spawn {
            execution,
            run: run.number,
        })
    })
}

/// Whether a run creates children. One that hasn't begun to is begun at recovery; one that waits for the time for the next
/// child goes on then.
fn creates(tree: &Numbered, execution: u64, run: &old::Run) -> bool {
    match &run.progress {
        old::Progress::Child(spawning) => spawning.total > 0 && tree.due(execution, run.number, spawning).is_none(),
        _ => false,
    }
}

/// A frame that isn't an answer to a child.
fn frame(execution: u64, old: &old::Frame) -> Option<Frame> {
    let then = match &old.then {
        None => None,
        Some(old::Then::Tell(signals)) => Some(Box::new(Then::Deliver(signals.clone()))),
        Some(old::Then::Acknowledge { .. }) => return None,
    };
    Some(Frame {
        execution,
        signals: old.signals.clone(),
        registry: old.registry.clone(),
        next: old.next,
        then,
    })
}

/// The stacks of all executions of a depth-first tree as one: what an execution waits for is on top of what waits.
struct Order<'a> {
    tree: &'a Numbered,
    levels: &'a Levels,
    pending: &'a Pending,
    frames: Vec<Frame>,
    seen: HashSet<u64>,
    /// Runs that create children, by execution and number.
    runs: HashSet<(u64, u64)>,
}

impl<'a> Order<'a> {
    fn new(tree: &'a Numbered, levels: &'a Levels, pending: &'a Pending) -> Self {
        Self {
            tree,
            levels,
            pending,
            frames: Vec::new(),
            seen: HashSet::new(),
            runs: HashSet::new(),
        }
    }

    fn visit(&mut self, number: u64) {
        if !self.seen.insert(number) {
            return;
        }
        let old = &self.tree.old[number as usize];
        for frame in &old.stack {
            // An answer to a child: above it is what the child's signals have led to, so the child is below.
            if let Some(old::Then::Acknowledge { child }) = &frame.then {
                if let Some(run) = old.child(child).map(|child| child.run) {
                    self.run(number, run);
                }
                if let Some(child) = self.tree.number(child) {
                    self.visit(child);
                }
            }
            self.frames.extend(self::frame(number, frame));
        }
        for run in old.runs.keys() {
            self.run(number, *run);
        }
        for child in self.tree.children(number) {
            self.visit(*child);
        }
        let signals = self.pending.signals.get(&number).into_iter().flatten().rev();
        self.frames.extend(signals.map(|signals| Frame {
            execution: number,
            signals: Batch::default(),
            registry: old.registry.clone(),
            next: 0,
            then: Some(Box::new(Then::Deliver(signals.clone()))),
        }));
    }

    /// A run that creates children is below those that it has created.
    fn run(&mut self, number: u64, run: u64) {
        let found = self.tree.old[number as usize].runs.get(&run);
        let creates = found.filter(|run| creates(self.tree, number, run));
        let Some(creates) = creates.filter(|_| self.levels.status(number) == Status::Running) else {
            return;
        };
        if !self.runs.insert((number, run)) {
            return;
        }
        self.frames.push(Frame {
            execution: number,
            signals: Batch::default(),
            registry: creates.registry.clone(),
            next: 0,
            then: Some(Box::new(Then::Spawn { run })),
        });
        let children: Vec<u64> = self.tree.children_of_run(number, run).collect();
        children.into_iter().for_each(|child| self.visit(child));
    }
}
