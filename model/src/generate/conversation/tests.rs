mod thinking;

use std::path::Path;

use super::*;
use crate::demo;
use crate::generate::generation::FinishReason;
use crate::generate::sampling::Sampling;
use crate::network::model::{Model, Options};
use crate::text::chat::Template;
use crate::text::tokenizer::testing;

/// The demonstration model.
fn bundle() -> Bundle {
    let options = Options { threads: Some(1), ..Options::default() };
    demo::bundle(&options).unwrap()
}

fn greedy(bundle: &Bundle) -> ConversationOptions {
    let mut options = ConversationOptions::new(bundle.request(5));
    options.request.sampling = Sampling { seed: 5, ..Sampling::greedy() };
    options
}

fn talk(bundle: &Bundle) -> Conversation {
    Conversation::new(bundle, greedy(bundle)).unwrap()
}

fn ask(conversation: &mut Conversation, question: &str) -> String {
    conversation.ask(question).unwrap().finish().unwrap().text
}

/// Roles and contents of the messages.
fn said(conversation: &Conversation) -> Vec<(Role, &str)> {
    let messages = conversation.messages().iter();
    messages.map(|message| (message.role, &message.content[..])).collect()
}

#[test]
fn answers_are_those_of_a_loop_over_generations() {
    let bundle = bundle();
    let (model, tokenizer, template) = (bundle.model(), bundle.tokenizer(), bundle.template());
    let options = ConversationOptions::new(bundle.request(11));
    let mut conversation = Conversation::new(&bundle, options).unwrap();
    let mut messages = Vec::new();
    for (seed, question) in (11..).zip(["Hello!", "My name is Clara.", "What is my name?"]) {
        messages.push(Message::new(Role::User, question));
        let prompt = template.prompt_ids(tokenizer, &messages).unwrap();
        let sequence = model.sequence(None).unwrap();
        let request = bundle.request(seed);
        let generation = Generation::new(model, sequence, &prompt, request).unwrap();
        let mut text = generation.text(template.stream(tokenizer));
        let expected: String = text.by_ref().map(Result::unwrap).collect();

        let mut reply = conversation.ask(question).unwrap();
        assert_eq!(reply.prompt_ids(), prompt);
        let pieces: String = reply.by_ref().map(Result::unwrap).collect();
        assert_eq!(reply.text(), pieces);
        let answer = reply.finish().unwrap();
        assert_eq!((&answer.text, &answer.text), (&expected, &pieces));
        assert_eq!((&answer.ids[..], answer.seed), (text.ids(), seed));
        assert_eq!(answer.prompt_ids, prompt);
        assert!(answer.is_appended && answer.finish == FinishReason::Stop);
        messages.push(Message::new(Role::Assistant, expected));
        assert_eq!(conversation.messages(), messages);
    }
}

/// A tiny causal model of random weights, with a tokenizer of bytes.
fn causal() -> Bundle {
    let tiny = "tests/models/chatglm2-6b-tiny/int4";
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(tiny);
    let options = Options { threads: Some(1), ..Options::default() };
    let tokenizer = testing::open(&testing::folders()[1]).unwrap();
    let template = Template::named("chatglm2").unwrap();
    Bundle::new(Model::open(dir, &options).unwrap(), tokenizer, template).unwrap()
}

#[test]
fn a_causal_model_reads_only_what_is_new() {
    let bundle = causal();
    let (model, tokenizer, template) = (bundle.model(), bundle.tokenizer(), bundle.template());
    let mut options = ConversationOptions::new(bundle.request(3));
    options.request.max_new_tokens = Some(6);
    options.context = Some(1000);
    let mut conversation = Conversation::new(&bundle, options).unwrap();
    let mut last = 0;
    for question in ["ab", "你 a", "b"] {
        let request = conversation.options().request.clone();
        let answer = conversation.ask(question).unwrap().finish().unwrap();
        let asked = &conversation.messages()[..conversation.messages().len() - 1];
        assert_eq!(answer.prompt_ids, template.prompt_ids(tokenizer, asked).unwrap());
        let sequence = model.sequence(None).unwrap();
        let generation = Generation::new(model, sequence, &answer.prompt_ids, request).unwrap();
        assert_eq!(answer.ids, generation.collect::<Result<Vec<_>>>().unwrap());
        // All of the prompt before, up to where the answer follows.
        assert!(answer.kept_tokens + 1 >= last, "{} {last}", answer.kept_tokens);
        last = answer.prompt_ids.len();
    }
}

#[test]
fn rounds_are_undone_and_cleared_but_not_instructions() {
    let bundle = bundle();
    let mut conversation = talk(&bundle);
    assert!(!conversation.undo());
    let first = ask(&mut conversation, "你好");
    ask(&mut conversation, "谢谢");
    assert!(conversation.undo());
    assert_eq!(said(&conversation), [(Role::User, "你好"), (Role::Assistant, &first)]);
    assert!(conversation.undo() && !conversation.undo());

    conversation.append(Message::new(Role::System, "Be brief."));
    conversation.append(Message::new(Role::User, "x"));
    // ChatGLM-6B has no place for instructions.
    assert_eq!(conversation.check().unwrap_err().code(), "prompt");
    assert_eq!(conversation.answer().err().unwrap().code(), "prompt");
    conversation.clear();
    assert_eq!(said(&conversation), [(Role::System, "Be brief.")]);
}

#[test]
fn an_answer_is_generated_again_with_the_next_seed_and_the_context_is_kept() {
    let bundle = bundle();
    let mut conversation = talk(&bundle);
    assert_eq!(conversation.regenerate().err().unwrap().code(), "prompt");
    ask(&mut conversation, "你好");
    let before = conversation.messages().to_vec();
    let answer = conversation.regenerate().unwrap().finish().unwrap();
    assert_eq!(answer.seed, 6);
    assert_eq!(answer.kept_tokens, answer.prompt_ids.len() - 1, "the same question");
    assert_eq!(conversation.messages(), before);
    assert_eq!(conversation.options().request.sampling.seed, 7);
}

#[test]
fn a_saved_conversation_is_continued_regenerated_and_undone() {
    let bundle = bundle();
    let mut first = talk(&bundle);
    for question in ["Hello!", "My name is Clara."] {
        ask(&mut first, question);
    }
    let json = first.to_json();
    let load = || Conversation::from_json(&bundle, greedy(&bundle), &json).unwrap();
    assert_eq!(load().messages(), first.messages());
    let mut regenerated = load();
    regenerated.regenerate().unwrap().finish().unwrap();
    assert_eq!(regenerated.messages(), first.messages());
    let mut undone = load();
    assert!(undone.undo());
    assert_eq!(undone.messages(), &first.messages()[..2]);
    assert_eq!(ask(&mut load(), "What is my name?"), ask(&mut first, "What is my name?"));

    let asked =
        r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "你好"}]}]}"#;
    let mut asked = Conversation::from_json(&bundle, greedy(&bundle), asked).unwrap();
    let answer = asked.answer().unwrap().finish().unwrap();
    assert_eq!(said(&asked), [(Role::User, "你好"), (Role::Assistant, &answer.text)]);
    let problem = Conversation::from_json(&bundle, greedy(&bundle), "{}").err().unwrap();
    assert_eq!(problem.code(), "prompt");
}

#[test]
fn cancelling_before_the_first_word_changes_nothing_and_later_keeps_what_was_said() {
    let bundle = bundle();
    let mut conversation = talk(&bundle);
    let cancel = conversation.options().request.cancel.clone();
    let whole = ask(&mut talk(&bundle), "你好");

    // While the prompt is read.
    let mut reply = conversation.ask("你好").unwrap();
    let token = cancel.clone();
    reply.read_prompt(&mut move |_| token.cancel()).unwrap();
    assert!(reply.next().is_none());
    let answer = reply.finish().unwrap();
    assert_eq!((answer.finish, answer.is_appended), (FinishReason::Cancelled, false));
    assert!(answer.text.is_empty() && conversation.messages().is_empty());
    assert_eq!(conversation.options().request.sampling.seed, 5);

    // While the answer is generated.
    cancel.reset();
    let mut reply = conversation.ask("你好").unwrap();
    let first = reply.next().unwrap().unwrap();
    cancel.cancel();
    let answer = reply.finish().unwrap();
    assert_eq!((answer.finish, answer.is_appended), (FinishReason::Cancelled, true));
    assert!(answer.text.starts_with(&first) && answer.text.len() < whole.len());
    assert_eq!(said(&conversation), [(Role::User, "你好"), (Role::Assistant, &answer.text)]);
    cancel.reset();
    let again = conversation.regenerate().unwrap().finish().unwrap();
    assert_eq!(again.text, whole);
}

#[test]
fn a_reply_that_is_dropped_was_not_asked_for() {
    let bundle = bundle();
    let mut conversation = talk(&bundle);
    drop(conversation.ask("你好").unwrap());
    let mut reply = conversation.ask("你好").unwrap();
    reply.next().unwrap().unwrap();
    drop(reply);
    assert!(conversation.messages().is_empty());
    let answer = conversation.ask("你好").unwrap().finish().unwrap();
    assert!(answer.kept_tokens > 0, "its sequence is used again");
    assert_eq!(answer.text, ask(&mut talk(&bundle), "你好"));
}

#[test]
fn a_conversation_goes_on_after_an_error() {
    let bundle = bundle();
    let mut options = greedy(&bundle);
    options.context = Some(40);
    let mut conversation = Conversation::new(&bundle, options).unwrap();
    ask(&mut conversation, "你好");
    let before = conversation.messages().to_vec();
    let long = "What is the capital of France? ".repeat(20);
    assert_eq!(conversation.ask(long).err().unwrap().code(), "context_full");
    assert_eq!(conversation.messages(), before);
    assert_eq!(conversation.options().request.sampling.seed, 6);
    let again = conversation.regenerate().unwrap().finish().unwrap();
    assert!(again.kept_tokens > 0);
    assert_eq!(conversation.messages(), before);

    // An error while the prompt is read: the keys and values of one page only.
    let kv_budget = Some(bundle.model().kv_pool().page_bytes());
    let options = Options { threads: Some(1), kv_budget, ..Options::default() };
    let narrow = demo::bundle(&options).unwrap();
    let mut conversation = talk(&narrow);
    ask(&mut conversation, "你好");
    let before = conversation.messages().to_vec();
    let long = "What is the capital of France? ".repeat(20);
    let mut reply = conversation.ask(&*long).unwrap();
    assert_eq!(reply.next().unwrap().unwrap_err().code(), "kv_budget");
    assert_eq!(reply.finish().unwrap_err().code(), "failed");
    assert_eq!(conversation.ask(long).unwrap().finish().unwrap_err().code(), "kv_budget");
    assert_eq!(conversation.messages(), before);
    ask(&mut conversation, "谢谢");
    assert_eq!(conversation.messages().len(), 4);
}

#[test]
fn options_out_of_range_are_refused() {
    let bundle = bundle();
    let code = |change: fn(&mut ConversationOptions)| {
        let mut options = greedy(&bundle);
        change(&mut options);
        Conversation::new(&bundle, options).err().map(|error| error.code())
    };
    assert_eq!(code(|options| options.context = Some(0)), Some("setting"));
    assert_eq!(code(|options| options.request.sampling.top_p = 2.0), Some("setting"));
    assert_eq!(code(|options| options.stop_strings.push(String::new())), Some("setting"));
    assert_eq!(code(|_| ()), None);
}

#[test]
fn a_stop_string_ends_an_answer() {
    let bundle = bundle();
    let whole = ask(&mut talk(&bundle), "你好");
    let mut options = greedy(&bundle);
    options.stop_strings = vec!["什么".to_owned()];
    let mut conversation = Conversation::new(&bundle, options).unwrap();
    let answer = conversation.ask("你好").unwrap().finish().unwrap();
    assert_eq!(
        Some((&answer.text[..], answer.finish)),
        whole.split_once("什么").map(|(text, _)| (text, FinishReason::Stop))
    );
    assert_eq!(conversation.messages()[1].content, answer.text);
}

#[test]
fn oldest_rounds_are_dropped_as_if_one_by_one() {
    let bundle = bundle();
    let mut options = greedy(&bundle);
    (options.overflow, options.context) = (Overflow::DropOldest, Some(80));
    options.request.max_new_tokens = Some(8);
    let mut conversation = Conversation::new(&bundle, options).unwrap();
    let mut expected: Vec<Message> = Vec::new();
    let mut total = 0;
    for _ in 0..6 {
        expected.push(Message::new(Role::User, "What is the capital of France?"));
        let encode =
            |messages: &[Message]| bundle.template().prompt_ids(bundle.tokenizer(), messages);
        let mut dropped = 0;
        while encode(&expected).unwrap().len() > 80 - 8 {
            expected.drain(..2);
            dropped += 1;
        }
        let reply = conversation.ask("What is the capital of France?").unwrap();
        assert_eq!(reply.dropped_rounds(), dropped);
        let answer = reply.finish().unwrap();
        expected.push(Message::new(Role::Assistant, answer.text));
        assert_eq!(conversation.messages(), expected);
        total += answer.dropped_rounds;
    }
    assert!(total > 0);
    // The messages end with an answer: there is room for an answer to a question, or rounds are dropped.
    let count = conversation.messages().len();
    let dropped = conversation.trim().unwrap();
    assert_eq!(conversation.messages().len(), count - 2 * dropped);
    assert_eq!(conversation.trim().unwrap(), 0);
}

#[test]
fn thousands_of_rounds_are_dropped_quickly() {
    let bundle = bundle();
    let mut options = greedy(&bundle);
    options.overflow = Overflow::DropOldest;
    options.request.max_new_tokens = Some(2);
    let mut conversation = Conversation::new(&bundle, options).unwrap();
    for i in 0..4000 {
        conversation.append(Message::new(Role::User, format!("你好 {i}")));
        conversation.append(Message::new(Role::Assistant, "x".repeat(i % 17)));
    }
    let started = std::time::Instant::now();
    let reply = conversation.ask("谢谢").unwrap();
    let elapsed = started.elapsed();
    // A fraction of a second, in this build too. To encode anew for each round would take minutes.
    assert!(elapsed.as_secs() < 10, "{elapsed:?}");
    let dropped = reply.dropped_rounds();
    let longest = reply.prompt_ids().len();
    assert!((3900..4000).contains(&dropped), "{dropped}");
    reply.finish().unwrap();
    assert_eq!(conversation.messages().len(), 2 * (4001 - dropped));
    let encode = |messages: &[Message]| {
        bundle.template().prompt_ids(bundle.tokenizer(), messages).unwrap().len()
    };
    let most = longest_prompt(conversation.context(), Some(2));
    let kept = &conversation.messages()[..conversation.messages().len() - 1];
    assert_eq!(encode(kept), longest);
    assert!(longest <= most);
    let round = [
        Message::new(Role::User, format!("你好 {}", dropped - 1)),
        Message::new(Role::Assistant, "x".repeat((dropped - 1) % 17)),
    ];
    assert!(encode(&[&round, kept].concat()) > most, "one more round would have fitted");
}

#[test]
fn a_conversation_can_be_sent_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    let bundle = bundle();
    let mut conversation = talk(&bundle);
    is_send(&conversation);
    is_send(&conversation.ask("你好").unwrap());
}

#[test]
fn options_and_messages_are_replaced_or_stay() {
    let bundle = bundle();
    let mut conversation = talk(&bundle);
    assert_eq!(conversation.context(), 512);
    ask(&mut conversation, "My name is Clara.");

    let mut options = conversation.options().clone();
    options.request.max_new_tokens = Some(1);
    options.context = Some(7);
    conversation.set_options(options.clone()).unwrap();
    assert_eq!((conversation.options().context, conversation.context()), (None, 512));
    assert_eq!(conversation.ask("谢谢").unwrap().finish().unwrap().ids.len(), 1);
    options.request.sampling.top_p = 2.0;
    options.request.max_new_tokens = None;
    assert!(conversation.set_options(options.clone()).is_err());
    options.request.sampling.top_p = 1.0;
    options.stop_strings.push(String::new());
    assert!(conversation.set_options(options).is_err());
    assert_eq!(conversation.options().request.max_new_tokens, Some(1));

    // ChatGLM-6B takes no instructions.
    let before = conversation.messages().to_vec();
    assert!(conversation.set_messages(vec![Message::new(Role::System, "s")]).is_err());
    assert_eq!(conversation.messages(), before);
    let long = conversation.prompt_tokens().unwrap();
    assert_eq!(conversation.set_messages(before[..2].to_vec()).unwrap(), before);
    let short = conversation.prompt_tokens().unwrap();
    assert!(0 < short && short < long, "{short} {long}");
    let reply = conversation.ask("").unwrap();
    assert_eq!(reply.prompt_ids().len(), short);
}
