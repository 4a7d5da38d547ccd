//! Asks a model one question: `cargo run --release -p glm-model --example chat -- DIR "晚上睡不着应该怎么办"`

use std::env;
use std::error::Error;
use std::io::{Write, stdout};

use glm_model::{Bundle, Conversation, ConversationOptions, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(dir), Some(question)) = (arguments.next(), arguments.next()) else {
        return Err("usage: chat DIR QUESTION".into());
    };
    let bundle = Bundle::open(dir, &Options::default())?;
    let options = ConversationOptions::new(bundle.request(7));
    let mut conversation = Conversation::new(&bundle, options)?;
    let mut reply = conversation.ask(question)?;
    for piece in &mut reply {
        print!("{}", piece?);
        stdout().flush()?;
    }
    reply.finish()?;
    println!();
    Ok(())
}
