//! Input and output of a pass: new tokens of several sequences, and logits.

use std::ops::Range;

use crate::network::placement::Placement;
use crate::network::sequence::Sequence;

/// New tokens of one sequence for a pass: a prompt or a piece of it, the last generated token, or a draft to verify.
///
/// A bidirectional context must be in one chunk.
pub struct Chunk<'a> {
    /// The sequence that the tokens are appended to.
    pub sequence: &'a mut Sequence,
    /// The tokens; at least one.
    pub ids: &'a [u32],
    /// Indices in `ids` of the tokens whose logits are computed.
    pub wanted: Range<usize>,
}

impl<'a> Chunk<'a> {
    /// A chunk with logits for the last token only.
    pub fn last(sequence: &'a mut Sequence, ids: &'a [u32]) -> Self {
        Self { sequence, ids, wanted: ids.len().saturating_sub(1)..ids.len() }
    }

    /// A chunk with logits for every token.
    pub fn all(sequence: &'a mut Sequence, ids: &'a [u32]) -> Self {
        Self { sequence, ids, wanted: 0..ids.len() }
    }

    /// A chunk without logits.
    pub fn none(sequence: &'a mut Sequence, ids: &'a [u32]) -> Self {
        Self { sequence, ids, wanted: 0..0 }
    }
}

/// The logits of a pass: for each chunk, those of its wanted tokens in order.
#[derive(Clone, Copy)]
pub struct Logits<'w> {
    values: &'w [f32],
    vocab: usize,
    wanted: &'w WantedRows,
}

impl<'w> Logits<'w> {
    pub(crate) fn new(values: &'w [f32], vocab: usize, wanted: &'w WantedRows) -> Self {
        Self { values, vocab, wanted }
    }

    /// Logits of the wanted tokens of chunk `chunk`, one row of `vocab` values per token. Empty if there is no such
    /// chunk, none of its tokens were wanted, or the logits were passed to [`RunOptions::logits`](crate::RunOptions::logits).
    pub fn chunk(&self, chunk: usize) -> std::slice::ChunksExact<'w, f32> {
        let rows = self.wanted.of(chunk);
        let values = self.values.get(rows.start * self.vocab..rows.end * self.vocab);
        values.unwrap_or_default().chunks_exact(self.vocab)
    }

    /// Logits of the last wanted token of chunk `chunk`; empty if [`Logits::chunk`] is empty.
    pub fn last(&self, chunk: usize) -> &'w [f32] {
        self.chunk(chunk).next_back().unwrap_or_default()
    }
}

/// The row ranges of all chunks in the matrix of logits.
#[derive(Default)]
pub(crate) struct WantedRows {
    /// The end of the rows of each chunk, which is the start of the next.
    ends: Vec<usize>,
}

impl WantedRows {
    pub(crate) fn set(&mut self, counts: impl Iterator<Item = usize>) {
        self.ends.clear();
        let mut end = 0;
        self.ends.extend(counts.map(|count| {
            end += count;
            end
        }));
    }

    pub(crate) fn total(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn of(&self, chunk: usize) -> Range<usize> {
        let end = self.ends.get(chunk).copied().unwrap_or(0);
        let start = chunk.checked_sub(1).and_then(|before| self.ends.get(before));
        start.copied().unwrap_or(0).min(end)..end
    }
}

/// Consecutive tokens of one chunk in the batch of rows that is in the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Index of the chunk.
    pub(crate) chunk: usize,
    /// Index of the first token in the chunk.
    pub(crate) token: usize,
    /// Index of the first row.
    pub(crate) row: usize,
    /// Number of tokens, which is the number of rows.
    pub(crate) count: usize,
}

impl Segment {
    pub(crate) fn rows(&self) -> Range<usize> {
        self.row..self.row + self.count
    }

    /// The intersection with `rows`.
    pub(crate) fn within(&self, rows: &Range<usize>) -> Option<Self> {
        let first = self.row.max(rows.start);
        let end = (self.row + self.count).min(rows.end);
        (first < end).then(|| {
            let token = self.token + first - self.row;
            Self { token, row: first, count: end - first, ..*self }
        })
    }
}

/// What planning needs to know of a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    /// Tokens of the sequence before the chunk.
    pub(crate) start: usize,
    pub(crate) tokens: usize,
    pub(crate) placement: Placement,
}

/// The next token to plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    chunk: usize,
    token: usize,
}

impl Cursor {
    /// Plans the next batch of rows: at most `tile` rows, in the order of chunks and tokens. A chunk with a bidirectional context
    /// is never split, even if it has more. Writes the segments; returns the number of rows, which is 0 at the end.
    pub(crate) fn next(
        &mut self,
        chunk: impl Fn(usize) -> Option<Planned>,
        tile: usize,
        segments: &mut Vec<Segment>,
    ) -> usize {
        segments.clear();
        let mut rows = 0;
        while rows < tile
            && let Some(Planned { start, tokens, placement }) = chunk(self.chunk)
        {
            let left = tokens - self.token;
            // A bidirectional context cannot be split. The few tokens after it in the chunk are not split from it either.
            let is_whole = start + self.token < placement.context();
            if is_whole && rows > 0 && rows + left > tile {
                break;
            }
            let count = if is_whole { left } else { left.min(tile - rows) };
            segments.push(Segment { chunk: self.chunk, token: self.token, row: rows, count });
            (rows, self.token) = (rows + count, self.token + count);
            if self.token == tokens {
                *self = Self { chunk: self.chunk + 1, token: 0 };
            }
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wanted_rows_of_chunks_are_contiguous() {
        let mut wanted = WantedRows::default();
        assert_eq!((wanted.of(0), wanted.total()), (0..0, 0));
        wanted.set([2, 0, 3].into_iter());
        assert_eq!([0, 1, 2].map(|chunk| wanted.of(chunk)), [0..2, 2..2, 2..5]);
        assert_eq!((wanted.of(3).len(), wanted.total()), (0, 5));
    }

    proptest! {
        /// Every token has one row, in order. A chunk with a context is not split. Only such a chunk may exceed the tile, alone.
        #[test]
        fn plans_cover_all_tokens(
            chunks in prop::collection::vec((0usize..40, 1usize..40), 1..6), tile in 1usize..20,
        ) {
            let chunks: Vec<_> = chunks
                .into_iter()
                .map(|(context, tokens)| {
                    // The context is either entirely in the chunk or entirely in the sequence.
                    let start = if context > tokens { context } else { 0 };
                    Planned { start, tokens, placement: Placement::with_context(context) }
                })
                .collect();
            let (mut cursor, mut segments, mut seen) = (Cursor::default(), Vec::new(), Vec::new());
            loop {
                let rows = cursor.next(|chunk| chunks.get(chunk).copied(), tile, &mut segments);
                if rows == 0 {
                    break;
                }
                prop_assert!(rows <= tile || segments.len() == 1);
                let mut row = 0;
                for segment in &segments {
                    prop_assert_eq!(segment.row, row);
                    row += segment.count;
                    let Planned { start, placement, .. } = chunks[segment.chunk];
                    if start + segment.token < placement.context() {
                        prop_assert_eq!((segment.token, segment.count), (0, chunks[segment.chunk].tokens));
                    }
                    seen.extend((0..segment.count).map(|i| (segment.chunk, segment.token + i)));
                }
                prop_assert_eq!(row, rows);
            }
            let all = chunks.iter().enumerate();
            let all: Vec<_> = all.flat_map(|(c, chunk)| (0..chunk.tokens).map(move |t| (c, t))).collect();
            prop_assert_eq!(seen, all);
        }
    }
}
