use super::*;
use crate::generate::constraint::{Constraint, IdSet};
use crate::text::chat::AnswerEvent;
use crate::text::tokenizer::Tokenizer;
use serde_json::{Value, json};

/// The parts of GLM-4.7's template that matter here.
const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}\
    {{ '<think>' + m.reasoning_content if m.reasoning_content and clear_thinking is defined and not clear_thinking }}</think>\
    {% endif %}{{ m.content }}{% endfor %}<|assistant|>\
    {{- '</think>' if enable_thinking is defined and not enable_thinking else '<think>' }}";

/// Lets only these ids follow, the next one last, and then one that ends the answer.
#[derive(Debug, Clone)]
struct Says(Vec<u32>, u32);

impl Constraint for Says {
    fn allowed(&mut self, allowed: &mut IdSet) -> Result<bool> {
        allowed.insert(self.0.last().copied().unwrap_or(self.1));
        Ok(true)
    }

    fn accept(&mut self, _: u32) -> Result<()> {
        self.0.pop();
        Ok(())
    }

    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

/// A small model whose template knows thoughts.
fn thinker() -> Bundle {
    let names = ["<|user|>", "<|assistant|>", "<think>", "</think>"];
    let token =
        |(at, name): (usize, &&str)| json!({ "id": 256 + at, "content": name, "special": at < 2 });
    let vocab: Value = serde_json::from_str(&testing::vocab(&[])).unwrap();
    let tokenizer = json!({
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
        "decoder": { "type": "ByteLevel" },
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "use_regex": false },
        "added_tokens": names.iter().enumerate().map(token).collect::<Value>(),
    });
    let settings = json!({ "chat_template": TEMPLATE }).to_string();
    let files = [("tokenizer.json", tokenizer.to_string()), ("tokenizer_config.json", settings)];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_bytes()));
    let tokenizer = Tokenizer::from_files(&files).unwrap();
    let template = Template::from_files(&files, &tokenizer).unwrap();
    Bundle::new(causal().model().clone(), tokenizer, template).unwrap()
}

/// Options with which the model says this, whatever it computes.
fn saying(bundle: &Bundle, text: &str) -> ConversationOptions {
    let mut options = greedy(bundle);
    let ids = bundle.tokenizer().encode(text).unwrap().into_iter().rev().collect();
    let end = bundle.tokenizer().id("<|user|>").unwrap();
    options.request.stop_ids = vec![end];
    options.request.constraint = Some(Box::new(Says(ids, end)));
    options
}

#[test]
fn thoughts_are_apart_from_the_answer_and_its_message() {
    let bundle = thinker();
    let mut conversation =
        Conversation::new(&bundle, saying(&bundle, "\nhm,\nwell\n</think>\n\nok")).unwrap();
    let mut reply = conversation.ask("hi").unwrap();
    let (mut thoughts, mut text) = (String::new(), String::new());
    while let Some(event) = reply.next_event() {
        match event.unwrap() {
            AnswerEvent::Reasoning(piece) => thoughts += &piece,
            AnswerEvent::Text(piece) => text += &piece,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((&thoughts[..], &text[..]), ("hm,\nwell", "ok"));
    assert_eq!((reply.thoughts(), reply.text()), ("hm,\nwell", "ok"));
    let answer = reply.finish().unwrap();
    assert_eq!((answer.thoughts, answer.text), (thoughts, text));
    let message = conversation.messages().last().unwrap();
    assert_eq!(message.reasoning_content.as_deref(), Some("hm,\nwell"));
    assert_eq!(message.content, "ok");
    // The pieces of the iterator are those of the text.
    let again: String = conversation.regenerate().unwrap().map(Result::unwrap).collect();
    assert_eq!(again, "ok");
}

#[test]
fn the_template_is_told_whether_to_think_and_which_thoughts_stay() {
    let bundle = thinker();
    let mut conversation = Conversation::new(&bundle, saying(&bundle, "ok</think>")).unwrap();
    let mut options = conversation.options().clone();
    options.prompt.thinking = Some(false);
    conversation.set_options(options.clone()).unwrap();
    let answer = conversation.ask("hi").unwrap().finish().unwrap();
    // Without thoughts, their end is text.
    assert_eq!((&answer.text[..], &answer.thoughts[..]), ("ok</think>", ""));
    let prompt = |conversation: &mut Conversation| {
        let reply = conversation.ask("?").unwrap();
        bundle.tokenizer().decode(reply.prompt_ids()).unwrap()
    };
    let thought =
        Message { reasoning_content: Some("hm".to_owned()), ..Message::new(Role::Assistant, "ok") };
    conversation.set_messages(vec![Message::new(Role::User, "hi"), thought]).unwrap();
    let begin = "<|user|>hi<|assistant|></think>ok<|user|>?<|assistant|>";
    assert_eq!(prompt(&mut conversation), format!("{begin}</think>"));
    options.prompt.thinking = None;
    conversation.set_options(options.clone()).unwrap();
    assert_eq!(prompt(&mut conversation), format!("{begin}<think>"));
    options.prompt.clear_thinking = Some(false);
    conversation.set_options(options).unwrap();
    let kept = begin.replacen("</think>", "<think>hm</think>", 1);
    assert_eq!(prompt(&mut conversation), format!("{kept}<think>"));
}

#[test]
fn what_the_model_cannot_do_is_refused() {
    let bundle = causal();
    let mut options = greedy(&bundle);
    options.prompt.thinking = Some(false);
    let mut conversation = Conversation::new(&bundle, options.clone()).unwrap();
    options.prompt.thinking = Some(true);
    let error = conversation.set_options(options).unwrap_err().to_string();
    assert!(error.contains("cannot think"), "{error}");
    assert_eq!(conversation.options().prompt.thinking, Some(false));
}
