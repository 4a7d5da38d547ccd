//! The engine with a causal model, which has no texts.

use std::fs;
use std::sync::OnceLock;

use glm_model::{Constraint, IdSet, Options, Request, Sampling};

use super::*;

fn model() -> Model {
    let folder =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/models/chatglm2-6b-tiny/int4");
    let mut options = Options::default();
    options.threads = Some(1);
    Model::open(folder, &options).unwrap()
}

fn start(model: &Model, file: Option<PathBuf>) -> Result<Engine> {
    let mut options = BatchOptions::default();
    (options.max_sequences, options.cache_bytes) = (4, 1 << 30);
    Engine::start(model, options, 8, file, Metrics::new(), || {})
}

fn submission(tokens: usize) -> Submission {
    let mut request = Request::new(Sampling::greedy());
    request.max_new_tokens = Some(tokens);
    Submission::new((0..200).map(|i| 10 + i * i % 50).collect(), request)
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// The tokens of the first choice, the choices that ended, the cached tokens, and whether it failed.
fn events(mut events: Events) -> (usize, usize, usize, bool) {
    let (mut tokens, mut ends, mut reused, mut has_failed) = (0, 0, 0, false);
    while let Some((_, event)) = wait(events.recv()).unwrap() {
        match event {
            Event::Started { cached } => reused = cached,
            Event::Token { choice: 0, .. } => tokens += 1,
            Event::Token { .. } => {}
            Event::Finished { .. } => ends += 1,
            _ => has_failed = true,
        }
    }
    (tokens, ends, reused, has_failed)
}

/// Allows every id, but the one after so many waits until its gate is open. With it waits the engine.
#[derive(Debug, Clone)]
struct Gates {
    ids: usize,
    gates: Vec<(usize, Arc<OnceLock<()>>)>,
}

impl Constraint for Gates {
    fn allowed(&mut self, _: &mut IdSet) -> glm_model::Result<bool> {
        let gate = self.gates.iter().find(|(ids, _)| *ids == self.ids);
        if let Some((_, gate)) = gate {
            gate.wait();
        }
        Ok(false)
    }

    fn accept(&mut self, _: u32) -> glm_model::Result<()> {
        self.ids += 1;
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn one_choice_can_be_stopped() {
    let engine = start(&model(), None).unwrap();
    let free = engine.capacity.free();
    let [is_stopped, is_seen] = [(); 2].map(|()| Arc::new(OnceLock::new()));
    let gates = vec![(10, Arc::clone(&is_stopped)), (20, Arc::clone(&is_seen))];
    let mut many = submission(30);
    many.choices = 2;
    many.request.constraint = Some(Box::new(Gates { ids: 0, gates }));
    let mut events = engine.submit(vec![many]).unwrap();
    assert_eq!(engine.capacity.free(), free - 2);
    let (mut tokens, mut ended) = ([0; 2], vec![]);
    while let Some((_, event)) = wait(events.recv()).unwrap() {
        match event {
            Event::Token { choice, .. } => tokens[choice] += 1,
            Event::Finished { choice, .. } => ended.push(choice),
            _ => {}
        }
        match tokens {
            // The engine waits for the first gate, or comes to it.
            [_, 5] if is_stopped.get().is_none() => {
                events.stop(0, 1);
                is_stopped.set(()).unwrap();
            }
            // Now it waits for the second, and only the other answer has a place.
            [20, _] if is_seen.get().is_none() => {
                assert_eq!(engine.capacity.free(), free - 1);
                is_seen.set(()).unwrap();
            }
            _ => {}
        }
    }
    // It is stopped before the pass after the first gate.
    assert!(tokens[0] == 30 && (5..=11).contains(&tokens[1]), "{tokens:?}");
    assert_eq!((ended, engine.capacity.free()), (vec![0], free));
}

/// An answer of a client that has begun, and that the engine waits for until the gate is open.
fn held(engine: &Engine, client: Client) -> (Events, Arc<OnceLock<()>>) {
    let gate = Arc::new(OnceLock::new());
    let mut held = submission(3);
    held.client = client;
    held.request.constraint = Some(Box::new(Gates { ids: 0, gates: vec![(1, Arc::clone(&gate))] }));
    let mut events = engine.submit(vec![held]).unwrap();
    while !matches!(wait(events.recv()), Ok(Some((_, Event::Token { .. })))) {}
    (events, gate)
}

fn client(address: u64) -> Client {
    Client { address, user: 0 }
}

#[test]
fn a_job_that_waits_gives_way_to_a_client_with_fewer_places() {
    let engine = start(&model(), None).unwrap();
    let of = |address, choices| {
        let mut submission = submission(2);
        (submission.client, submission.choices) = (client(address), choices);
        engine.submit(vec![submission])
    };
    let (first, gate) = held(&engine, client(1));
    // They take all other places while the engine is busy.
    let [kept, second, mut last] = [4, 4, 3].map(|choices| of(1, choices).unwrap());
    assert_eq!((engine.capacity.free(), of(1, 1).err().unwrap().status().as_u16()), (0, 429));
    let other = of(2, 4).unwrap();
    assert_eq!(of(3, 4).err().unwrap().status().as_u16(), 429);
    gate.set(()).unwrap();
    let mut refused = second;
    let status = |end: ApiResult<_>| end.err().unwrap().status().as_u16();
    assert_eq!(status(wait(last.recv()).map(drop)), 429);
    assert_eq!(status(wait(refused.recv()).map(drop)), 429);
    assert_eq!([kept, other, first].map(|answers| events(answers).1), [4, 4, 1]);
    drop((last, refused));
    assert_eq!(engine.capacity.free(), 12);
}

#[test]
fn places_of_answers_one_after_the_other_are_kept_between_them() {
    let engine = start(&model(), None).unwrap();
    let places = engine.places(client(1), 1).unwrap();
    let asked = |submission: Submission| engine.submit_in(places.clone(), vec![submission]);
    assert_eq!(events(asked(submission(2)).unwrap()).1, 1);
    // All other places are taken, and another client wants more.
    let (_held, gate) = held(&engine, client(1));
    let mut many = submission(2);
    (many.client, many.choices) = (client(2), 1);
    let others: Vec<_> = (0..10).map(|_| engine.submit(vec![many.clone()]).unwrap()).collect();
    assert_eq!(engine.capacity.free(), 0);
    let next = asked(submission(2)).unwrap();
    many.client = client(3);
    let late = engine.submit(vec![many]).unwrap();
    gate.set(()).unwrap();
    assert_eq!(events(next).1, 1);
    assert_eq!(events(late).1, 1);
    let refused = others.into_iter().filter_map(|mut events| wait(events.recv()).err()).count();
    assert_eq!(refused, 1);
}

#[test]
fn an_answer_that_is_stopped_tells_how_long_answers_take() {
    let engine = start(&model(), None).unwrap();
    assert_eq!(engine.shared.retry_after(), 1);
    let is_late = Arc::new(OnceLock::new());
    let gates = vec![(1, Arc::clone(&is_late))];
    let mut late = submission(1000);
    late.request.constraint = Some(Box::new(Gates { ids: 0, gates }));
    let mut events = engine.submit(vec![late]).unwrap();
    let begun = Instant::now();
    while !matches!(wait(events.recv()).unwrap(), Some((_, Event::Token { .. }))) {}
    thread::sleep(Duration::from_millis(2100).saturating_sub(begun.elapsed()));
    events.stop(0, 0);
    is_late.set(()).unwrap();
    while wait(events.recv()).unwrap().is_some() {}
    assert!(engine.shared.retry_after() >= 2, "{}", engine.shared.retry_after());
}

#[derive(Debug, Clone)]
struct Bad {
    panics: bool,
}

impl Constraint for Bad {
    fn allowed(&mut self, _: &mut IdSet) -> glm_model::Result<bool> {
        assert!(!self.panics, "on purpose");
        Err(glm_model::Error::Grammar("on purpose".to_owned()))
    }

    fn accept(&mut self, _: u32) -> glm_model::Result<()> {
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn a_constraint_that_fails_or_panics_fails_its_answer_alone() {
    let engine = start(&model(), None).unwrap();
    let other = engine.submit(vec![submission(100)]).unwrap();
    for panics in [true, false] {
        let mut bad = submission(10);
        bad.request.constraint = Some(Box::new(Bad { panics }));
        let (tokens, ends, _, has_failed) = events(engine.submit(vec![bad]).unwrap());
        assert_eq!((tokens, ends, has_failed), (0, 0, true));
    }
    let (tokens, ends, _, has_failed) = events(other);
    assert_eq!((tokens, ends, has_failed), (100, 1, false));
}

#[test]
fn a_cache_file_that_cannot_be_used_is_replaced_if_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache");
    let model = model();
    let answered = |engine: &Engine| {
        let cached = events(engine.submit(vec![submission(2)]).unwrap()).2;
        wait(engine.end(&CancelToken::default())).unwrap();
        cached
    };
    assert_eq!(answered(&start(&model, Some(file.clone())).unwrap()), 0);
    assert_eq!(answered(&start(&model, Some(file.clone())).unwrap()), 199);
    let good = fs::read(&file).unwrap();
    let said = || {
        let mut batch = Batch::new(&model, BatchOptions::default()).unwrap();
        cache_file::read(&mut batch, Some(&file)).unwrap().unwrap()
    };
    for content in [&good[..good.len() / 2], &[&good[..], b"x"].concat(), b""] {
        fs::write(&file, content).unwrap();
        let said = said();
        assert!(said.contains("cache") && said.contains("No kept prompts are read"), "{said}");
        // The server starts without, and replaces it.
        assert_eq!(answered(&start(&model, Some(file.clone())).unwrap()), 0);
        assert_eq!(answered(&start(&model, Some(file.clone())).unwrap()), 199);
    }
    fs::write(&file, "a letter").unwrap();
    let error = start(&model, Some(file.clone())).err().unwrap().to_string();
    assert!(error.contains("name another file"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"a letter");
    assert!(start(&model, Some(folder.path().join("none/cache"))).is_err());
}

#[test]
fn saving_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache");
    let engine = start(&model(), Some(file.clone())).unwrap();
    assert_eq!(events(engine.submit(vec![submission(2)]).unwrap()).1, 1);
    let cancel = CancelToken::default();
    cancel.cancel();
    let ended = wait(engine.end(&cancel));
    assert!(matches!(ended, Err(glm_model::Error::Cancelled)), "{ended:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
