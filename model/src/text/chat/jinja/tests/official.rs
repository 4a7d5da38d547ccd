//! The published templates of GLM-4.5 and later, given the same values as transformers gave them.

use super::*;
use std::{env, fs};

/// The folder of recorded conversations.
fn recorded() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let shared = env::var_os("GLM_SHARED").map_or(beside, PathBuf::from);
    shared.join("fixtures/templates")
}

/// Transformers drops what is null from a message.
fn without_null(message: &Json) -> Json {
    let fields = message.as_object().expect("a message").iter();
    fields.filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What the template makes of the messages exactly as they were recorded: content in parts, calls without `function`, roles that
/// nobody knows, and variables that we never set.
#[test]
#[ignore = "needs the shared fixtures"]
fn our_environment_renders_as_that_of_transformers() {
    let folder = recorded();
    let golden = fs::read(folder.join("golden.json")).expect("recorded conversations");
    let golden: Json = serde_json::from_slice(&golden).expect("valid JSON");
    let mut checked = 0;
    for (name, info) in golden["templates"].as_object().expect("templates") {
        let path = folder.join(info["file"].as_str().expect("a name"));
        let source = fs::read_to_string(&path).expect("a template");
        let jinja = Jinja::new(source, Map::new(), &path).expect("a valid template");
        let cases = ["cases", "quirks"].map(|part| golden[part].as_array().expect("a list"));
        for case in cases.into_iter().flatten().filter(|case| case["template"] == name.as_str()) {
            let messages: Vec<_> =
                case["messages"].as_array().expect("messages").iter().map(without_null).collect();
            let bytes = case["messages"].to_string().len() as u64;
            let tools = case.get("tools").filter(|tools| !tools.is_null()).cloned();
            let variables = case["kwargs"].as_object().expect("variables");
            let found = jinja.render(Conversation { messages, tools, bytes }, variables);
            match case.get("error") {
                Some(_) => assert!(found.is_err(), "{case}"),
                None => assert_eq!(found.expect("text"), case["rendered"], "{case}"),
            }
            checked += 1;
        }
    }
    assert_eq!(
        checked,
        golden["cases"].as_array().unwrap().len() + golden["quirks"].as_array().unwrap().len()
    );
}
