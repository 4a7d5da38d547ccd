//! The vocabularies, special tokens and templates in GGUF files. What is wrong with them is said.

mod common;
#[path = "common/gguf.rs"]
mod writer;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use common::fixture;
use glm_model::{Checkpoint, Config, QuantizeOptions, Template, Tokenizer, quantize};
use writer::{
    Gguf, LAYERS, Value, byte_tokens, bytes_and_words, layer, of_transformers, text, written,
};

#[test]
fn tokens_template_and_ends_come_from_the_file() {
    let (_dir, path) = written(&bytes_and_words());
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert_eq!(tokenizer.encode("abc").unwrap(), [257]);
    // A word that is a token stays whole, whatever the merges would make of it.
    assert_eq!(tokenizer.encode("bc").unwrap(), [258]);
    assert_eq!(tokenizer.encode("xabc<|user|> ").unwrap(), [120, 257, 262, 32]);
    assert_eq!(tokenizer.encode("é12").unwrap(), [0xc3, 0xa9, 49, 50]);
    assert_eq!(tokenizer.decode(&[257, 264, 0xe4, 0xbd, 0xa0]).unwrap(), "abc<think>你");
    assert_eq!(tokenizer.special_name(262), Some("<|user|>"));
    assert_eq!(tokenizer.special_name(264), None);
    assert_eq!(tokenizer.special().before, [260, 261]);
    assert_eq!(tokenizer.special().ids.ends, [262]);
    assert_eq!(Config::open(&path).unwrap().special.ends, [262, 260]);
    let template = Template::open(&path, &tokenizer).unwrap();
    assert_eq!(template.name(), "chat_template");
    let messages = [glm_model::Message::new(glm_model::Role::User, "bc")];
    let ids = template.prompt_ids(&tokenizer, &messages).unwrap();
    assert_eq!(ids, [260, 261, 262, 10, 258, 263]);
}

#[test]
fn special_ids_that_are_no_tokens_are_left_out() {
    let key = |name: &str| format!("tokenizer.ggml.{name}_token_id");
    let file = bytes_and_words().with(&key("eos"), Value::U32(265));
    let (_dir, path) = written(&file.with(&key("padding"), Value::U32(u32::MAX)));
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert_eq!(tokenizer.encode("abc").unwrap(), [257]);
    assert!(tokenizer.special().ids.ends.is_empty() && tokenizer.special().pad.is_none());
}

/// The ranks of GLM-4-9B join what the one merge of each token does not.
#[test]
fn ranks_join_what_is_a_token() {
    let file = bytes_and_words().with("tokenizer.ggml.pre", text("chatglm-bpe"));
    let (_dir, path) = written(&file.with("tokenizer.ggml.merges", Value::Texts(vec![])));
    let tokenizer = Tokenizer::open(&path).unwrap();
    for (sentence, ids) in
        [("abc", &[257][..]), ("-bc", &[45, 258]), ("xabc<|user|> ", &[120, 257, 262, 32])]
    {
        assert_eq!(tokenizer.encode(sentence).unwrap(), ids, "{sentence}");
    }
    assert_eq!(
        (tokenizer.special_name(262), tokenizer.special_name(264)),
        (Some("<|user|>"), None)
    );
    assert_eq!(tokenizer.special().before, [260, 261]);
    let template = Template::open(&path, &tokenizer).unwrap();
    assert_eq!(template.name(), "chat_template");
}

#[test]
fn the_folder_of_quantize_has_the_tokenizer() {
    let (architecture, name) = LAYERS[1];
    let checkpoint = Checkpoint::open(fixture(name)).unwrap();
    let file = Gguf { metadata: bytes_and_words().metadata, ..Gguf::new() }
        .with("glm4.vocab_size", Value::U32(9));
    let filled = of_transformers(file, &checkpoint, &|_, _, _| None);
    assert_eq!(architecture, "glm4");
    let (_dir, path) = written(
        &filled
            .with("tokenizer.ggml.eos_token_id", Value::U32(8))
            .with("tokenizer.ggml.eot_token_id", Value::U32(8))
            .with("tokenizer.ggml.eom_token_id", Value::U32(8)),
    );
    let target = tempfile::tempdir().unwrap();
    let go_on = &mut |_, _, _: &str| ControlFlow::Continue(());
    quantize(&path, target.path(), &QuantizeOptions::new(8, 32), go_on).unwrap();
    let [own, other] = [&path, target.path()].map(|path: &Path| Tokenizer::open(path).unwrap());
    let sentence = "abcbc é <|user|>\n";
    assert_eq!(own.encode(sentence).unwrap(), other.encode(sentence).unwrap());
    assert_eq!(own.special(), other.special());
    let [own, other] = [&path, target.path()].map(|path: &Path| Config::open(path).unwrap());
    assert_eq!(own, other);
    assert_eq!(
        Template::open(target.path(), &Tokenizer::open(target.path()).unwrap()).unwrap().name(),
        "chat_template"
    );
}

#[test]
fn what_is_wrong_with_a_vocabulary_is_said() {
    let good = bytes_and_words;
    let tokens = |change: &dyn Fn(&mut Vec<String>)| {
        let file = good();
        let listed = file.metadata.iter().find(|(key, _)| key == "tokenizer.ggml.tokens");
        let Some((_, Value::Texts(tokens))) = listed else { unreachable!() };
        let mut tokens = tokens.clone();
        change(&mut tokens);
        file.clone().with("tokenizer.ggml.tokens", Value::Texts(tokens))
    };
    for (file, problem) in [
        (good().with("tokenizer.ggml.model", text("bert")), "tokenizer.ggml.model Some(\"bert\")"),
        (good().with("tokenizer.ggml.pre", text("qwen2")), "tokenizer.ggml.pre Some(\"qwen2\")"),
        (good().with("tokenizer.ggml.tokens", Value::U32(3)), "tokens is missing, or no list"),
        (good().with("tokenizer.ggml.tokens", Value::Floats(vec![1.0])), "is no list of strings"),
        (good().with("tokenizer.ggml.token_type", Value::Texts(vec![])), "is no list of integers"),
        (
            good().with("tokenizer.ggml.token_type", Value::Integers(vec![1; 3])),
            "265 tokens and 3 types",
        ),
        (
            good().with("tokenizer.ggml.merges", Value::Texts(vec!["a xy".into()])),
            "a merge is not valid",
        ),
        (
            good().with("tokenizer.ggml.tokens", Value::Texts(vec![String::new(); (1 << 20) + 1])),
            "tokenizer.ggml.tokens has more than 1048576 elements",
        ),
        (
            good().with("tokenizer.ggml.merges", Value::Texts(vec![String::new(); (1 << 20) + 1])),
            "tokenizer.ggml.merges has more than 1048576 elements",
        ),
        (tokens(&|tokens| tokens[256] = "a".into()), "the token \"a\" has two ids"),
        (tokens(&|tokens| tokens[256] = "a b".into()), "GPT-2's notation"),
        (
            good()
                .with("tokenizer.ggml.model", text("llama"))
                .with("tokenizer.ggml.pre", text("chatglm-spm")),
            "scores is missing",
        ),
    ] {
        let (_dir, path) = written(&file);
        let error = Tokenizer::open(&path).err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("{}: ", path.display())) && error.contains(problem),
            "{error}"
        );
    }
}

/// A field of a protobuf message with a length.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128);
    [&[tag << 3 | 2, bytes.len() as u8], bytes].concat()
}

#[test]
fn the_pieces_of_chatglm3_are_those_of_its_own_file() {
    let words = ["▁", "h", "e", "l", "he", "ll", "▁▁", "hell", "▁he"];
    let mut pieces: Vec<(String, f32, i32)> =
        vec![("<unk>".into(), 0.0, 2), ("<s>".into(), 0.0, 3), ("</s>".into(), 0.0, 3)];
    pieces.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    pieces.extend((0..).zip(words).map(|(i, word)| (word.into(), -(i as f32), 1)));
    let mut model = Vec::new();
    for (piece, score, kind) in &pieces {
        let number = [&[2 << 3 | 5], &score.to_le_bytes()[..], &[3 << 3, *kind as u8]].concat();
        model.extend(field(1, &[field(1, piece.as_bytes()), number].concat()));
    }
    // BPE with bytes, and blanks that stay.
    model.extend(field(2, &[3 << 3, 2, 0x98, 2, 1]));
    model.extend(field(3, &[3 << 3, 1, 4 << 3, 0]));
    let official = Tokenizer::from_files(&[("tokenizer.model", &model)]).unwrap();

    let special = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"];
    let roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"];
    pieces[1].0 = "<bos>".into();
    pieces[2].0 = "<eos>".into();
    pieces.extend(special.into_iter().chain(roles).map(|name| (name.into(), 0.0, 3)));
    pieces.push(("[PAD300]".into(), 0.0, 5));
    let file = |pieces: &[(String, f32, i32)]| {
        layer("chatglm")
            .with("tokenizer.ggml.model", text("llama"))
            .with("tokenizer.ggml.pre", text("chatglm-spm"))
            .with(
                "tokenizer.ggml.tokens",
                Value::Texts(pieces.iter().map(|it| it.0.clone()).collect()),
            )
            .with("tokenizer.ggml.scores", Value::Floats(pieces.iter().map(|it| it.1).collect()))
            .with(
                "tokenizer.ggml.token_type",
                Value::Integers(pieces.iter().map(|it| it.2).collect()),
            )
    };
    let (_dir, path) = written(&file(&pieces));
    let own = Tokenizer::open(&path).unwrap();
    assert_eq!(own.special(), official.special());
    for sentence in ["hell", "  he", "é<|user|>", "hello 你 hell\n"] {
        let ids = official.encode(sentence).unwrap();
        assert_eq!(own.encode(sentence).unwrap(), ids, "{sentence}");
        assert_eq!(own.decode(&ids).unwrap(), sentence);
    }
    assert_eq!(Template::open(&path, &own).unwrap().name(), "chatglm3");
    pieces.swap(270, 271);
    let (_dir, path) = written(&file(&pieces));
    let error = Tokenizer::open(&path).err().unwrap().to_string();
    assert!(error.contains("this is no vocabulary of ChatGLM3"), "{error}");
}

/// The vocabulary of a `tokenizer.json`, as the converter of llama.cpp writes it.
fn of_tokenizer_json(json: &serde_json::Value) -> Gguf {
    let mut tokens = Vec::new();
    let mut put = |id: u64, token: &str, kind: i32| {
        let id = id as usize;
        tokens.resize_with(tokens.len().max(id + 1), || ("[PAD]".to_owned(), 5));
        tokens[id] = (token.to_owned(), kind);
    };
    let vocab = json["model"]["vocab"].as_object().unwrap();
    vocab.iter().for_each(|(token, id)| put(id.as_u64().unwrap(), token, 1));
    for token in json["added_tokens"].as_array().unwrap() {
        let kind = if token["special"] == true { 3 } else { 4 };
        put(token["id"].as_u64().unwrap(), token["content"].as_str().unwrap(), kind);
    }
    let merge = |merge: &serde_json::Value| match merge.as_str() {
        Some(line) => line.to_owned(),
        None => format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()),
    };
    let merges = json["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    vocabulary(tokens, merges)
}

fn vocabulary(tokens: Vec<(String, i32)>, merges: Vec<String>) -> Gguf {
    let (tokens, types) = tokens.into_iter().unzip();
    layer("glm4")
        .with("tokenizer.ggml.model", text("gpt2"))
        .with("tokenizer.ggml.pre", text("glm4"))
        .with("tokenizer.ggml.tokens", Value::Texts(tokens))
        .with("tokenizer.ggml.token_type", Value::Integers(types))
        .with("tokenizer.ggml.merges", Value::Texts(merges))
}

/// The vocabulary of tiktoken ranks, as the converter of llama.cpp writes it: a merge for each token, by the ranks below its own.
fn of_ranks(ranks: &str, settings: &serde_json::Value) -> Gguf {
    let alphabet = byte_tokens();
    let spell = |bytes: &[u8]| bytes.iter().map(|&byte| &*alphabet[usize::from(byte)]).collect();
    let mut by_bytes = std::collections::HashMap::new();
    for line in ranks.lines() {
        let (token, rank) = line.split_once(' ').unwrap();
        let token = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token);
        by_bytes.insert(token.unwrap(), rank.parse::<usize>().unwrap());
    }
    let mut tokens = vec![("[PAD]".to_owned(), 5); by_bytes.len()];
    let mut merges = vec![None; by_bytes.len()];
    for (token, &rank) in &by_bytes {
        tokens[rank] = (spell(token), 1);
        let mut parts: Vec<Vec<u8>> = token.iter().map(|&byte| vec![byte]).collect();
        loop {
            let pairs = parts.windows(2).map(|pair| by_bytes.get(&pair.concat()).copied());
            let best = pairs.enumerate().filter_map(|(at, rank)| Some((rank?, at))).min();
            let Some((_, at)) = best.filter(|(best, _)| *best < rank) else { break };
            let right = parts.remove(at + 1);
            parts[at].extend(right);
        }
        if let [left, right] = &parts[..] {
            let [left, right]: [String; 2] = [left, right].map(|part| spell(part));
            merges[rank] = Some(format!("{left} {right}"));
        }
    }
    for (id, token) in settings["added_tokens_decoder"].as_object().unwrap() {
        let id: usize = id.parse().unwrap();
        tokens.resize(tokens.len().max(id + 1), ("[PAD]".to_owned(), 5));
        tokens[id] = (token["content"].as_str().unwrap().to_owned(), 3);
    }
    vocabulary(tokens, merges.into_iter().flatten().collect())
        .with("tokenizer.ggml.pre", text("chatglm-bpe"))
}

#[test]
#[ignore = "needs the shared fixtures; .ci/run runs it"]
fn published_vocabularies_give_the_recorded_ids() {
    let folder = common::shared().join("fixtures");
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(folder.join(path)).unwrap()).unwrap()
    };
    let ranks =
        fs::read_to_string(folder.join("tokenizers/glm-4-9b-chat/tokenizer.model")).unwrap();
    for (name, file) in [
        ("glm-4.5", of_tokenizer_json(&json("tokenizers/glm-4.5/tokenizer.json"))),
        (
            "glm-4-9b-chat",
            of_ranks(&ranks, &json("tokenizers/glm-4-9b-chat/tokenizer_config.json")),
        ),
    ] {
        let (_dir, path) = written(&file);
        let tokenizer = Tokenizer::open(&path).unwrap();
        let goldens = json(&format!("tokenizer_goldens/{name}.json"));
        let texts = goldens["texts"].as_array().unwrap();
        assert!(texts.len() > 100);
        for case in texts {
            let sentence = case["text"].as_str().unwrap();
            let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            assert_eq!(tokenizer.encode(sentence).unwrap(), ids, "{name}: {sentence:?}");
        }
    }
}
