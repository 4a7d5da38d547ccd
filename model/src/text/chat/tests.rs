use super::*;
use crate::text::tokenizer::testing::{tokenizer, tokenizers};
use Role::{Assistant, Observation, System, User};

mod names;

fn conversation(roles: &[Role]) -> Vec<Message> {
    roles.iter().zip('a'..).map(|(&role, c)| Message::new(role, c)).collect()
}

fn named(name: &str) -> Template {
    Template::named(name).expect("a template that there is")
}

fn text(name: &str, roles: &[Role]) -> Result<String> {
    Ok(named(name).text(&conversation(roles))?.expect("a text"))
}

#[test]
fn rounds_are_numbered() {
    assert_eq!(text("chatglm", &[User]).unwrap(), "a");
    let three = text("chatglm", &[User, Assistant, User]).unwrap();
    assert_eq!(three, "[Round 0]\n问：a\n答：b\n[Round 1]\n问：c\n答：");
    assert_eq!(text("chatglm2", &[User]).unwrap(), "[Round 1]\n\n问：a\n\n答：");
    let three = text("chatglm2", &[User, Assistant, User]).unwrap();
    assert_eq!(three, "[Round 1]\n\n问：a\n\n答：b\n\n[Round 2]\n\n问：c\n\n答：");
}

#[test]
fn other_conversations_are_refused() {
    for name in ["chatglm", "chatglm2"] {
        for (roles, problem) in [
            (&[][..], "empty"),
            (&[User, Assistant], "end with"),
            (&[User, User], "two messages of the user"),
            (&[Assistant], "first message"),
            (&[User, Assistant, Assistant], "two messages of the assistant"),
            (&[System, User], "system"),
            (&[Observation], "observation"),
        ] {
            let error = text(name, roles).unwrap_err().to_string();
            assert!(error.contains(problem), "{roles:?}: {error}");
        }
        let tools = Message { tools: Some(Value::Null), ..Message::new(User, "a") };
        assert!(named(name).text(&[tools]).unwrap_err().to_string().contains("tools"));
    }
    assert!(text("plain", &[User, Assistant, User]).is_err());
}

#[test]
fn glm4_writes_roles_into_the_text() {
    let text = text("glm4", &[System, User]).unwrap();
    assert_eq!(text, "[gMASK]<sop><|system|>\na<|user|>\nb<|assistant|>");
    let by = |role| self::text("glm4", &[User, Assistant, role]).unwrap();
    assert_eq!(by(Role::Tool), by(Observation));
    assert!(self::text("glm4", &[]).is_err());
}

#[test]
fn an_unknown_template_is_told_which_there_are() {
    let error = Template::named("chatglm4").unwrap_err().to_string();
    assert!(Template::NAMES.iter().all(|name| error.contains(name)), "{error}");
    for name in Template::NAMES {
        assert_eq!(named(name).name(), name);
    }
}

#[test]
fn messages_have_their_usual_json() {
    let message: Message =
        serde_json::from_str(r#"{"role": "assistant", "content": "好"}"#).unwrap();
    assert_eq!(message, Message::new(Assistant, "好"));
    let written = serde_json::to_string(&message).unwrap();
    assert_eq!(written, r#"{"role":"assistant","content":"好"}"#);
    let full = r#"{"role":"tool","content":"","metadata":"m","tools":[{"b":1,"a":2}]}"#;
    let message: Message = serde_json::from_str(full).unwrap();
    assert_eq!(serde_json::to_string(&message).unwrap(), full);
}

#[test]
fn a_prompt_ends_with_gmask_and_sop() {
    let t = tokenizer();
    let ids = named("chatglm").prompt_ids(t, &conversation(&[User])).unwrap();
    assert_eq!(ids, [t.id("▁a"), t.special().ids.gmask, t.special().ids.sop].map(Option::unwrap));
    assert_eq!(named("chatglm").stop_ids(t), t.special().ids.ends);
}

#[test]
fn a_template_says_which_ids_the_tokenizer_lacks() {
    let error = named("chatglm3").prompt_ids(tokenizer(), &conversation(&[User])).unwrap_err();
    assert!(error.to_string().contains("<|user|>"), "{error}");
}

#[test]
fn gaps_get_their_ids_and_only_sop_follows() {
    let t = tokenizer();
    let special = t.special();
    let [mask, gmask, sop] =
        [special.ids.mask, special.ids.gmask, special.ids.sop].map(Option::unwrap);
    let [a, b] = ["▁a", "▁b"].map(|piece| t.id(piece).unwrap());
    for (text, expected) in [
        ("a [MASK] b", vec![a, mask, b, sop]),
        ("a[gMASK]\nb", vec![a, gmask, b, sop]),
        ("[MASK][MASK] a [MASK]", vec![mask, mask, a, mask, sop]),
        ("[gMASK] b [gMASK]", vec![gmask, b, gmask, sop]),
    ] {
        assert_eq!(fill_prompt(t, text).unwrap(), expected, "{text}");
    }
}

#[test]
fn answers_take_the_places_of_gaps() {
    let t = tokenizer();
    let end = t.special().ids.ends[0];
    let [a, b] = ["▁a", "▁b"].map(|piece| t.id(piece).unwrap());
    let mut fill = Fill::new(t, "[MASK] a [MASK]").unwrap();
    fill.fill(t, &[b, b, end]).unwrap();
    assert_eq!(&fill.prompt().unwrap()[..3], [b, b, a]);
    fill.fill(t, &[a]).unwrap();
    assert_eq!((fill.prompt(), fill.text(t).unwrap()), (None, "b b a a".to_owned()));
    fill.fill(t, &[b]).unwrap();
    assert_eq!(fill.text(t).unwrap(), "b b a a");
}

#[test]
fn an_answer_makes_no_gaps() {
    let t = tokenizer();
    let ids = |text| t.encode(text).unwrap();
    let mut fill = Fill::new(t, "a [MA[MASK]K]").unwrap();
    fill.fill(t, &ids("S")).unwrap();
    assert_eq!((fill.prompt(), fill.written().as_str()), (None, "a [MASK]"));
    let mut fill = Fill::new(t, "[MASK] a [MASK]").unwrap();
    for answer in [vec![t.special().ids.mask.unwrap()], ids("b [gMASK]")] {
        assert!(fill.fill(t, &answer).unwrap_err().to_string().contains("a blank of its own"));
        assert_eq!((fill.spans().len(), fill.written().as_str()), (0, "[MASK] a [MASK]"));
    }
    let mut last = Fill::new(t, "a [MASK]").unwrap();
    last.fill(t, &ids("b [gMASK]")).unwrap();
    assert_eq!(last.prompt(), None);
    // An id without text is skipped.
    fill.fill(t, &[&ids("b")[..], &[1 << 20]].concat()).unwrap();
    assert_eq!((fill.spans(), fill.written().as_str()), (&["b".to_owned()][..], "b a [MASK]"));
}

#[test]
fn an_answer_begins_after_the_line_of_its_role() {
    for (name, response) in [("chatglm3", "你好"), ("glm4", "你好"), ("plain", "\n 你好 ")] {
        assert_eq!(Template::named(name).unwrap().response("\n 你好 "), response, "{name}");
    }
}

#[test]
fn an_answer_continues_a_plain_text_unless_its_seam_is_within_a_piece() {
    let causal = tokenizers().iter().find(|t| t.family() == Family::ChatGlm3).unwrap();
    for (t, text, prompt, answers) in [
        (causal, "你", &["[gMASK]", "sop", "▁", "你"][..], [("a", &["a"][..]), ("ab", &["ab"])]),
        (causal, "a", &["[gMASK]", "sop", "▁a"], [("你", &["你"]), ("b", &["▁", "b"])]),
        // The prompt does not end with the text here.
        (tokenizer(), "a", &["▁a", "[gMASK]", "<sop>"], [("b", &["▁b"]), ("ab", &["▁ab"])]),
    ] {
        let ids = |pieces: &[&str]| -> Vec<_> {
            pieces.iter().map(|piece| t.id(piece).expect("a known piece")).collect()
        };
        let expected = (ids(prompt), answers.map(|(_, pieces)| ids(pieces)).to_vec());
        let (question, answers) = ([Message::new(User, text)], answers.map(|(answer, _)| answer));
        let found = named("plain").with_answers(t, &question, &answers).unwrap();
        assert_eq!(found, expected, "{text}: {answers:?}");
    }
}

#[test]
fn gaps_are_of_one_kind() {
    let t = tokenizer();
    assert_eq!(blank(t, "a [MASK] b [MASK]").unwrap(), Blank::Mask);
    assert_eq!(blank(t, "[gMASK]").unwrap(), Blank::Gmask);
    for text in ["", "a", "[mask]", "[sMASK]", "[MASK] [gMASK]"] {
        assert!(matches!(fill_prompt(t, text), Err(Error::Prompt(_))), "{text:?}");
    }
}

/// The template of a folder with these files.
fn chosen(files: &[(&str, &str)]) -> Result<Template> {
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    let word = r#"{"model": {"type": "BPE", "vocab": VOCAB, "merges": []}, "decoder": {"type": "ByteLevel"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}}"#;
    let vocab = crate::text::tokenizer::testing::vocab(&[]);
    let json = word.replace("VOCAB", &vocab);
    let tokenizer = Tokenizer::from_files(&[("tokenizer.json", json.as_bytes())])?;
    Template::from_files(&files, &tokenizer)
}

#[test]
fn a_folder_may_have_a_template_of_its_own() {
    let render = |files: &[(&str, &str)]| chosen(files)?.text(&conversation(&[User]));
    let config = r#"{"chat_template": "A{{ eos_token }}", "eos_token": {"content": "<e>"}}"#;
    let named = r#"{"chat_template": [{"name": "rag", "template": "B"}, {"name": "default", "template": "C"}]}"#;
    for (files, expected) in [
        (&[][..], "a"),
        (&[("tokenizer_config.json", config)], "A<e>"),
        (&[("tokenizer_config.json", named)], "C"),
        (&[("tokenizer_config.json", config), ("chat_template.jinja", "D{{ eos_token }}")], "D<e>"),
        (
            &[
                ("tokenizer_config.json", config),
                ("config.json", r#"{"_name_or_path": "x/GLM-Base"}"#),
            ],
            "A<e>",
        ),
    ] {
        assert_eq!(render(files).unwrap().unwrap(), expected);
    }
    for template in ["5", "[]", "\"{{\""] {
        let config = format!("{{\"chat_template\": {template}}}");
        let error = chosen(&[("tokenizer_config.json", &config)]).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer_config.json: chat_template"), "{error}");
    }
}
