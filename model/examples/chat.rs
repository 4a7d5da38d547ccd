//! Asks a model one question: `cargo run --release -p glm-model --example chat -- DIR "晚上睡不着应该怎么办"`

use std::env;
use std::error::Error;
use std::io::{Write, stdout};
use std::path::Path;

use glm_model::{Generation, Message, Model, Options, Request, Role, Template, Tokenizer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(dir), Some(question)) = (arguments.next(), arguments.next()) else {
        return Err("usage: chat DIR QUESTION".into());
    };
    let model = Model::open(&dir, &Options::default())?;
    let tokenizer = Tokenizer::open(Path::new(&dir))?;
    model.check_tokenizer(&tokenizer)?;
    let template = Template::open(Path::new(&dir), &tokenizer)?;

    let prompt = template.prompt_ids(&tokenizer, &[Message::new(Role::User, question)])?;
    let request = Request::chat(&model, 7).ending_as(&template, &tokenizer);
    let answer = Generation::new(&model, model.sequence(None)?, &prompt, request)?;
    for piece in answer.text(template.stream(&tokenizer)) {
        print!("{}", piece?);
        stdout().flush()?;
    }
    println!();
    Ok(())
}
