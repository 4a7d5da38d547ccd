//! What is measured.

use crate::args::Bench;

/// Defaults of the flags.
const PROMPTS: [usize; 3] = [32, 128, 512];
const DEPTHS: [usize; 2] = [32, 1000];
const SEQUENCES: [usize; 2] = [4, 8];
const DRAFT_TOKENS: [usize; 4] = [2, 4, 8, 16];

/// Defaults with a picture: enough points for a curve, few enough for some minutes.
const PLOT_PROMPTS: [usize; 6] = [16, 32, 64, 128, 256, 512];
const PLOT_DEPTHS: [usize; 6] = [32, 128, 256, 512, 1024, 2000];

/// Tokens in front of those of several sequences, and of drafts.
pub const DEPTH: usize = 32;

/// Most tokens of an answer with prompt lookup.
pub const LOOKUP_TOKENS: usize = 64;

/// Lengths and counts, one for each measurement.
pub struct Lengths {
    pub prompts: Vec<usize>,
    pub depths: Vec<usize>,
    pub sequences: Vec<usize>,
    pub draft_tokens: Vec<usize>,
    /// Whether prompt lookup is measured.
    pub lookup: bool,
    /// The context that prompts and depths take.
    pub capacity: usize,
}

impl Lengths {
    /// The values of the flags, or those defaults that fit in a context of `most` tokens.
    pub fn new(args: &Bench, most: usize) -> Self {
        // The start of an answer takes a token, too, and it follows one at least.
        let room = |length: usize| length.max(1).saturating_add(args.tokens).saturating_add(1);
        let or = |asked: &Option<Vec<usize>>, defaults: &[usize], fits: &dyn Fn(usize) -> bool| {
            match asked {
                Some(lengths) => lengths.clone(),
                None => defaults.iter().copied().filter(|&length| fits(length)).collect(),
            }
        };
        // The defaults of: prompts, depths, sequences, drafts.
        let defaults: [&[usize]; 4] = match args.plot {
            Some(_) => [&PLOT_PROMPTS, &PLOT_DEPTHS, &[], &[]],
            None => [&PROMPTS, &DEPTHS, &SEQUENCES, &DRAFT_TOKENS],
        };
        let prompts = or(&args.prompts, defaults[0], &|prompt| room(prompt) <= most);
        let depths = or(&args.depths, defaults[1], &|depth| room(depth) <= most);
        let mut sequences = or(&args.sequences, defaults[2], &|_| room(DEPTH) <= most);
        let mut draft_tokens = or(&args.draft_tokens, defaults[3], &|n| DEPTH + 1 + n <= most);
        sequences.retain(|&count| count > 0);
        draft_tokens.retain(|&count| count > 0);
        let lookup = !draft_tokens.is_empty() && 2 * LOOKUP_TOKENS <= most;
        let needs = prompts.iter().copied().chain(depths.iter().copied().map(room));
        let capacity = needs.max().unwrap_or(1);
        Self { prompts, depths, sequences, draft_tokens, lookup, capacity }
    }
}
