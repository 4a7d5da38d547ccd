//! A search for a pattern from a file, whose work is counted.
//!
//! The engine that is used for known patterns has several ways to search. The last one, for patterns that defeat the others, takes time
//! in proportion to the size of the pattern for each byte, and nothing can stop it: `(?:a?b?){1000}Q|.` takes a tenth of a second for each
//! word. So other patterns are searched with one engine only, a DFA whose states are made when a text first needs them. A byte costs one
//! unit of work, and a transition that has to be made four for each state of the pattern and one for each of its alternatives, which is
//! what they take. The same text costs the same on a slow machine; it costs less if an earlier text has made the states.

use std::error::Error;
use std::panic::{RefUnwindSafe, UnwindSafe};

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, Config, DFA};
use regex_automata::nfa::thompson::{self, State, WhichCaptures};
use regex_automata::util::pool::{Pool, PoolGuard};
use regex_automata::{Anchored, Input, PatternID};

use crate::limits::tokenizer::{MAX_PATTERN_SIZE, MAX_PATTERN_STATES};

/// A pattern that is searched with counted work.
pub(super) struct Counted {
    dfa: DFA,
    /// States that earlier texts have made: as many caches as texts were split at the same time.
    made: Pool<Cache, NewCache>,
    /// What a transition costs that is not there yet.
    new_transition: u64,
    /// What a state costs from which a match ends. The engine does not tell which of its transitions it has to make.
    new_match: u64,
}

type NewCache = Box<dyn Fn() -> Cache + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// The states that were made, for one search.
pub(super) type Made<'s> = PoolGuard<'s, Cache, NewCache>;

/// A match.
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) pattern: PatternID,
}

impl Counted {
    /// # Errors
    /// If the patterns are too large, or have word boundaries of Unicode, which no DFA has.
    pub(super) fn new(patterns: &[&str]) -> Result<Self, String> {
        let cause = |error: &dyn Error| error.source().map_or(error.to_string(), |e| e.to_string());
        let config = thompson::Config::new()
            .nfa_size_limit(Some(MAX_PATTERN_SIZE))
            .which_captures(WhichCaptures::None);
        let nfa = thompson::Compiler::new().configure(config).build_many(patterns);
        let nfa = nfa.map_err(|error| cause(&error))?;
        let states = nfa.states().len() as u64;
        if states > MAX_PATTERN_STATES {
            return Err(format!("it has {states} states, and {MAX_PATTERN_STATES} are the most"));
        }
        let alternatives = |state: &State| match state {
            State::Union { alternates } => alternates.len() as u64,
            _ => 0,
        };
        let new_transition = 4 * states + nfa.states().iter().map(alternatives).sum::<u64>();
        // A cache that is full is emptied. The count stops what would never come to an end.
        let config = Config::new().minimum_cache_clear_count(None);
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa);
        let dfa = dfa.map_err(|error| cause(&error))?;
        let classes = dfa.byte_classes().alphabet_len() as u64;
        let for_caches = dfa.clone();
        let new_cache: NewCache = Box::new(move || for_caches.create_cache());
        Ok(Self {
            dfa,
            made: Pool::new(new_cache),
            new_transition,
            new_match: new_transition.saturating_mul(classes),
        })
    }

    /// The states for a search.
    pub(super) fn made(&self) -> Made<'_> {
        self.made.get()
    }

    /// The first match at or after a place in a text; `left` is the work that is left.
    ///
    /// # Errors
    /// If it is not enough.
    pub(super) fn find(
        &self,
        cache: &mut Cache,
        text: &str,
        from: usize,
        left: &mut u64,
    ) -> Result<Option<Found>, TooMuch> {
        let places = text[from..].char_indices().map(|(at, _)| from + at);
        for start in places.chain([text.len()]) {
            if let Some((end, pattern)) = self.match_at(cache, text, start, left)? {
                return Ok(Some(Found { start, end, pattern }));
            }
        }
        Ok(None)
    }

    /// The end of the match that begins at a place.
    fn match_at(
        &self,
        cache: &mut Cache,
        text: &str,
        start: usize,
        left: &mut u64,
    ) -> Result<Option<(usize, PatternID)>, TooMuch> {
        let input = Input::new(text).span(start..text.len()).anchored(Anchored::Yes);
        let before = size(cache);
        let state = self.dfa.start_state_forward(cache, &input).map_err(|_| TooMuch)?;
        spend(left, if size(cache) == before { 1 } else { self.new_transition })?;
        let mut state = state;
        let mut found = None;
        for (at, &byte) in text.as_bytes().iter().enumerate().skip(start) {
            state = self.step(cache, state, byte, left)?;
            if state.is_tagged() {
                // A match is known one byte later.
                if state.is_match() {
                    found = Some((at, self.dfa.match_pattern(cache, state, 0)));
                } else if state.is_dead() {
                    return Ok(found);
                } else if state.is_quit() {
                    return Err(TooMuch);
                }
            }
        }
        let before = size(cache);
        let last = self.dfa.next_eoi_state(cache, state).map_err(|_| TooMuch)?;
        spend(left, if size(cache) == before { 1 } else { self.new_transition })?;
        if last.is_match() {
            found = Some((text.len(), self.dfa.match_pattern(cache, last, 0)));
        }
        Ok(found)
    }

    /// The state after a byte.
    fn step(
        &self,
        cache: &mut Cache,
        state: LazyStateID,
        byte: u8,
        left: &mut u64,
    ) -> Result<LazyStateID, TooMuch> {
        spend(left, 1)?;
        if !state.is_tagged() {
            let next = self.dfa.next_state_untagged(cache, state, byte);
            if !next.is_unknown() {
                return Ok(next);
            }
            spend(left, self.new_transition)?;
        }
        let before = size(cache);
        let next = self.dfa.next_state(cache, state, byte).map_err(|_| TooMuch)?;
        if next.is_match() && size(cache) != before {
            spend(left, self.new_match)?;
        } else if state.is_tagged() && size(cache) != before {
            spend(left, self.new_transition)?;
        }
        Ok(next)
    }
}

/// A search that takes more work than is left.
#[derive(Debug)]
pub(super) struct TooMuch;

fn spend(left: &mut u64, work: u64) -> Result<(), TooMuch> {
    *left = left.checked_sub(work).ok_or(TooMuch)?;
    Ok(())
}

/// Changes when a state is made.
fn size(cache: &Cache) -> (usize, usize) {
    (cache.clear_count(), cache.memory_usage())
}
