//! The numbers, places and names that executions of format 1 get in their tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ConvertError;
use super::old::{Progress, Spawning, State};
use crate::{ExecutionId, Timestamp};

/// The executions of a tree, by number: the root first, then in the order of their creation.
pub(super) struct Numbered {
    pub(super) old: Vec<State>,
    /// What they are called now. Names that were shortened by a digest get the short form of today.
    pub(super) names: Vec<ExecutionId>,
    /// Of each but the root, what started it.
    pub(super) origins: Vec<Option<Place>>,
    /// The numbers of the children of each.
    children: Vec<Vec<u64>>,
    /// By the names of format 1.
    numbers: HashMap<ExecutionId, u64>,
}

/// A child's number, and the place that its name tells.
type Named = (u64, Option<u64>);

/// Where a child is in its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) parent: u64,
    pub(super) run: u64,
    pub(super) place: u64,
}

impl Numbered {
    pub(super) fn number(&self, id: &ExecutionId) -> Option<u64> {
        self.numbers.get(id).copied()
    }

    pub(super) fn parent(&self, number: u64) -> Option<u64> {
        self.origins.get(number as usize)?.map(|origin| origin.parent)
    }

    pub(super) fn children(&self, number: u64) -> &[u64] {
        self.children.get(number as usize).map_or(&[], Vec::as_slice)
    }

    pub(super) fn children_of_run(&self, number: u64, run: u64) -> impl Iterator<Item = u64> {
        let children = self.children(number).iter().copied();
        children.filter(move |child| self.origins[*child as usize].is_some_and(|origin| origin.run == run))
    }

    /// When the next child of a run is due, if that is why it isn't there.
    pub(super) fn due(&self, number: u64, run: u64, spawning: &Spawning) -> Option<Timestamp> {
        let made = self.children_of_run(number, run).count() as u64;
        spawning.due.filter(|_| made < spawning.next)
    }

    /// All numbers, children before their parents.
    pub(super) fn upwards(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = (0..self.old.len() as u64).collect();
        numbers.sort_by_key(|number| std::cmp::Reverse(self.old[*number as usize].depth()));
        numbers
    }
}

/// Numbers the executions of a tree.
pub(super) fn numbered(mut old: Vec<State>) -> Result<Numbered, ConvertError> {
    let roots = old.iter().filter(|state| state.parent().is_none()).count();
    if roots != 1 {
        return Err(ConvertError::Roots(roots));
    }
    old.sort_by(|a, b| {
        let key = |state: &State| {
            (
                state.parent().is_some(),
                state.created_at,
                state.depth(),
                state.id.as_str().len(),
            )
        };
        key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
    });
    let mut tree = Numbered {
        numbers: old
            .iter()
            .zip(0..)
            .map(|(state, number)| (state.id.clone(), number))
            .collect(),
        origins: vec![None; old.len()],
        children: vec![Vec::new(); old.len()],
        names: old.iter().map(|state| state.id.clone()).collect(),
        old,
    };
    tree.place_children()?;
    let half_made = tree.half_made();
    if !half_made.is_empty() {
        let left = tree
            .old
            .into_iter()
            .zip(0..)
            .filter(|(_, number)| !half_made.contains(number));
        return numbered(left.map(|(state, _)| state).collect());
    }
    tree.name();
    for (origin, number) in tree.origins.iter().zip(0..) {
        if let Some(origin) = origin {
            tree.children[origin.parent as usize].push(number);
        }
    }
    Ok(tree)
}

impl Numbered {
    fn place_children(&mut self) -> Result<(), ConvertError> {
        let mut by_run: BTreeMap<(u64, u64), Vec<Named>> = BTreeMap::new();
        for (state, number) in self.old.iter().zip(0..) {
            let Some(parent) = state.parent() else { continue };
            let orphan = || ConvertError::Orphan(state.id.clone());
            let parent = self.number(parent).ok_or_else(orphan)?;
            let above = &self.old[parent as usize];
            let child = above.child(&state.id).ok_or_else(orphan)?;
            let place = state.id.path_below(&above.id).and_then(|path| {
                let (run, place) = path.split_once('.')?;
                place.parse().ok().filter(|_| run.parse() == Ok(child.run))
            });
            by_run.entry((parent, child.run)).or_default().push((number, place));
        }
        for ((parent, run), children) in by_run {
            let mut taken: BTreeSet<u64> = children.iter().filter_map(|(_, place)| *place).collect();
            let mut next = 0;
            for (number, place) in children {
                // A digest doesn't tell the place: it is one that is free.
                let place = place.unwrap_or_else(|| {
                    while !taken.insert(next) {
                        next += 1;
                    }
                    next
                });
                self.origins[number as usize] = Some(Place { parent, run, place });
            }
        }
        Ok(())
    }

    /// Of runs that were creating children when their process ended: those behind the first that is missing, with all below
    /// them. They are created again, in order, with their names and so under the keys of their calls.
    fn half_made(&self) -> BTreeSet<u64> {
        let mut made: HashMap<(u64, u64), BTreeSet<u64>> = HashMap::new();
        for origin in self.origins.iter().flatten() {
            made.entry((origin.parent, origin.run))
                .or_default()
                .insert(origin.place);
        }
        let mut gone = BTreeSet::new();
        for number in self.upwards().into_iter().rev() {
            let Some(origin) = self.origins[number as usize] else {
                continue;
            };
            let creates = self.creates(origin.parent, origin.run);
            let made = made.get(&(origin.parent, origin.run));
            let behind = |made: &BTreeSet<u64>| made.range(..origin.place).count() as u64 != origin.place;
            if gone.contains(&origin.parent) || creates && made.is_some_and(behind) {
                gone.insert(number);
            }
        }
        gone
    }

    /// Whether a run in flight creates children.
    fn creates(&self, execution: u64, run: u64) -> bool {
        let run = self.old[execution as usize].runs.get(&run);
        run.is_some_and(|run| matches!(run.progress, Progress::Child(_)))
    }

    fn name(&mut self) {
        let root = self.names[0].clone();
        for number in self.upwards().into_iter().rev() {
            if let Some(Place { parent, run, place }) = self.origins[number as usize] {
                self.names[number as usize] = self.names[parent as usize].child(&root, run, place, number);
            }
        }
    }
}
