//! Loops that nothing ends.

use super::signals::{SignalGraph, When};
use super::source::Source;
use crate::config::codes::UNCONDITIONAL_LOOP;
use crate::config::diagnostic::{Diagnostic, Problems};

/// Names of nodes that a message lists.
const MAX_LISTED: usize = 8;

/// Warns about nodes that trigger each other again and again without any condition.
pub(super) fn check(workflow: &str, graph: &SignalGraph<'_>, source: Source<'_>, problems: &mut Problems) {
    for component in Components::of(graph) {
        let mut nodes: Vec<usize> = component.into_iter().filter(|&v| v < graph.nodes.len()).collect();
        nodes.sort_unstable();
        let Some(&first) = nodes.first() else { continue };
        let mut names: Vec<&str> = nodes
            .iter()
            .take(MAX_LISTED)
            .map(|&i| graph.nodes[i].name.as_ref())
            .collect();
        if nodes.len() > MAX_LISTED {
            names.push("...");
        }
        let message = format!("a loop without any condition on it: {}", names.join(", "));
        let help = "give one of its emissions a condition, so that it ends";
        let problem = Diagnostic::new(UNCONDITIONAL_LOOP, message).help(help);
        problems.push(source.at_node(workflow, &graph.nodes[first].name, problem));
    }
}

/// The strongly connected components of what always happens: nodes are vertices, signals come after them.
///
/// Tarjan's algorithm with a stack of its own, since a workflow may be one long chain.
struct Components<'g, 'w> {
    graph: &'g SignalGraph<'w>,
    /// The order of discovery of a vertex, from 1; 0 is undiscovered.
    order: Vec<usize>,
    lowest: Vec<usize>,
    on_path: Vec<bool>,
    path: Vec<usize>,
    discovered: usize,
    found: Vec<Vec<usize>>,
}

impl<'g, 'w> Components<'g, 'w> {
    /// Every component in which something leads back to itself.
    fn of(graph: &'g SignalGraph<'w>) -> Vec<Vec<usize>> {
        let vertices = graph.nodes.len() + graph.signals.len();
        let mut search = Self {
            graph,
            order: vec![0; vertices],
            lowest: vec![0; vertices],
            on_path: vec![false; vertices],
            path: Vec::new(),
            discovered: 0,
            found: Vec::new(),
        };
        for node in 0..graph.nodes.len() {
            if search.order[node] == 0 {
                search.visit(node);
            }
        }
        search.found
    }

    fn visit(&mut self, root: usize) {
        let mut stack = vec![(root, 0)];
        self.discover(root);
        while let Some((vertex, edge)) = stack.last_mut() {
            let vertex = *vertex;
            match self.successor(vertex, *edge) {
                Some(next) => {
                    *edge += 1;
                    let Some(next) = next else { continue };
                    if self.order[next] == 0 {
                        self.discover(next);
                        stack.push((next, 0));
                    } else if self.on_path[next] {
                        self.lowest[vertex] = self.lowest[vertex].min(self.order[next]);
                    }
                }
                None => {
                    stack.pop();
                    if let Some((parent, _)) = stack.last() {
                        self.lowest[*parent] = self.lowest[*parent].min(self.lowest[vertex]);
                    }
                    self.close(vertex);
                }
            }
        }
    }

    fn discover(&mut self, vertex: usize) {
        self.discovered += 1;
        self.order[vertex] = self.discovered;
        self.lowest[vertex] = self.discovered;
        self.on_path[vertex] = true;
        self.path.push(vertex);
    }

    /// If `vertex` is the first of its component, the component is complete.
    fn close(&mut self, vertex: usize) {
        if self.lowest[vertex] != self.order[vertex] {
            return;
        }
        let mut component = Vec::new();
        while let Some(member) = self.path.pop() {
            self.on_path[member] = false;
            component.push(member);
            if member == vertex {
                break;
            }
        }
        // Nodes lead to signals and signals to nodes, so a loop has at least one of each.
        if component.len() > 1 {
            self.found.push(component);
        }
    }

    /// The `edge`-th edge of a vertex: `None` after the last, `Some(None)` if it isn't always taken.
    fn successor(&self, vertex: usize, edge: usize) -> Option<Option<usize>> {
        let nodes = self.graph.nodes.len();
        if vertex < nodes {
            let output = self.graph.outputs[vertex].get(edge)?;
            Some((output.when == When::Always).then_some(nodes + output.signal))
        } else {
            self.graph.listeners[vertex - nodes].get(edge).copied().map(Some)
        }
    }
}
