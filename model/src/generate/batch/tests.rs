//! What cannot happen to a sound model: it panics, or refuses a sequence.

use std::collections::HashMap;
use std::path::Path;

use super::*;
use crate::generate::generation::Generation;
use crate::generate::sampling::Sampling;
use crate::network::model::Options;

fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/chatglm2-6b-tiny/int4");
    let options = Options { threads: Some(2), ..Options::default() };
    Model::open(folder, &options).unwrap()
}

fn submission(salt: u32) -> Submission {
    let mut request = Request::new(Sampling::greedy());
    request.max_new_tokens = Some(8);
    let prompt = (0..20).map(|i| 10 + (i * i + salt * 7) % 50).collect();
    Submission { context: Some(128), ..Submission::new(prompt, request) }
}

fn alone(model: &Model, submission: &Submission) -> Vec<u32> {
    let sequence = model.sequence(submission.context).unwrap();
    let request = submission.request.clone();
    let answer = Generation::new(model, sequence, &submission.prompt, request).unwrap();
    answer.map(Result::unwrap).collect()
}

/// Passes until it is idle. The ids of each submission, and the code of its error.
#[derive(Default)]
struct Log {
    ids: HashMap<Ticket, Vec<u32>>,
    failed: HashMap<Ticket, &'static str>,
}

impl Log {
    fn pass(&mut self, batch: &mut Batch) {
        batch.pass(&mut |ticket, event| match event {
            Event::Token { token, .. } => self.ids.entry(ticket).or_default().push(token.id),
            Event::Failed(error) => assert!(self.failed.insert(ticket, error.code()).is_none()),
            _ => {}
        });
    }

    fn finish(&mut self, batch: &mut Batch) {
        while !batch.is_idle() {
            self.pass(batch);
        }
    }
}

#[test]
fn a_panic_of_the_model_fails_what_runs_and_nothing_else() {
    let model = model();
    let mut options = BatchOptions::default();
    (options.max_sequences, options.cache_bytes) = (2, 0);
    let mut batch = Batch::new(&model, options).unwrap();
    let mut log = Log::default();
    let tickets = [1, 2, 3].map(|salt| batch.submit(submission(salt)).unwrap());
    log.pass(&mut batch);
    assert_eq!((batch.stats().running, batch.stats().waiting), (2, 1));
    // The pass panics when it writes to it.
    batch.workspace.normed = Vec::new();
    log.pass(&mut batch);
    let [first, second, third] = tickets;
    assert_eq!(log.failed, HashMap::from([(first, "panicked"), (second, "panicked")]));
    assert_eq!((batch.stats().running, model.kv_pool().used_bytes()), (0, 0));
    log.finish(&mut batch);
    assert_eq!(log.ids[&third], alone(&model, &submission(3)));
    assert_eq!((log.failed.len(), model.kv_pool().used_bytes()), (2, 0));
}

#[test]
fn what_the_model_refuses_fails_alone() {
    let (model, other) = (model(), model());
    let mut batch = Batch::new(&model, BatchOptions::default()).unwrap();
    let mut log = Log::default();
    let tickets = [1, 2, 3].map(|salt| batch.submit(submission(salt)).unwrap());
    log.pass(&mut batch);
    let Submission { prompt, request, context, .. } = submission(2);
    let sequence = other.sequence(context).unwrap();
    batch.running[1].answer = Decoding::new(&other, sequence, &prompt, request).unwrap();
    log.finish(&mut batch);
    assert_eq!(log.failed, HashMap::from([(tickets[1], "other_model")]));
    for index in [0, 2] {
        assert_eq!(log.ids[&tickets[index]], alone(&model, &submission(index as u32 + 1)));
    }
}
