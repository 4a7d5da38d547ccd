//! Tokens in tiles of a constant size, so that the sums of a tile stay in registers.

use std::ops::Range;

/// A computation on a tile of tokens.
pub(crate) trait Tile {
    /// The largest tile: 1, 4 or 6 tokens.
    const TOKENS: usize;
    /// Whether 7 or 8 tokens, where the largest tile has 6, are two tiles of 4; otherwise a tile of 1 or 2 follows that of 6.
    const FOUR_AND_FOUR: bool = false;
    /// Computes these tokens. The last one may be repeated, so results are to be stored, or added once.
    fn tile<const T: usize>(&mut self, tokens: [usize; T]);
}

/// Calls `work` on tiles of `tokens`. The last tile is rounded up to a size of 1, 2, 4 or 6: code for every size would take
/// long to compile.
#[inline(always)]
pub(crate) fn tiles<W: Tile>(tokens: Range<usize>, work: &mut W) {
    const { assert!(matches!(W::TOKENS, 1 | 4 | 6)) };
    let Range { start: mut first, end: tokens } = tokens;
    while first < tokens {
        let left = tokens - first;
        first += if W::TOKENS == 1 || left == 1 {
            tile::<1, W>(first, tokens, work)
        } else if left == 2 {
            tile::<2, W>(first, tokens, work)
        } else if W::TOKENS == 4 || left <= 4 || W::FOUR_AND_FOUR && matches!(left, 7 | 8) {
            tile::<4, W>(first, tokens, work)
        } else {
            tile::<6, W>(first, tokens, work)
        };
    }
}

/// As [`tiles`], for the first `tokens`, a whole number of the largest tiles: no others are compiled.
#[inline(always)]
pub(crate) fn whole_tiles<W: Tile>(tokens: usize, work: &mut W) {
    const { assert!(matches!(W::TOKENS, 1 | 4 | 6)) };
    debug_assert!(tokens.is_multiple_of(W::TOKENS));
    for first in (0..tokens).step_by(W::TOKENS) {
        match W::TOKENS {
            1 => tile::<1, W>(first, tokens, work),
            4 => tile::<4, W>(first, tokens, work),
            _ => tile::<6, W>(first, tokens, work),
        };
    }
}

#[inline(always)]
fn tile<const T: usize, W: Tile>(first: usize, tokens: usize, work: &mut W) -> usize {
    let mut these = [first; T];
    for t in 1..T {
        these[t] = (first + t).min(tokens - 1);
    }
    work.tile(these);
    T
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Seen<const MOST: usize, const FOUR_AND_FOUR: bool>(Vec<usize>);

    impl<const MOST: usize, const FOUR_AND_FOUR: bool> Tile for Seen<MOST, FOUR_AND_FOUR> {
        const TOKENS: usize = MOST;
        const FOUR_AND_FOUR: bool = FOUR_AND_FOUR;
        fn tile<const T: usize>(&mut self, tokens: [usize; T]) {
            assert!(T <= MOST);
            self.0.extend(tokens);
        }
    }

    fn check<const MOST: usize, const FOUR_AND_FOUR: bool>(tokens: usize) {
        let mut seen = Seen::<MOST, FOUR_AND_FOUR>(Vec::new());
        let whole = tokens - tokens % MOST;
        whole_tiles(whole, &mut seen);
        assert_eq!(seen.0.len(), whole);
        tiles(whole..tokens, &mut seen);
        seen.0.dedup();
        assert_eq!(seen.0, (0..tokens).collect::<Vec<_>>());
        seen.0.clear();
        tiles(0..tokens, &mut seen);
        seen.0.dedup();
        assert_eq!(seen.0, (0..tokens).collect::<Vec<_>>());
    }

    #[test]
    fn tiles_cover_all_tokens_in_order() {
        for tokens in 0..40 {
            check::<1, false>(tokens);
            check::<4, false>(tokens);
            check::<6, false>(tokens);
            check::<6, true>(tokens);
        }
    }

    #[test]
    fn seven_or_eight_tokens_are_two_tiles_of_four_where_asked() {
        let mut seen = Seen::<6, true>(Vec::new());
        tiles(0..20, &mut seen);
        assert_eq!(seen.0, (0..20).collect::<Vec<_>>());
        seen.0.clear();
        tiles(0..7, &mut seen);
        assert_eq!(seen.0, [0, 1, 2, 3, 4, 5, 6, 6]);
    }
}
