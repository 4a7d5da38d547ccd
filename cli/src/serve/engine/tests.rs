//! The engine with a causal model, which has no texts.

use std::fs;

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

/// The tokens of each choice, the choices that ended, the cached tokens, and whether it failed.
fn events(mut events: Events, stop: Option<usize>) -> (Vec<usize>, usize, usize, bool) {
    let (mut tokens, mut ends, mut reused, mut has_failed) = (vec![0; 4], 0, 0, false);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    while let Some((_, event)) = runtime.block_on(events.recv()) {
        match event {
            Event::Started { cached } => reused = cached,
            Event::Token { choice, .. } => {
                tokens[choice] += 1;
                if stop == Some(choice) {
                    events.stop(0, choice);
                }
            }
            Event::Finished { .. } => ends += 1,
            _ => has_failed = true,
        }
    }
    (tokens, ends, reused, has_failed)
}

#[test]
fn one_choice_can_be_stopped() {
    let engine = start(&model(), None).unwrap();
    let mut many = submission(2000);
    many.choices = 2;
    let (tokens, ends, ..) = events(engine.submit(vec![many]).unwrap(), Some(1));
    // Some come before the engine knows.
    assert!(tokens[0] == 2000 && (1..2000).contains(&tokens[1]), "{tokens:?}");
    assert_eq!(ends, 1);
    // Its place is free again, and nothing is left to do.
    let mut four = submission(2);
    four.choices = 4;
    assert_eq!(events(engine.submit(vec![four]).unwrap(), None).1, 4);
}

#[derive(Debug, Clone)]
struct Panics;

impl Constraint for Panics {
    fn allowed(&mut self, _: &mut IdSet) -> glm_model::Result<bool> {
        panic!("on purpose")
    }

    fn accept(&mut self, _: u32) -> glm_model::Result<()> {
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn a_constraint_that_panics_fails_its_answer_alone() {
    let engine = start(&model(), None).unwrap();
    let other = engine.submit(vec![submission(100)]).unwrap();
    let mut bad = submission(10);
    bad.request.constraint = Some(Box::new(Panics));
    assert!(events(engine.submit(vec![bad]).unwrap(), None).3);
    let (tokens, ends, _, has_failed) = events(other, None);
    assert_eq!((tokens[0], ends, has_failed), (100, 1, false));
}

#[test]
fn a_cache_file_that_cannot_be_used_is_replaced_if_it_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cache");
    let model = model();
    let answered = |engine: &Engine| {
        let cached = events(engine.submit(vec![submission(2)]).unwrap(), None).2;
        engine.end().unwrap();
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
