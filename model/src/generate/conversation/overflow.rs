//! Conversations that do not fit in the context.

use crate::error::Result;
use crate::text::chat::{Message, Role};

/// What happens to a conversation that does not fit in the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// [`Error::ContextFull`](crate::Error::ContextFull); the conversation stays as it is.
    #[default]
    Error,
    /// The oldest rounds are dropped until a quarter of the context, or `max_new_tokens` if that is less, is free for the answer.
    /// Instructions and the last question stay.
    DropOldest,
}

/// Messages that fit, their prompt, and how many rounds were dropped.
pub(super) struct Fitted {
    pub(super) messages: Vec<Message>,
    pub(super) prompt: Vec<u32>,
    pub(super) dropped: usize,
}

/// Drops the oldest rounds while the prompt is longer than `longest`: the fewest whose absence makes it fit, or all but the last
/// one. `encode` gives the prompt of messages.
///
/// A prompt does not grow when a round is dropped, so the number is found by search. The search starts where the lengths of the
/// texts suggest.
pub(super) fn fit(
    mut messages: Vec<Message>,
    longest: usize,
    encode: impl Fn(&[Message]) -> Result<Vec<u32>>,
) -> Result<Fitted> {
    let prompt = encode(&messages)?;
    let kept = instructions(&messages);
    let starts = round_starts(&messages);
    let all = starts.len().saturating_sub(1);
    if prompt.len() <= longest || all == 0 {
        return Ok(Fitted { messages, prompt, dropped: 0 });
    }
    let without = |rounds: usize| [&messages[..kept], &messages[starts[rounds]..]].concat();
    // The prompt without the fewest rounds so far.
    let mut fitting = None;
    let guess = guess(&messages, &starts, prompt.len(), longest);
    let dropped = first_that_fits(all, guess, |rounds| {
        let prompt = encode(&without(rounds))?;
        let fits = prompt.len() <= longest;
        if fits {
            fitting = Some((rounds, prompt));
        }
        Ok(fits)
    })?;
    messages.drain(kept..starts[dropped]);
    let prompt = match fitting {
        Some((rounds, prompt)) if rounds == dropped => prompt,
        _ => encode(&messages)?,
    };
    Ok(Fitted { messages, prompt, dropped })
}

/// How many messages at the beginning are instructions.
pub(super) fn instructions(messages: &[Message]) -> usize {
    messages.iter().take_while(|message| message.role == Role::System).count()
}

/// Where each round begins: the first behind the instructions, every other with a question.
fn round_starts(messages: &[Message]) -> Vec<usize> {
    let first = instructions(messages);
    let asks = |&i: &usize| i == first || messages[i].role == Role::User;
    (first..messages.len()).filter(asks).collect()
}

/// Rounds to drop if every byte of text were as many tokens as any other.
fn guess(messages: &[Message], starts: &[usize], tokens: usize, longest: usize) -> usize {
    // A message has some tokens beside its text.
    let size = |message: &Message| message.content.len() + 8;
    let all: usize = messages.iter().map(size).sum();
    let mut excess = all as f64 * (1.0 - longest as f64 / tokens as f64);
    let sizes = starts.windows(2).map(|ends| messages[ends[0]..ends[1]].iter().map(size).sum());
    let is_needed = |&size: &usize| {
        let needed = excess > 0.0;
        excess -= size as f64;
        needed
    };
    sizes.take_while(is_needed).count()
}

/// The smallest number from 1 to `all` that fits, or `all`: searched from `guess` in growing steps, then by bisection. Every number
/// above one that fits must fit, too; 0 does not.
fn first_that_fits(
    all: usize,
    guess: usize,
    mut fits: impl FnMut(usize) -> Result<bool>,
) -> Result<usize> {
    let (mut low, mut high) = (0, all);
    let (mut probe, mut step, mut direction) = (guess, 1, None);
    let mut is_enclosed = false;
    while high - low > 1 {
        let number = probe.clamp(low + 1, high - 1);
        let is_enough = fits(number)?;
        *(if is_enough { &mut high } else { &mut low }) = number;
        is_enclosed |= direction.replace(is_enough).is_some_and(|before| before != is_enough);
        probe = match is_enough {
            _ if is_enclosed => low + (high - low) / 2,
            true => number.saturating_sub(step),
            false => number + step,
        };
        step *= 2;
    }
    Ok(high)
}

/// Tokens of a prompt that leaves room for an answer.
pub(super) fn longest_prompt(context: usize, max_new_tokens: Option<usize>) -> usize {
    let quarter = context / 4;
    context - max_new_tokens.unwrap_or(quarter).min(quarter).max(1)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    fn of(roles: &[Role]) -> Vec<Message> {
        roles.iter().map(|&role| Message::new(role, "")).collect()
    }

    #[test]
    fn rounds_begin_with_questions() {
        use Role::{Assistant, Observation, System, User};
        let starts = |roles: &[Role]| round_starts(&of(roles));
        assert_eq!(starts(&[User, Assistant, User]), [0, 2]);
        assert_eq!(starts(&[System, User, Assistant, Observation, Assistant, User]), [1, 5]);
        assert_eq!(starts(&[System, User, Assistant]), [1]);
        assert_eq!(starts(&[Assistant, User]), [0, 1]);
        assert!(starts(&[System]).is_empty() && starts(&[]).is_empty());
    }

    #[test]
    fn there_is_room_for_an_answer() {
        assert_eq!(longest_prompt(2048, None), 1536);
        assert_eq!(longest_prompt(2048, Some(40)), 2008);
        assert_eq!(longest_prompt(2048, Some(5000)), 1536);
        assert_eq!(longest_prompt(1, None), 0);
    }

    /// The definition: the oldest round is dropped until the prompt fits or one round is left.
    fn one_by_one(
        mut messages: Vec<Message>,
        longest: usize,
        encode: impl Fn(&[Message]) -> Result<Vec<u32>>,
    ) -> (Vec<Message>, usize) {
        let mut dropped = 0;
        while encode(&messages).unwrap().len() > longest {
            let [first, next, ..] = round_starts(&messages)[..] else { break };
            messages.drain(first..next);
            dropped += 1;
        }
        (messages, dropped)
    }

    /// A token for each byte, and three for each message.
    fn bytes(messages: &[Message]) -> Result<Vec<u32>> {
        Ok(vec![0; messages.iter().map(|message| message.content.len() + 3).sum()])
    }

    proptest! {
        #[test]
        fn as_many_rounds_are_dropped_as_one_by_one(
            written in prop::collection::vec((0usize..4, 0usize..60), 0..40), longest in 0usize..900,
        ) {
            let roles = [Role::User, Role::Assistant, Role::System, Role::Tool];
            let messages: Vec<_> =
                written.iter().map(|&(role, len)| Message::new(roles[role], "x".repeat(len))).collect();
            let fitted = fit(messages.clone(), longest, bytes).unwrap();
            let (expected, dropped) = one_by_one(messages, longest, bytes);
            prop_assert_eq!((&fitted.messages, fitted.dropped), (&expected, dropped));
            prop_assert_eq!(fitted.prompt.len(), bytes(&expected).unwrap().len());
        }

        #[test]
        fn the_search_finds_the_first(all in 1usize..500, first in 1usize..600, guess in 0usize..700) {
            let calls = Cell::new(0);
            let fits = |number| {
                calls.set(calls.get() + 1);
                Ok(number >= first)
            };
            prop_assert_eq!(first_that_fits(all, guess, fits).unwrap(), first.min(all));
            prop_assert!(calls.get() <= 20, "{} calls", calls.get());
        }
    }

    #[test]
    fn thousands_of_rounds_are_encoded_a_few_times() {
        let rounds = (0..4000).flat_map(|i| {
            let (question, answer) = ("q".repeat(i * 7 % 31), "a".repeat(i * 13 % 101));
            [Message::new(Role::User, question), Message::new(Role::Assistant, answer)]
        });
        let messages: Vec<_> = rounds.chain([Message::new(Role::User, "last")]).collect();
        let (encoded, times) = (Cell::new(0), Cell::new(0));
        let encode = |messages: &[Message]| {
            encoded.set(encoded.get() + messages.len());
            times.set(times.get() + 1);
            bytes(messages)
        };
        let fitted = fit(messages.clone(), 1000, encode).unwrap();
        assert!(encoded.get() < 2 * messages.len(), "{} messages", encoded.get());
        assert!(times.get() <= 8, "{} prompts", times.get());
        let (expected, dropped) = one_by_one(messages, 1000, bytes);
        assert_eq!((fitted.messages, fitted.dropped), (expected, dropped));
    }

    /// Where the lengths of the texts mislead: the tokens are in the last rounds, the bytes in the first ones.
    #[test]
    fn a_wrong_guess_costs_a_few_prompts_more() {
        let rounds = (0..4000).flat_map(|i| {
            let answer = if i < 2000 { "-".repeat(1000) } else { "a".repeat(10) };
            [Message::new(Role::User, "q"), Message::new(Role::Assistant, answer)]
        });
        let messages: Vec<_> = rounds.chain([Message::new(Role::User, "last")]).collect();
        let tokens = |messages: &[Message]| {
            let tokens = |message: &Message| 1 + message.content.matches('a').count();
            Ok(vec![0; messages.iter().map(tokens).sum()])
        };
        let times = Cell::new(0);
        let encode = |messages: &[Message]| {
            times.set(times.get() + 1);
            tokens(messages)
        };
        let fitted = fit(messages.clone(), 700, encode).unwrap();
        assert!(times.get() <= 26, "{} prompts", times.get());
        // A round is 12 tokens, the last question one or two.
        let last = tokens(&messages[8000..]).unwrap().len();
        assert_eq!(fitted.dropped, 4000 - (700 - last) / 12);
        assert!(fitted.prompt.len() <= 700 && fitted.prompt.len() + 12 > 700);
    }
}
