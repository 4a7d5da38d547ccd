//! The merges of byte-pair encoding: neighbours are joined, the best pair first, until no pair can be joined.
//!
//! The definition searches all pairs after each step, which takes quadratic time. Here the pairs are in a heap, and the
//! parts are a linked list, which takes O(n log n):
//!
//! ```text
//! push every pair of neighbours that can be joined
//! while the heap has a best pair (of equals the leftmost): pop it
//!     if both of its parts are unchanged: join them, and push the pairs to the left and to the right of the result
//! ```
//!
//! SentencePiece and tiktoken look up the joined text to know whether a pair can be joined and how good it is. Where a file
//! lists pairs instead, the crate `tokenizers` does the same; see [`super::gpt2`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A piece so far: `text[start..end]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) id: u32,
}

/// The result of joining two neighbours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    /// The lowest rank is joined first.
    pub(super) rank: u32,
    pub(super) id: u32,
}

/// Joins neighbours until `join` returns `None` for all pairs. The parts must be adjacent and not empty.
pub(super) fn merge(
    parts: Vec<Symbol>,
    join: impl Fn(Symbol, Symbol) -> Option<Joined>,
) -> Vec<Symbol> {
    let mut list = List::new(parts);
    let mut heap = BinaryHeap::new();
    let push = |heap: &mut BinaryHeap<_>, list: &List, left: usize| {
        let Some(right) = list.next(left) else { return };
        let [l, r] = [left, right].map(|at| list.parts[at]);
        if let Some(Joined { rank, id }) = join(l, r) {
            heap.push(Reverse((rank, left, right, r.end, id)));
        }
    };
    (0..list.parts.len()).for_each(|left| push(&mut heap, &list, left));
    while let Some(Reverse((_, left, right, end, id))) = heap.pop() {
        // A part keeps its start until it is joined to its left neighbour, so an equal end means that it is unchanged.
        if list.next(left) != Some(right) || list.parts[right].end != end {
            continue;
        }
        list.join(left, right, id);
        push(&mut heap, &list, left);
        if let Some(before) = list.before(left) {
            push(&mut heap, &list, before);
        }
    }
    list.parts.retain(|part| part.start < part.end);
    list.parts
}

/// A linked list of parts. A part that was joined to its left neighbour is empty and has no links.
struct List {
    parts: Vec<Symbol>,
    links: Vec<[u32; 2]>,
}

const NONE: u32 = u32::MAX;

impl List {
    fn new(parts: Vec<Symbol>) -> Self {
        let mut links: Vec<_> =
            (0..parts.len() as u32).map(|i| [i.wrapping_sub(1), i + 1]).collect();
        if let Some(last) = links.last_mut() {
            last[1] = NONE;
        }
        List { parts, links }
    }

    fn before(&self, at: usize) -> Option<usize> {
        (self.links[at][0] != NONE).then_some(self.links[at][0] as usize)
    }

    fn next(&self, at: usize) -> Option<usize> {
        (self.links[at][1] != NONE).then_some(self.links[at][1] as usize)
    }

    fn join(&mut self, left: usize, right: usize, id: u32) {
        let end = self.parts[right].end;
        self.parts[left] = Symbol { end, id, ..self.parts[left] };
        self.parts[right].start = end;
        self.links[left][1] = self.links[right][1];
        if let Some(next) = self.next(right) {
            self.links[next][0] = left as u32;
        }
        self.links[right] = [NONE; 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The definition.
    fn naive(
        mut parts: Vec<Symbol>,
        join: impl Fn(Symbol, Symbol) -> Option<Joined>,
    ) -> Vec<Symbol> {
        loop {
            let pairs = parts.windows(2).enumerate();
            let joined = pairs.filter_map(|(i, pair)| Some((join(pair[0], pair[1])?, i)));
            let Some((best, i)) = joined.min_by_key(|(joined, i)| (joined.rank, *i)) else {
                return parts;
            };
            parts[i] = Symbol { end: parts[i + 1].end, id: best.id, ..parts[i] };
            parts.remove(i + 1);
        }
    }

    fn letters(ids: &[u32]) -> Vec<Symbol> {
        (0..).zip(ids).map(|(start, &id)| Symbol { start, end: start + 1, id }).collect()
    }

    #[test]
    fn the_best_pair_goes_first_and_of_equals_the_leftmost() {
        // 0 0 → 1 before 1 0 → 2.
        let join = |l: Symbol, r: Symbol| match (l.id, r.id) {
            (0, 0) => Some(Joined { rank: 0, id: 1 }),
            (1, 0) => Some(Joined { rank: 1, id: 2 }),
            _ => None,
        };
        let ids = |n| merge(letters(&vec![0; n]), join).iter().map(|p| p.id).collect::<Vec<_>>();
        assert_eq!((ids(0), ids(1), ids(3), ids(4)), (vec![], vec![0], vec![2], vec![1, 1]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn heap_is_the_definition(
            ids in vec(0_u32..4, 0..40),
            // The id and the rank of the pair (l, r). Id 0 means that it is not joined.
            table in vec((0_u32..12, 0_u32..6), 144),
        ) {
            let join = |l: Symbol, r: Symbol| {
                let (id, rank) = table[(l.id * 12 + r.id) as usize];
                (id > 0).then_some(Joined { rank, id })
            };
            prop_assert_eq!(merge(letters(&ids), join), naive(letters(&ids), join));
        }
    }
}
