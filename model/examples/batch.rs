//! Answers questions at the same time: `cargo run --release -p glm-model --example batch -- DIR QUESTION QUESTION …`

use std::collections::HashMap;
use std::env;
use std::error::Error;

use glm_model::{Batch, BatchOptions, Bundle, Event, Message, Options, Role, Submission};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let bundle =
        Bundle::open(arguments.next().ok_or("usage: batch DIR QUESTION…")?, &Options::default())?;
    let mut batch = Batch::new(bundle.model(), BatchOptions::default())?;
    let mut answers = HashMap::new();
    for question in arguments {
        let messages = [Message::new(Role::User, &question)];
        let prompt = bundle.template().prompt_ids(bundle.tokenizer(), &messages)?;
        let ticket = batch.submit(Submission::new(prompt, bundle.request(7)))?;
        answers.insert(ticket, (question, Vec::new()));
    }
    while !batch.is_idle() {
        let mut failed = None;
        batch.pass(&mut |ticket, event| match event {
            Event::Token { token, .. } => {
                answers.entry(ticket).and_modify(|(_, ids)| ids.push(token.id));
            }
            Event::Failed(error) => failed = Some(error),
            _ => {}
        });
        failed.map_or(Ok(()), Err)?;
    }
    for (question, ids) in answers.into_values() {
        println!("{question}\n{}\n", bundle.tokenizer().decode(&ids)?);
    }
    Ok(())
}
