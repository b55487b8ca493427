//! The cycles of a graph that has some, each as short as it can be shown.

use std::collections::{HashMap, VecDeque};

use super::{Id, id};

/// Cycles that are shown: mended one by one, the rest shows at the next check.
const CYCLES_MAX: usize = 10;

/// Cycles that have no member in common. `sorted` is what the topological sort could place: all others are on a cycle or need something that is.
pub(super) fn find(needs: &[Vec<Id>], sorted: &[Id]) -> Vec<Vec<Id>> {
    let mut left = vec![true; needs.len()];
    for id in sorted {
        left[id.index()] = false;
    }
    let mut cycles = Vec::new();
    // Where a walk came by; walks share it, so that all of them together pass each service once.
    let mut walk_of = vec![usize::MAX; needs.len()];
    for start in (0..needs.len()).map(id) {
        if cycles.len() == CYCLES_MAX {
            break;
        }
        let mut at = start;
        // Every service that is left needs one that is left: a walk along such needs must come back to itself, unless it meets an older walk.
        while left[at.index()] && walk_of[at.index()] == usize::MAX {
            walk_of[at.index()] = start.index();
            match needs[at.index()].iter().find(|need| left[need.index()]) {
                Some(next) => at = *next,
                None => break,
            }
        }
        if left[at.index()] && walk_of[at.index()] == start.index() {
            let cycle = shortest(needs, &left, at);
            if !cycle.is_empty() {
                for member in &cycle {
                    left[member.index()] = false;
                }
                cycles.push(cycle);
            }
        }
    }
    cycles
}

/// The shortest way along needs from a service back to itself; empty where there is none.
fn shortest(needs: &[Vec<Id>], left: &[bool], start: Id) -> Vec<Id> {
    let mut came_from: HashMap<Id, Id> = HashMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(at) = open.pop_front() {
        for next in needs[at.index()].iter().filter(|next| left[next.index()]) {
            if *next == start {
                let mut cycle = vec![at];
                while let Some(before) = came_from.get(cycle.last().unwrap_or(&start)) {
                    cycle.push(*before);
                }
                cycle.reverse();
                return cycle;
            }
            if !came_from.contains_key(next) {
                came_from.insert(*next, at);
                open.push_back(*next);
            }
        }
    }
    vec![]
}
