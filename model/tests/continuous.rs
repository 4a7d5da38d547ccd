//! Continuous batching: the ids of an answer are the same alone and in company, memory is returned, and clients take turns.

mod common;

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use common::fixture;
use common::runner::with;
use glm_model::{
    Activations, Batch, BatchOptions, CancelToken, Client, Constraint, Draft, Error, Event,
    FinishReason, Generation, IdSet, Model, Options, Request, Result, SampledToken, Sampling,
    Submission, Ticket,
};
use proptest::prelude::*;

const CONTEXT: usize = 512;

fn open(name: &str, kv_budget: Option<u64>) -> Model {
    let options = with(|options: &mut Options| {
        options.threads = Some(2);
        options.activations = Some(Activations::Int8);
        options.kv_budget = kv_budget;
    });
    Model::open(fixture(name), &options).unwrap()
}

/// A causal and a bidirectional model.
static MODELS: LazyLock<[Model; 2]> = LazyLock::new(|| {
    ["chatglm2-6b-tiny/int4", "chatglm-6b-tiny/int4"].map(|name| open(name, None))
});

/// The model with memory for five pages only.
fn small(which: usize) -> Model {
    let budget = MODELS[which].kv_pool().page_bytes() * 5;
    open(["chatglm2-6b-tiny/int4", "chatglm-6b-tiny/int4"][which], Some(budget))
}

/// Models of one test, which looks at their memory: with enough of it, and with little.
static OWN: LazyLock<[[Model; 2]; 2]> = LazyLock::new(|| {
    let names = ["chatglm2-6b-tiny/int4", "chatglm-6b-tiny/int4"];
    [names.map(|name| open(name, None)), [0, 1].map(small)]
});

/// A prompt of plain ids, `shared` of which are those of all prompts.
fn prompt(model: &Model, shared: usize, own: usize, salt: u32) -> Vec<u32> {
    let special = &model.config().special;
    let plain = |id: u32| 10 + id % 60;
    let mut ids: Vec<_> = (0..shared as u32).map(|i| plain(i * 7)).collect();
    ids.extend((0..own as u32).map(|i| plain(i * i * 3 + salt)));
    if let (Some(gmask), Some(sop)) = (special.gmask.or(special.mask), special.sop)
        && model.config().mask != glm_model::MaskKind::Causal
    {
        ids.extend([gmask, sop]);
    }
    ids
}

fn request(seed: u64, most: usize) -> Request {
    let sampling = with(|sampling: &mut Sampling| {
        (sampling.temperature, sampling.top_p, sampling.seed) = (1.2, 0.95, seed);
        (sampling.presence_penalty, sampling.frequency_penalty) = (0.3, -0.2);
    });
    let mut request = Request::new(sampling);
    (request.max_new_tokens, request.stop_ids) = (Some(most), vec![11]);
    request
}

/// An answer without others: its tokens and its end, or the code of the error that follows them.
fn try_alone(
    model: &Model,
    submission: &Submission,
    choice: usize,
) -> (Vec<SampledToken>, Result<FinishReason, &'static str>) {
    let mut request = submission.request.clone();
    request.sampling.seed += choice as u64;
    let sequence = model.sequence(submission.context).unwrap();
    let mut answer = Generation::new(model, sequence, &submission.prompt, request).unwrap();
    let mut tokens = Vec::new();
    while let Some(token) = answer.next_token() {
        match token {
            Ok(token) => tokens.push(token),
            Err(error) => return (tokens, Err(error.code())),
        }
    }
    (tokens, Ok(answer.finish_reason().unwrap()))
}

/// As [`try_alone`], of an answer that ends.
fn alone(
    model: &Model,
    submission: &Submission,
    choice: usize,
) -> (Vec<SampledToken>, FinishReason) {
    let (tokens, end) = try_alone(model, submission, choice);
    (tokens, end.unwrap())
}

/// What a batch has reported about a submission.
#[derive(Default)]
struct Seen {
    has_begun: bool,
    cached: Option<usize>,
    tokens: HashMap<usize, Vec<SampledToken>>,
    finished: HashMap<usize, FinishReason>,
    failed: Option<&'static str>,
}

#[derive(Default)]
struct Log(HashMap<Ticket, Seen>);

impl Log {
    fn take(&mut self, ticket: Ticket, event: Event) {
        let seen = self.0.entry(ticket).or_default();
        assert!(seen.failed.is_none(), "an event after the last");
        match event {
            Event::Begun => assert!(!std::mem::replace(&mut seen.has_begun, true)),
            Event::Started { cached } => {
                assert!(seen.has_begun && seen.cached.replace(cached).is_none());
            }
            Event::Token { choice, token } => {
                assert!(seen.cached.is_some() && !seen.finished.contains_key(&choice));
                seen.tokens.entry(choice).or_default().push(token);
            }
            Event::Finished { choice, reason } => {
                assert!(seen.finished.insert(choice, reason).is_none());
            }
            Event::Failed(error) => seen.failed = Some(error.code()),
            other => panic!("{other:?}"),
        }
    }

    fn tokens(&self, ticket: Ticket, choice: usize) -> &[SampledToken] {
        self.0.get(&ticket).and_then(|seen| seen.tokens.get(&choice)).map_or(&[], |tokens| tokens)
    }
}

fn submission(model: &Model, of: &Asked, index: usize) -> Submission {
    let prompt = prompt(model, of.shared, of.own, of.salt);
    let mut request = request(index as u64, of.answer);
    request.draft = if of.drafts { Draft::Fixed(4) } else { Draft::Off };
    request.logprobs = of.logprobs.then_some(2);
    request.sampling.repetition_penalty = if of.drafts { 1.2 } else { 1.0 };
    request.constraint = of.odd.map(|odd| Box::new(odd) as Box<dyn Constraint>);
    let mut submission = Submission::new(prompt, request);
    (submission.choices, submission.context) = (of.choices, Some(CONTEXT));
    submission.client = Client { address: u64::from(of.salt % 2), user: u64::from(of.salt % 3) };
    submission
}

#[derive(Debug, Clone)]
struct Asked {
    shared: usize,
    own: usize,
    salt: u32,
    answer: usize,
    choices: usize,
    drafts: bool,
    logprobs: bool,
    /// Passes before it arrives.
    after: usize,
    /// Passes after its arrival until it is cancelled.
    cancelled: Option<usize>,
    /// A choice that is stopped, and after how many of its tokens.
    stopped: Option<(usize, usize)>,
    odd: Option<Odd>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let prompt = (prop_oneof![Just(0usize), Just(40), Just(150)], 1usize..60, 0u32..9);
    let answer = (prop_oneof![4 => 0usize..20, 1 => 100usize..140], 1usize..4);
    let times = (0usize..12, prop::option::weighted(0.2, 0usize..10));
    let stopped = prop::option::weighted(0.3, (0usize..3, 1usize..10));
    let trouble = prop_oneof![Just(Trouble::None), Just(Trouble::NoId), Just(Trouble::Refuses)];
    let panics = prop_oneof![Just(Trouble::PanicsBefore), Just(Trouble::PanicsAfter)];
    let odd = (prop_oneof![2 => trouble, 1 => panics], 0usize..6)
        .prop_map(|(trouble, after)| Odd { trouble, after, taken: 0 });
    let ends = (stopped, prop::option::weighted(0.4, odd));
    (prompt, answer, any::<[bool; 2]>(), times, ends).prop_map(
        |(prompt, (answer, choices), [drafts, logprobs], (after, cancelled), (stopped, odd))| {
            let (shared, own, salt) = prompt;
            Asked {
                shared,
                own,
                salt,
                answer,
                choices,
                drafts,
                logprobs,
                after,
                cancelled,
                stopped,
                odd,
            }
        },
    )
}

/// Every second id, until there is trouble after some ids.
#[derive(Debug, Clone, Copy)]
struct Odd {
    trouble: Trouble,
    after: usize,
    taken: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    None,
    NoId,
    Refuses,
    PanicsBefore,
    PanicsAfter,
}

impl Constraint for Odd {
    fn allowed(&mut self, allowed: &mut IdSet) -> Result<bool> {
        let is_time = self.taken >= self.after;
        assert!(self.trouble != Trouble::PanicsBefore || !is_time, "on purpose");
        if self.trouble != Trouble::NoId || !is_time {
            (0..200).for_each(|i| allowed.insert(2 * i + 1));
        }
        Ok(true)
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        assert_eq!(id % 2, 1);
        self.taken += 1;
        let is_time = self.taken > self.after;
        assert!(self.trouble != Trouble::PanicsAfter || !is_time, "on purpose");
        match self.trouble {
            Trouble::Refuses if is_time => Err(Error::Ids("refused on purpose".to_owned())),
            _ => Ok(()),
        }
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(*self)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Arrivals, ends, stops and cancellations at any time, answers to one prompt, drafts, constraints that fail and panic, the cache,
    /// and too little memory for all do not change what is sampled. All memory is returned.
    #[test]
    fn answers_are_those_of_each_prompt_alone(
        all in prop::collection::vec(asked(), 1..7),
        (max_sequences, prompt_tokens) in (3usize..6, 1usize..80),
        (is_small, caches, which) in (any::<bool>(), any::<bool>(), 0usize..2),
    ) {
        let reference = &MODELS[which];
        let model = &OWN[usize::from(is_small)][which];
        let mut options = BatchOptions::default();
        (options.max_sequences, options.prompt_tokens) = (max_sequences, prompt_tokens);
        options.cache_bytes = if caches { model.kv_pool().page_bytes() * 4 } else { 0 };
        let before = model.kv_pool().used_bytes();
        let mut batch = Batch::new(model, options).unwrap();
        let (mut log, mut tickets) = (Log::default(), Vec::<(usize, Ticket)>::new());
        let mut stopped = HashMap::new();
        for pass in 0.. {
            prop_assert!(pass < 20_000, "it never ends");
            for (index, asked) in all.iter().enumerate() {
                if asked.after == pass {
                    let ticket = batch.submit(submission(model, asked, index)).unwrap();
                    tickets.push((index, ticket));
                }
                if asked.cancelled.is_some_and(|later| asked.after + later == pass) {
                    let &(_, ticket) = tickets.iter().find(|(other, _)| *other == index).unwrap();
                    batch.cancel(ticket);
                    log.0.remove(&ticket);
                }
            }
            if pass > 12 && batch.is_idle() {
                break;
            }
            batch.pass(&mut |ticket, event| log.take(ticket, event));
            for &(index, ticket) in &tickets {
                let Some((choice, after)) = all[index].stopped else { continue };
                let Some(seen) = log.0.get(&ticket) else { continue };
                let goes_on = seen.failed.is_none() && !seen.finished.contains_key(&choice);
                let count = log.tokens(ticket, choice).len();
                if goes_on && count >= after {
                    // The second time does nothing.
                    batch.stop(ticket, choice);
                    prop_assert_eq!(*stopped.entry((ticket, choice)).or_insert(count), count);
                }
            }
        }
        for (index, ticket) in tickets {
            let asked = &all[index];
            let submission = submission(reference, asked, index);
            let Some(seen) = log.0.get(&ticket) else {
                prop_assert!(asked.cancelled.is_some());
                continue;
            };
            let mut failures = Vec::new();
            for choice in 0..asked.choices {
                let (mut tokens, end) = try_alone(reference, &submission, choice);
                let seen_tokens = log.tokens(ticket, choice);
                if let Some(&count) = stopped.get(&(ticket, choice)) {
                    tokens.truncate(count);
                    prop_assert!(!seen.finished.contains_key(&choice));
                } else if seen.failed.is_some() {
                    // Some of them have failed, before or after this one ended.
                    tokens.truncate(seen_tokens.len());
                    failures.extend(end.err());
                } else {
                    prop_assert_eq!(seen.finished.get(&choice).copied().ok_or("none"), end);
                }
                prop_assert_eq!(seen_tokens, tokens);
            }
            prop_assert_eq!(seen.failed.is_some(), !failures.is_empty());
            prop_assert!(seen.failed.is_none_or(|code| failures.contains(&code)));
        }
        let stats = batch.stats();
        prop_assert_eq!((stats.running, stats.waiting, stats.paused), (0, 0, 0));
        prop_assert_eq!(model.kv_pool().used_bytes() - before, stats.cache_bytes);
        drop(batch);
        prop_assert_eq!(model.kv_pool().used_bytes(), before);
    }
}

/// The constraint refuses the last id that the limit allows.
#[test]
fn an_answer_with_all_its_ids_has_not_failed() {
    let model = &MODELS[0];
    let mut submission = simple(model, 5, 1, 3, 0);
    let odd = Odd { trouble: Trouble::Refuses, after: 2, taken: 0 };
    submission.request.constraint = Some(Box::new(odd));
    let mut batch = Batch::new(model, BatchOptions::default()).unwrap();
    let (tokens, end) = try_alone(model, &submission, 0);
    let ticket = batch.submit(submission).unwrap();
    let mut log = Log::default();
    while !batch.is_idle() {
        batch.pass(&mut |ticket, event| log.take(ticket, event));
    }
    assert_eq!((tokens.len(), end), (3, Ok(FinishReason::Length)));
    assert_eq!(log.tokens(ticket, 0), tokens);
    assert_eq!(log.0[&ticket].finished.get(&0), Some(&FinishReason::Length));
}

/// Submits, and counts the passes until each submission has its first id and its end.
fn passes(batch: &mut Batch, submissions: Vec<Submission>) -> (Vec<[u64; 2]>, Log) {
    let tickets: Vec<_> = submissions.into_iter().map(|s| batch.submit(s).unwrap()).collect();
    let (mut log, mut times) = (Log::default(), HashMap::new());
    while !batch.is_idle() {
        let pass = batch.stats().passes + 1;
        batch.pass(&mut |ticket, event| {
            let times = times.entry(ticket).or_insert([0; 2]);
            match event {
                Event::Started { .. } => times[0] = pass,
                _ => times[1] = pass,
            }
            log.take(ticket, event);
        });
    }
    (tickets.iter().map(|ticket| times[ticket]).collect(), log)
}

fn simple(model: &Model, own: usize, salt: u32, answer: usize, client: u64) -> Submission {
    let mut request = request(3, answer);
    (request.draft, request.stop_ids) = (Draft::Off, Vec::new());
    let mut submission = Submission::new(prompt(model, 0, own, salt), request);
    submission.client = Client { address: client, user: 0 };
    submission.context = Some(CONTEXT);
    submission
}

/// Prompts of a bidirectional model take turns with the answers that wait for them.
#[test]
fn answers_have_their_share_beside_bidirectional_prompts() {
    let model = &MODELS[1];
    let mut options = BatchOptions::default();
    options.answer_share = 0.5;
    let mut batch = Batch::new(model, options.clone()).unwrap();
    batch.submit(simple(model, 5, 1, 400, 1)).unwrap();
    batch.pass(&mut |_, _| {});
    let prompts = (2..6).map(|salt| simple(model, 300, salt, 1, 2));
    let tickets: Vec<_> = prompts.map(|prompt| batch.submit(prompt).unwrap()).collect();
    // The time that answers must have for themselves before the next prompt.
    let (mut begun, mut owed) = (0, Duration::ZERO);
    while begun < tickets.len() {
        let before = batch.stats();
        batch.pass(&mut |ticket, event| {
            begun +=
                usize::from(tickets.contains(&ticket) && matches!(event, Event::Started { .. }));
        });
        let stats = batch.stats();
        match stats.prompt_tokens - before.prompt_tokens {
            0 => owed = owed.saturating_sub(stats.last_pass),
            count => {
                // One prompt at a time, and not before its time.
                assert!(count == 302 && owed.is_zero(), "{count}, {owed:?}");
                owed = stats.last_pass;
            }
        }
        assert!(stats.longest_pass >= stats.last_pass);
    }
    options.answer_share = 1.0;
    assert_eq!(Batch::new(model, options).err().unwrap().code(), "setting");
}

#[test]
fn an_answer_that_is_stopped_frees_its_memory() {
    let model = &open("chatglm2-6b-tiny/int4", None);
    for cache_pages in [0, 20] {
        let mut options = BatchOptions::default();
        options.cache_bytes = model.kv_pool().page_bytes() * cache_pages;
        let mut batch = Batch::new(model, options).unwrap();
        let mut many = simple(model, 100, 1, 60, 0);
        many.choices = 3;
        let ticket = batch.submit(many.clone()).unwrap();
        // It has no ids yet.
        batch.stop(ticket, 0);
        let mut log = Log::default();
        // In the second pass, each writes to a page of its own.
        for _ in 0..2 {
            batch.pass(&mut |ticket, event| log.take(ticket, event));
        }
        let used = model.kv_pool().used_bytes();
        batch.stop(ticket, 1);
        batch.stop(ticket, 7);
        let stats = batch.stats();
        assert_eq!(stats.running, 2);
        match cache_pages {
            0 => assert!(model.kv_pool().used_bytes() < used),
            _ => assert!(stats.cache_bytes > 0),
        }
        while !batch.is_idle() {
            batch.pass(&mut |ticket, event| log.take(ticket, event));
        }
        assert_eq!(log.tokens(ticket, 1).len(), 2);
        for choice in [0, 2] {
            assert_eq!(log.tokens(ticket, choice), alone(model, &many, choice).0);
        }
    }
}

#[test]
fn a_client_does_not_wait_for_all_requests_of_another() {
    let model = &MODELS[0];
    let mut options = BatchOptions::default();
    options.max_sequences = 2;
    let mut batch = Batch::new(model, options).unwrap();
    let mut all: Vec<_> = (0..10).map(|i| simple(model, 5, i, 8, 1)).collect();
    all.push(simple(model, 5, 20, 8, 2));
    let (times, _) = passes(&mut batch, all);
    // The other's first two requests run already; the third comes after this one. Those of one client begin in order.
    assert!(times[10][0] < times[2][0], "{times:?}");
    assert!(times[..10].windows(2).all(|pair| pair[0][0] <= pair[1][0]), "{times:?}");
}

#[test]
fn a_client_does_not_wait_for_long_answers_of_another() {
    for model in &*MODELS {
        let mut options = BatchOptions::default();
        options.max_sequences = 3;
        let mut batch = Batch::new(model, options).unwrap();
        let first: Vec<_> = (0..4).map(|i| simple(model, 20, i, 60, 1)).collect();
        let other = simple(model, 20, 9, 10, 2);
        let mut log = Log::default();
        let tickets: Vec<_> = first.iter().map(|s| batch.submit(s.clone()).unwrap()).collect();
        for _ in 0..10 {
            batch.pass(&mut |ticket, event| log.take(ticket, event));
        }
        assert_eq!((batch.stats().running, batch.stats().waiting), (3, 1));
        let mut many = other.clone();
        (many.choices, many.client.address) = (2, 3);
        let (late, many) = (batch.submit(other.clone()).unwrap(), batch.submit(many).unwrap());
        batch.pass(&mut |ticket, event| log.take(ticket, event));
        // One answer has given its place. Nobody gives two places up to keep one.
        let stats = batch.stats();
        assert_eq!((stats.running, stats.paused, stats.waiting), (3, 1, 2));
        assert!(log.0[&late].tokens[&0].len() == 1 && !log.0.contains_key(&many));
        let before = stats.prompt_tokens;
        while !batch.is_idle() {
            batch.pass(&mut |ticket, event| log.take(ticket, event));
        }
        // It went on where it was: only the prompts of the two that waited were computed.
        assert!(batch.stats().prompt_tokens - before <= 2 * first[0].prompt.len() as u64);
        for (submission, ticket) in first.iter().chain([&other]).zip(tickets.iter().chain([&late]))
        {
            assert_eq!(log.0[ticket].tokens[&0], alone(model, submission, 0).0);
        }
        assert_eq!(log.0[&many].finished.len(), 2);
    }
}

#[test]
fn names_of_users_give_an_address_no_more_than_its_share() {
    let model = &MODELS[0];
    let mut options = BatchOptions::default();
    options.max_sequences = 4;
    let mut batch = Batch::new(model, options).unwrap();
    let request = |salt: u64, address, user| {
        let mut request = simple(model, 20, salt as u32, 60, address);
        request.client.user = user;
        request
    };
    let honest: Vec<_> = (0..4).map(|i| request(i, 1, 0)).collect();
    // Another name with each request.
    let forging: Vec<_> = (0..6).map(|i| request(10 + i, 2, i)).collect();
    let log = &mut Log::default();
    let submit = |batch: &mut Batch, all: &[Submission]| -> Vec<_> {
        all.iter().map(|submission| batch.submit(submission.clone()).unwrap()).collect()
    };
    let pass = |batch: &mut Batch, log: &mut Log| {
        batch.pass(&mut |ticket, event| log.take(ticket, event));
    };
    let first = submit(&mut batch, &honest);
    (0..3).for_each(|_| pass(&mut batch, log));
    let second = submit(&mut batch, &forging);
    (0..3).for_each(|_| pass(&mut batch, log));
    // Half of the places for each address.
    let has_begun = |log: &Log, ticket| log.0.contains_key(ticket);
    assert_eq!(second.iter().filter(|ticket| has_begun(log, ticket)).count(), 2);
    assert_eq!((batch.stats().running, batch.stats().paused), (4, 2));
    // A second user of the first address takes the place of the other user there.
    let late = batch.submit(request(20, 1, 1)).unwrap();
    pass(&mut batch, log);
    assert!(has_begun(log, &late));
    assert_eq!((batch.stats().running, batch.stats().paused), (4, 3));
    while !batch.is_idle() {
        pass(&mut batch, log);
    }
    for (submission, ticket) in honest.iter().chain(&forging).zip(first.iter().chain(&second)) {
        assert_eq!(log.0[ticket].tokens[&0], alone(model, submission, 0).0);
    }
}

#[test]
fn many_choices_are_not_overtaken() {
    let model = &MODELS[0];
    let mut options = BatchOptions::default();
    options.max_sequences = 2;
    let mut batch = Batch::new(model, options).unwrap();
    let mut all: Vec<_> = (0..8).map(|i| simple(model, 5, i, 3 + i as usize, 1)).collect();
    all[2].choices = 2;
    let (times, _) = passes(&mut batch, all);
    assert!(times.windows(2).all(|pair| pair[0][0] <= pair[1][0]), "{times:?}");
}

#[test]
fn few_who_need_fewer_places_overtake_many_choices() {
    let model = &MODELS[0];
    let mut options = BatchOptions::default();
    options.max_sequences = 4;
    let mut batch = Batch::new(model, options).unwrap();
    let mut log = Log::default();
    let mut submit = |submission: Submission| batch.submit(submission).unwrap();
    let long = submit(simple(model, 5, 0, 400, 1));
    let mut many = simple(model, 5, 1, 3, 2);
    many.choices = 4;
    let many = submit(many);
    let few: Vec<_> =
        (0..9).map(|i| submit(simple(model, 5, 2 + i, 3, 3 + u64::from(i)))).collect();
    batch.pass(&mut |ticket, event| log.take(ticket, event));
    // The places beside the long answer are not left free.
    let has_begun = |log: &Log, ticket| log.0.get(ticket).is_some_and(|seen| seen.has_begun);
    let begun = |log: &Log| few.iter().map(|ticket| has_begun(log, ticket)).collect::<Vec<_>>();
    assert_eq!(
        (begun(&log), has_begun(&log, &many)),
        (vec![true, true, true, false, false, false, false, false, false], false)
    );
    while log.0[&long].finished.is_empty() {
        batch.pass(&mut |ticket, event| log.take(ticket, event));
    }
    // They end long before, but the others wait.
    assert_eq!(begun(&log).into_iter().filter(|&begun| begun).count(), 4);
    batch.pass(&mut |ticket, event| log.take(ticket, event));
    assert!(has_begun(&log, &many));
    assert_eq!(begun(&log).into_iter().filter(|&begun| begun).count(), 4);
    while !batch.is_idle() {
        batch.pass(&mut |ticket, event| log.take(ticket, event));
    }
    assert!(begun(&log).into_iter().all(|begun| begun));
}

#[test]
fn room_for_a_prompt_is_not_made_by_forgetting_its_beginning() {
    let budget = MODELS[0].kv_pool().page_bytes() * 6;
    let model = &open("chatglm2-6b-tiny/int4", Some(budget));
    let mut options = BatchOptions::default();
    options.cache_bytes = model.kv_pool().page_bytes() * 4;
    let mut batch = Batch::new(model, options).unwrap();
    // Of six pages, the cache has two, and the answer that runs one. Four more would be needed without the cache.
    passes(&mut batch, vec![simple(model, 250, 1, 3, 0)]);
    batch.submit(simple(model, 20, 2, 30, 1)).unwrap();
    batch.pass(&mut |_, _| {});
    let again = batch.submit(simple(model, 250, 1, 3, 2)).unwrap();
    let mut found = None;
    while !batch.is_idle() {
        batch.pass(&mut |ticket, event| match event {
            Event::Started { cached } if ticket == again => found = Some(cached),
            _ => {}
        });
    }
    assert_eq!(found, Some(249));
}

#[test]
fn answers_go_on_while_a_long_prompt_is_computed() {
    let model = &MODELS[0];
    let mut options = BatchOptions::default();
    options.prompt_tokens = 32;
    let mut batch = Batch::new(model, options).unwrap();
    let answer = batch.submit(simple(model, 5, 1, 40, 1)).unwrap();
    batch.pass(&mut |_, _| {});
    let long = batch.submit(simple(model, 320, 2, 1, 2)).unwrap();
    let short = batch.submit(simple(model, 8, 3, 1, 3)).unwrap();
    let (mut ids, mut ends) = (0, Vec::new());
    while !ends.contains(&long) {
        batch.pass(&mut |ticket, event| match event {
            Event::Token { .. } if ticket == answer => ids += 1,
            Event::Finished { .. } => ends.push(ticket),
            _ => {}
        });
    }
    // Ten passes of 32 tokens, each with one id of the answer; the short prompt took one of them, and no longer.
    assert_eq!((ids, &ends[..]), (11, &[short, long][..]));
}

#[test]
fn a_common_beginning_is_computed_once() {
    let model = &MODELS[0];
    let with = |own, salt| {
        let mut submission = simple(model, own, salt, 3, 0);
        submission.prompt = prompt(model, 300, own, salt);
        submission
    };
    let mut options = BatchOptions::default();
    options.cache_bytes = model.kv_pool().page_bytes() * 20;
    let mut batch = Batch::new(model, options).unwrap();
    // Two arrive together: the second waits for the beginning that the first computes.
    let (_, log) = passes(&mut batch, vec![with(10, 1), with(10, 2)]);
    let cached = |log: &Log| {
        let mut cached: Vec<_> = log.0.values().filter_map(|seen| seen.cached).collect();
        cached.sort_unstable();
        cached
    };
    assert_eq!(cached(&log), [0, 300]);
    // A later one finds it in the cache, also after many others of its own.
    for salt in 3..8 {
        let (_, log) = passes(&mut batch, vec![with(10, salt)]);
        assert_eq!(cached(&log), [300]);
    }
    let stats = batch.stats();
    assert!(stats.cache_bytes > 0 && stats.cache_bytes <= model.kv_pool().page_bytes() * 20);
    assert_eq!(stats.cached_tokens, 6 * 300);
    // The whole prompt again: all but its last token.
    let (_, log) = passes(&mut batch, vec![with(10, 3)]);
    assert_eq!(cached(&log), [309]);
}

#[test]
fn a_bidirectional_prompt_is_reused_if_it_is_the_same() {
    let model = &MODELS[1];
    let mut options = BatchOptions::default();
    options.cache_bytes = model.kv_pool().page_bytes() * 20;
    let mut batch = Batch::new(model, options).unwrap();
    let cached = |batch: &mut Batch, own| {
        let (_, log) = passes(batch, vec![simple(model, own, 1, 3, 0)]);
        log.0.values().next().unwrap().cached.unwrap()
    };
    assert_eq!(cached(&mut batch, 30), 0);
    assert_eq!(cached(&mut batch, 30), 31);
    assert_eq!(cached(&mut batch, 29), 0);
}

#[test]
fn what_does_not_fit_alone_fails_and_others_go_on() {
    let model = &small(0);
    let mut batch = Batch::new(model, BatchOptions::default()).unwrap();
    // Six pages; there are five.
    let mut large = simple(model, 500, 1, 200, 0);
    large.context = Some(700);
    let (large, small) = (batch.submit(large), batch.submit(simple(model, 100, 1, 60, 0)));
    let mut ends = HashMap::new();
    while !batch.is_idle() {
        batch.pass(&mut |ticket, event| match event {
            Event::Failed(error) => drop(ends.insert(ticket, error.code().to_owned())),
            Event::Finished { reason, .. } => drop(ends.insert(ticket, reason.name().to_owned())),
            _ => {}
        });
    }
    assert_eq!((&ends[&large.unwrap()][..], &ends[&small.unwrap()][..]), ("kv_budget", "length"));
    assert_eq!(model.kv_pool().used_bytes(), 0);
}

#[test]
fn wrong_submissions_are_refused() {
    let model = &MODELS[0];
    let mut options = BatchOptions::default();
    options.max_sequences = 2;
    let mut batch = Batch::new(model, options.clone()).unwrap();
    let good = simple(model, 5, 1, 1, 0);
    let mut refused = |change: fn(&mut Submission)| {
        let mut submission = good.clone();
        change(&mut submission);
        batch.submit(submission).unwrap_err().code()
    };
    assert_eq!(refused(|s| s.prompt = Vec::new()), "ids");
    assert_eq!(refused(|s| s.prompt = vec![1 << 30]), "ids");
    assert_eq!(refused(|s| s.choices = 0), "setting");
    assert_eq!(refused(|s| s.choices = 3), "setting");
    assert_eq!(refused(|s| s.context = Some(0)), "setting");
    assert_eq!(refused(|s| s.context = Some(4)), "context_full");
    assert_eq!(refused(|s| s.request.sampling.temperature = -1.0), "setting");
    assert_eq!(refused(|s| s.request.sampling.presence_penalty = 2.5), "setting");
    let mut batch = Batch::new(&MODELS[1], options.clone()).unwrap();
    // There is no blank to fill.
    let sop = MODELS[1].config().special.sop.unwrap();
    let submission = Submission::new(vec![12, sop], request(1, 1));
    assert_eq!(batch.submit(submission).unwrap_err().code(), "ids");
    options.max_sequences = 0;
    assert_eq!(Batch::new(model, options).err().unwrap().code(), "setting");
}

/// Ids in ascending order.
#[derive(Debug, Clone)]
struct Ascending(u32);

impl Constraint for Ascending {
    fn allowed(&mut self, allowed: &mut IdSet) -> Result<bool> {
        (self.0..self.0 + 3).for_each(|id| allowed.insert(id));
        // At first every id may follow.
        Ok(self.0 > 0)
    }

    fn accept(&mut self, id: u32) -> Result<()> {
        self.0 = id + 1;
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn constraints_restrict_each_answer_alone() {
    for model in &*MODELS {
        let mut constrained = simple(model, 20, 1, 6, 0);
        constrained.request.constraint = Some(Box::new(Ascending(0)));
        constrained.choices = 2;
        let mut batch = Batch::new(model, BatchOptions::default()).unwrap();
        let all = vec![constrained.clone(), simple(model, 20, 2, 6, 0)];
        let (_, log) = passes(&mut batch, all);
        let seen = log.0.values().find(|seen| seen.finished.len() == 2).unwrap();
        for choice in 0..2 {
            let tokens = &seen.tokens[&choice];
            assert!(tokens.windows(2).all(|pair| (1..4).contains(&(pair[1].id - pair[0].id))));
            assert_eq!(*tokens, alone(model, &constrained, choice).0);
        }
    }
}

#[test]
fn a_cache_is_saved_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache");
    let model = &open("chatglm2-6b-tiny/int4", None);
    let mut options = BatchOptions::default();
    options.cache_bytes = model.kv_pool().page_bytes() * 20;
    let new = |options: &BatchOptions| Batch::new(model, options.clone()).unwrap();
    let with = |own, salt| {
        let mut submission = simple(model, own, salt, 3, 0);
        submission.prompt = prompt(model, 300, own, salt);
        submission
    };
    let mut batch = new(&options);
    // Two with a common beginning, whose pages are written once, and another one.
    passes(&mut batch, vec![with(10, 1), with(150, 2), simple(model, 130, 3, 3, 0)]);
    batch.save_cache(&file, &CancelToken::default()).unwrap();
    let bytes = batch.stats().cache_bytes;
    let size = std::fs::metadata(&file).unwrap().len();
    assert!((bytes..bytes + 10_000).contains(&size), "{size} bytes for {bytes}");
    let mut restored = new(&options);
    assert_eq!(restored.load_cache(&file).unwrap(), 312 + 452 + 132);
    assert_eq!(restored.stats().cache_bytes, bytes);
    for (submission, expected) in [(with(10, 7), 300), (with(150, 2), 449), (with(10, 1), 309)] {
        let (_, log) = passes(&mut restored, vec![submission.clone()]);
        let seen = log.0.values().next().unwrap();
        assert_eq!(seen.cached, Some(expected));
        assert_eq!(seen.tokens[&0], alone(model, &submission, 0).0);
    }
    drop((batch, restored));

    // Every damage is found, and a file of another model is not taken. Nothing stays in memory.
    let before = model.kv_pool().used_bytes();
    let good = std::fs::read(&file).unwrap();
    let refused = |batch: &mut Batch, content: &[u8]| {
        std::fs::write(&file, content).unwrap();
        let error = batch.load_cache(&file).unwrap_err();
        assert_eq!(batch.stats().cache_bytes, 0);
        // What does not begin as such a file is something else.
        let is_cache = b"glm-prefix-cache".starts_with(&content[..content.len().min(16)]);
        assert_eq!(error.code(), if is_cache { "cache" } else { "file" }, "{error}");
        error.to_string()
    };
    let mut batch = new(&options);
    for at in (0..200).chain((200..good.len()).step_by(good.len() / 150)) {
        let mut damaged = good.clone();
        damaged[at] ^= 1 << (at % 8);
        refused(&mut batch, &damaged);
        refused(&mut batch, &good[..at]);
    }
    refused(&mut batch, &[&good[..], b"x"].concat());
    options.cache_bytes = model.kv_pool().page_bytes();
    assert!(refused(&mut new(&options), &good).contains("raise its limit"));
    let float = with_floats("chatglm2-6b-tiny/int4");
    let mut other = Batch::new(&float, BatchOptions::default()).unwrap();
    assert!(refused(&mut other, &good).contains("belongs to another model"));
    let mut bidirectional = Batch::new(&MODELS[1], BatchOptions::default()).unwrap();
    let error = bidirectional.load_cache(&file).unwrap_err();
    assert!(error.code() == "file" && error.to_string().contains("bidirectional"));
    assert_eq!(model.kv_pool().used_bytes(), before);
}

fn with_floats(name: &str) -> Model {
    let options = with(|options: &mut Options| options.activations = Some(Activations::F32));
    Model::open(fixture(name), &options).unwrap()
}
